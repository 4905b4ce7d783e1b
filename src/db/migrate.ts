import { getTableName, sql } from "drizzle-orm";
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
