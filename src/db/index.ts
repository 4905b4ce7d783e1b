import { getTableName, sql } from "drizzle-orm";
import { DrizzleQueryError } from "drizzle-orm/errors";
import type { PgDatabase, PgDialect, PgQueryResultHKT, PgSession } from "drizzle-orm/pg-core";
import type { Config } from "../config.ts";
import { causeOf } from "./outage.ts";
import { readMigrations } from "./read-migrations.ts" with { type: "macro" };
import { tasks } from "./schema.ts";

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

/**
 * Opens the database that the settings name. Only the embedded one is touched: a server that is away is no reason
 * not to start. Each driver is loaded where it is used.
 */
export async function connect({ database, pool, neonProxy }: Config): Promise<Database> {
  switch (database.driver) {
    case "embedded":
      return (await import("./embedded.ts")).embedded(database.directory);
    case "neon":
      return (await import("./neon.ts")).neon(database.url, pool, neonProxy);
    case "postgres":
      return (await import("./postgres.ts")).postgres(database.url, pool);
  }
}

/** Where a database is, for its label: without the password. */
export function addressOf(url: string): string {
  const { hostname, port, pathname } = new URL(url);
  return `${hostname}:${port || 5432}${pathname}`;
}

/** Fails unless a query gets through to the database, and the schema is there. */
export async function ping({ quick }: Database): Promise<void> {
  await quick({ name: "ping", text: `select 1 from ${getTableName(tasks)} limit 1` }, []);
}

/** A number that every replica of this service agrees on, and nothing else on the server is likely to use. */
const MIGRATION_LOCK = 7_461_736_275n;

/**
 * Brings the schema up to date: all the migrations that are missing, or none. Any number of processes may do so
 * at once; each migration is applied once. Fails as the driver fails, or in Postgres's own words: a migration
 * holds nobody's data.
 */
export async function migrate({ orm }: Database): Promise<void> {
  try {
    await orm.transaction(async (transaction) => {
      // A migration, and the wait for another process's, may take longer than a request's statement.
      await transaction.execute(sql`set local statement_timeout = 0`);
      await transaction.execute(sql`select pg_advisory_xact_lock(${sql.raw(String(MIGRATION_LOCK))})`);
      // Drizzle's migrators open a transaction of their own, outside of the lock. What they call inside takes a
      // session, so here it gets one that is in this transaction already. (Neither is in the public types.)
      const { dialect, session } = transaction as unknown as { dialect: PgDialect; session: PgSession };
      const here = Object.assign(Object.create(session), {
        transaction: (run: (within: typeof transaction) => Promise<void>) => run(transaction),
      });
      await dialect.migrate(readMigrations(), here, { migrationsFolder: "" });
    });
  } catch (error) {
    if (!(error instanceof DrizzleQueryError) || causeOf(error).outage) throw error;
    throw new Error(`The schema can't be brought up to date: ${error.cause?.message}`);
  }
}
