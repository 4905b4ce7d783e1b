import { getTableName } from "drizzle-orm";
import { DrizzleQueryError } from "drizzle-orm/errors";
import type { PgDialect, PgSession } from "drizzle-orm/pg-core";
import type { Database } from "./database.ts";
import { causeOf } from "./errors.ts";
import { readMigrations } from "./read-migrations.ts" with { type: "macro" };
import { tasks } from "./schema.ts";

/** Fails unless a query gets through to the database, and the schema is there. */
export async function ping({ quick }: Database): Promise<void> {
  await quick({ name: "ping", text: `select 1 from ${getTableName(tasks)} limit 1` }, []);
}

/** The code that `ping` fails with where nobody has migrated yet. */
export const UNDEFINED_TABLE = "42P01";

/** A number that every replica of this service agrees on, and nothing else on the server is likely to use. */
const MIGRATION_LOCK = 7_461_736_275n;

export type Transaction = Parameters<Parameters<Database["orm"]["transaction"]>[0]>[0];

/**
 * Brings the schema up to date: all the migrations that are missing, or none. Any number of processes may do so
 * at once; each migration is applied once. Fails as the driver fails, or in Postgres's own words: a migration
 * holds nobody's data.
 */
export async function migrate({ orm }: Database): Promise<void> {
  try {
    await orm.transaction(async (transaction) => {
      await lockMigrations(transaction);
      await applyMissing(transaction);
    });
  } catch (error) {
    if (!(error instanceof DrizzleQueryError) || causeOf(error).outage) throw error;
    const advice = causeOf(error).code === "42P07" ? ": if a FastAPI app made it, run `tasks-api adopt`" : "";
    throw new Error(`The schema can't be brought up to date: ${error.cause?.message}${advice}`);
  }
}

/** Takes turns with the migrations of other processes until the transaction ends, and lifts the limits on its time. */
export async function lockMigrations(transaction: Transaction): Promise<void> {
  await transaction.execute("set local statement_timeout = 0");
  await transaction.execute("set local lock_timeout = 0");
  await transaction.execute(`select pg_advisory_xact_lock(${MIGRATION_LOCK})`);
}

/** Applies what is missing, inside a transaction that has taken the lock. */
export async function applyMissing(transaction: Transaction): Promise<void> {
  // Drizzle's migrators open a transaction of their own, outside of the lock. What they call inside takes a
  // session, so here it gets one that is in this transaction already. (Neither is in the public types.)
  const { dialect, session } = transaction as unknown as { dialect: PgDialect; session: PgSession };
  const here = Object.assign(Object.create(session), {
    transaction: (run: (within: typeof transaction) => Promise<void>) => run(transaction),
  });
  await dialect.migrate(readMigrations(), here, { migrationsFolder: "" });
}
