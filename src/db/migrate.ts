import { type SQL, sql } from "drizzle-orm";
import { getTableConfig } from "drizzle-orm/pg-core";
import type { Database } from "./database.ts";
import { causeOf, codeOf, driverError } from "./errors.ts";
import { readMigrations } from "./read-migrations.ts" with { type: "macro" };
import { idempotency_keys, tasks } from "./schema.ts";

/** Sends a query in a transaction; the rows. */
export type Ask = <Row>(query: SQL | string) => Promise<Row[]>;

/** All that the work asks for is done, or nothing. */
export const inTransaction = <Result>(
  { orm }: Pick<Database, "orm">,
  work: (ask: Ask) => Promise<Result>,
): Promise<Result> =>
  orm.transaction((transaction) =>
    work(async <Row>(query: SQL | string): Promise<Row[]> => {
      const result: unknown = await transaction.execute(query);
      // Bun's driver gives them bare.
      return Array.isArray(result) ? result : (result as { rows: Row[] }).rows;
    }),
  );

/** The database can't be used as it is. The message says why, and what would be right. */
class SchemaError extends Error {}

/** The tables are not as the statements need them, and it is somebody else's to migrate. */
class NotMigrated extends Error {
  /** Postgres's for an absent table: an outage, which ends when somebody has migrated. */
  readonly code = "42P01";
}

/** A number that every replica of this service agrees on, and nothing else on the server is likely to use. */
const MIGRATION_LOCK = "7461736275";

/** Takes turns with the migrations of other processes until the transaction ends, and lifts the limits on its time. */
export async function lockMigrations(ask: Ask): Promise<void> {
  // Whatever the database's default is: what was committed while this waited must be seen.
  await ask("set transaction isolation level read committed");
  await ask("set local statement_timeout = 0");
  await ask("set local lock_timeout = 0");
  await ask(`select pg_advisory_xact_lock(${MIGRATION_LOCK})`);
}

/**
 * A journal of our own, in the schema that the connection looks at first. Drizzle judges a shared one by its newest
 * row, whoever wrote it, so that two projects on one database hide each other's migrations.
 */
const JOURNAL = "tasks_api_migrations";
const SHARED_JOURNAL = "drizzle.__drizzle_migrations";

/** What there is in the schema that the connection looks at first. */
interface Found {
  encoding: string;
  schema: string | null;
  /** `table.column`, of the tables that bear our names. */
  columns: string[];
  /** Undefined when there is no journal, or it may not be read. */
  applied: string[] | undefined;
}

/** Looks, and touches nothing: it needs no privilege. */
async function look({ query }: Pick<Database, "query">): Promise<Found> {
  const [found] = await query<Omit<Found, "applied"> & { journal: string | null }>(
    {
      name: "look",
      text: `select current_setting('server_encoding') as encoding, current_schema()::text as schema,
        (select case when has_table_privilege(c.oid, 'select') then c.oid::regclass::text end from pg_class c
          where c.relnamespace = n.oid and c.relname = '${JOURNAL}') as journal,
        array(select c.relname || '.' || a.attname from pg_class c join pg_attribute a on a.attrelid = c.oid
          where c.relnamespace = n.oid and c.relname in (${TABLES.map(({ name }) => `'${name}'`).join()})
          and a.attnum > 0 and not a.attisdropped)::text[] as columns
        from (select 1) as one left join pg_namespace n on n.nspname = current_schema()`,
    },
    [],
  );
  if (found === undefined) throw new SchemaError("The database did not say what it holds");
  const { journal, ...rest } = found;
  const rows = journal && (await query<{ hash: string }>({ name: "journal", text: `select hash from ${journal}` }, []));
  return { ...rest, applied: rows ? rows.map(({ hash }) => hash) : undefined };
}

const TABLES = [tasks, idempotency_keys].map((table) => getTableConfig(table));

const COLUMNS = TABLES.flatMap((table) => table.columns.map(({ name }) => `${table.name}.${name}`));

/**
 * What the statements name and the database doesn't have, as a sentence. Undefined when all is there.
 *
 * @throws {SchemaError} when the database could not hold it.
 */
