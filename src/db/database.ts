import type { PgDatabase, PgQueryResultHKT } from "drizzle-orm/pg-core";

/** A statement as it is sent. The name is for drivers that prepare it under one. */
export interface Statement {
  name: string;
  text: string;
  /** It reads as much as its owner has, so it takes one of the owner's few turns (see turns.ts). */
  slow?: boolean;
  /** Doing it twice would do harm: it isn't sent again when its connection is lost. */
  unrepeatable?: boolean;
}

/** Whoever waits for the answer. */
export interface Caller {
  owner: string;
  /** The moment, in `performance.now()`, at which the request is answered, one way or the other. */
  deadline: number;
  /** Aborts when the client hangs up. */
  signal?: AbortSignal | undefined;
  /** How many requests one statement is for, where they go together. */
  requests?: number;
}

/**
 * Sends a statement with its values; the rows are as the driver reads them. Fails as the driver fails, or as errors.ts
 * has it. Without a caller, it is the service itself that asks.
 */
export type Query = <Row>(statement: Statement, values: unknown[], caller?: Caller) => Promise<Row[]>;

/** A Postgres, whichever driver reaches it. */
export interface Database {
  /** Migrates and adopts: on a server over a connection of its own, with no time limit of ours. */
  readonly orm: PgDatabase<PgQueryResultHKT>;
  readonly query: Query;
  /** When a statement was last answered, in `performance.now()`. */
  lastAnswer(): number;
  /** How many connections are busy, and how many there may be. */
  connections(): { busy: number; most: number };
  /** What it is and where, for people and logs. Holds no password. */
  readonly label: string;
  /** Waits for what is under way, then lets go of the database. */
  close(): Promise<void>;
}

/** How long a request may take, whatever is tried again inside it. */
export const REQUEST_TIMEOUT_MS = 10_000;
/** How long an attempt may wait for its rows. With less than this left until the deadline, nothing is sent. */
export const ANSWER_TIMEOUT_MS = 6_000;
export const CONNECT_TIMEOUT_MS = 3_000;
/**
 * How long a statement may run: the server ends it. 5,001 and not 5,000, so that the pool's probe can tell this limit
 * from one that the role has: where the server reports it, there is no pooler in between.
 */
export const STATEMENT_TIMEOUT_MS = 5_001;
/** A connection that has been idle for longer is closed rather than trusted. */
export const IDLE_TIMEOUT_MS = 30_000;
