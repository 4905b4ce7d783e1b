/** How long anything to do with the database may take, in milliseconds. Together they keep an answer within 10 s. */
export const CONNECT_WITHIN = 3_000;
/** Enforced by the server: a statement that waits for a lock ends with 57014. */
export const STATEMENT_WITHIN = 5_000;
/** Waiting for a connection and for the answer: when it is over, the peer is frozen or the pool exhausted. */
export const ANSWER_WITHIN = 8_000;
/** A connection that has been idle for longer is closed rather than trusted (`DB_POOL_PRE_PING`). */
export const IDLE_WITHIN = 30_000;

/** The database did not answer in time. */
export class DatabaseTimeout extends Error {}