function missing({ encoding, schema, columns }: Found): string | undefined {
  if (encoding !== "UTF8")
    throw new SchemaError(`The database's encoding is ${encoding}: it must be UTF8, to hold any text`);
  if (schema === null)
    throw new SchemaError("The connection's search_path names no schema that is there: set one on the role");
  const gone = TABLES.map(({ name }) => name).filter(
    (table) => !columns.some((column) => column.startsWith(`${table}.`)),
  );
  const lost = COLUMNS.filter((column) => !columns.includes(column) && !gone.includes(column.split(".")[0] ?? ""));
  if (gone.length + lost.length === 0) return undefined;
  return [
    ...gone.map((table) => `the table ${table} is missing from the schema ${schema}`),
    ...lost.map((column) => `the column ${column} is missing`),
  ].join(", and ");
}

/** @throws {NotMigrated} when something is missing. */
export async function requireSchema(db: Pick<Database, "query">): Promise<void> {
  const lacks = missing(await look(db));
  if (lacks) throw new NotMigrated(`${lacks}: run \`tasks-api migrate\``);
}

/**
 * Brings the schema up to date: all the migrations that are missing, or none. Any number of processes may do so at
 * once; each migration is applied once. Where nothing is missing, nothing is touched. Fails as the driver fails while
 * the database is away.
 *
 * @throws {SchemaError} when it can't be done, in Postgres's own words: a migration holds nobody's data.
 */
export async function migrate(db: Pick<Database, "query" | "orm">): Promise<void> {
  const before = await look(db);
  const known = before.applied;
  const isNew = ({ hash }: { hash: string }) => known !== undefined && !known.includes(hash);
  // A role that may not read the journal may not migrate either. For it, it is enough that nothing is missing.
  if (missing(before) === undefined && !readMigrations().some(isNew)) return;
  try {
    await inTransaction(db, async (ask) => {
      await lockMigrations(ask);
      await applyMissing(ask);
    });
  } catch (error) {
    const cause = driverError(error);
    if (!(cause instanceof Error) || (causeOf(error).outage && !codeOf(cause)?.startsWith("42"))) throw error;
    throw new SchemaError(
      `The schema can't be brought up to date: ${cause.message}${ADVICE[codeOf(cause) ?? ""] ?? ""}`,
    );
  }
  const still = missing(await look(db));
  if (still) throw new SchemaError(`All migrations are applied, yet ${still}: it was taken away by hand`);
}

/** What to do about it, by SQLSTATE. */
const ADVICE: Record<string, string> = {
  "42501": ". Run `tasks-api migrate` as a role that has CREATE on the schema (GRANT CREATE ON SCHEMA … TO …)",
  "42P07": ". This service did not make it. If the FastAPI backend did, `tasks-api adopt` takes its tasks over",
};

/** Applies what is missing, inside a transaction that has taken the lock. */
export async function applyMissing(ask: Ask): Promise<void> {
  await ask(
    `create table if not exists ${JOURNAL} (hash text primary key, applied_at timestamptz not null default now())`,
  );
  const applied = await ask<{ hash: string }>(`select hash from ${JOURNAL}`);
  const known = new Set(applied.map(({ hash }) => hash));
  for (const { hash, sql: statements } of readMigrations()) {
    if (known.has(hash)) continue;
    if (!(await takenOver(ask, hash))) for (const one of statements) await ask(one);
    await ask(sql`insert into ${sql.identifier(JOURNAL)} (hash) values (${hash})`);
  }
}

/**
 * The first version kept its row in Drizzle's shared journal, where it goes on hiding the older migrations of whoever
 * shares it: it moves.
 */
async function takenOver(ask: Ask, hash: string): Promise<boolean> {
  const [shared] = await ask<{ there: boolean }>(
    `select to_regclass('${SHARED_JOURNAL}') is not null and to_regclass(format('%I.tasks', current_schema())) is not null as there`,
  );
  if (!shared?.there) return false;
  const moved = await ask(sql`delete from ${sql.raw(SHARED_JOURNAL)} where hash = ${hash} returning 1`);
  return moved.length > 0;
}
