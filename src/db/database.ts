import type { PgDatabase, PgQueryResultHKT } from "drizzle-orm/pg-core";

/** A statement as it is sent. The name is for drivers that prepare it under one. */
export interface Statement {
  name: string;
  text: string;
}

/** Sends a statement with its values; the rows are as the driver reads them. Fails as the driver fails. */
export type Query = <Row>(statement: Statement, values: unknown[]) => Promise<Row[]>;

/** A Postgres, whichever driver reaches it. */
export interface Database {
  /** Builds statements, and migrates. */
  readonly orm: PgDatabase<PgQueryResultHKT>;
  /** For a statement that may take its time: a commit waits for the disk, an update for a lock, a search for itself. */
  readonly query: Query;
  /** For one that reads a range of an index, and waits for nobody. Many at once share a connection. */
  readonly quick: Query;
  /** What it is and where, for people and logs. Holds no password. */
  readonly label: string;
  /** Waits for what is under way, then lets go of the database. */
  close(): Promise<void>;
}

/** How long connecting may take, in milliseconds. With the two below, an answer takes less than 10 s. */
export const CONNECT_TIMEOUT_MS = 3_000;
/** Enforced by the server: a statement that waits for a lock ends with 57014. */
export const STATEMENT_TIMEOUT_MS = 5_000;
/** Waiting for a connection and for the answer: when it is over, the peer is frozen or the pool exhausted. */
export const ANSWER_TIMEOUT_MS = 8_000;
/** A connection that has been idle for longer is closed rather than trusted (`DB_POOL_PRE_PING`). */
export const IDLE_TIMEOUT_MS = 30_000;

/** The database did not answer in time. */
export class DatabaseTimeout extends Error {}

/** Where a database is, for its label: without the password. */
export function addressOf(url: string): string {
  const { hostname, port, pathname, searchParams } = new URL(url);
  return `${searchParams.get("path") ?? `${hostname}:${port || 5432}`}${pathname}`;
}
