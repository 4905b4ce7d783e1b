import { type SQL, sql } from "drizzle-orm";
import { DrizzleQueryError } from "drizzle-orm/errors";
import type { Database } from "./database.ts";
import { causeOf } from "./errors.ts";
import { type Ask, applyMissing, inTransaction, lockMigrations } from "./migrate.ts";
import { tasks } from "./schema.ts";

interface Table {
  oid: string;
  /** As a statement names it: quoted, and with its schema, where it must be. */
  name: string;
  /** The type of each column, in Postgres's words. */
  types: Record<string, string>;
  comment: string;
  /** Whether it stands in the place of our own table, or where that will be. */
  isTasks: boolean;
}

/** Where SQLModel keeps a `Task`, and where a foreign `tasks` goes when ours takes its name. */
const USUAL_NAMES = ["task", "tasks", "tasks_before_adoption"];

/** The comment on a table that has been adopted: tells a task that was deleted since from one never taken over. */
const MARK = / ?Adopted by tasks-api up to id (\d+), left: ([\d, -]*)\./;

/** What Python's `strip()` or JavaScript's `trim()` takes for white space. */
const SPACES =
  "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000\ufeff";

/** A sentence about a FastAPI app's table whose tasks were never taken over. A hint only: it never fails. */
export const findOldTable = (db: Database): Promise<string | undefined> =>
  inTransaction(db, async (ask) => {
    for (const { name } of (await tablesNamed(ask, USUAL_NAMES)).filter(isAdoptable))
      if ((await ask(sql`select 1 as row from ${sql.raw(name)} limit 1`)).length > 0)
        return `The table ${name} has a FastAPI app's tasks, which are not among this service's: \`tasks-api adopt --dry-run\` shows what moving them over would do`;
    return undefined;
  }).catch(() => undefined);

/**
 * Takes over the tasks of a FastAPI app in one transaction. The table that SQLModel made is kept, and marked; its rows
 * are copied with their ids, and compared. Done again, it takes only what was left the first time and mended since.
 *
 * @param from the table, where it has none of the usual names.
 * @returns what has been done (or with `dryRun` would be), for people.
 */
export async function adopt(db: Database, from: string | undefined, dryRun: boolean): Promise<string> {
  try {
    return await inTransaction(db, async (ask) => {
      // Then a policy that hides rows is an error.
      await ask("set local row_security = off");
      await lockMigrations(ask);
      return takeOver(ask, from, dryRun);
    });
  } catch (error) {
    if (!(error instanceof DrizzleQueryError)) throw error;
    // Of Postgres's sentences, those of the classes 22 and 23 may hold a value.
    const { code = "" } = causeOf(error);
    throw new Error(`Nothing has been changed: ${/^2[23]/.test(code) ? code : error.cause?.message}`);
  }
}

async function takeOver(ask: Ask, from: string | undefined, dryRun: boolean) {
  const table = await choose(ask, from);
  const hasOurs = (await tablesNamed(ask, ["tasks"])).some(isOurs);
  const [, adoptedTo, leftThen] = (hasOurs && MARK.exec(table.comment)) || [];
  if (!dryRun) {
    await ask(sql`lock table ${sql.raw(table.name)} in share row exclusive mode`);
    if (table.isTasks) await makeWay(ask, table);
    await applyMissing(ask);
    await ask(sql`lock table tasks in share row exclusive mode`);
  }
  const [{ name } = table] = await ask<{ name: string }>(sql`select ${table.oid}::oid::regclass::text as name`);
  const rows = rowsOf(name, table.types, hasOurs);
  const asked = adoptedTo === undefined ? sql`true` : sql`old.id = any(${`{${leftThen}}`}::bigint[])`;

  const groups = await ask<{ fault: string | null; count: number; ids: string | null }>(sql`
    select fault, count(*)::int, string_agg(id::text, ', ' order by id) filter (where fault is not null) as ids
    from ${rows} where ${asked} group by fault order by fault`);
  const [{ newer } = { newer: 0 }] = await ask<{ newer: number }>(sql`
    select count(*)::int as newer from ${rows} where id > ${adoptedTo ?? null}::bigint`);
  const fit = groups.find(({ fault }) => fault === null)?.count ?? 0;
  const left = groups.filter(({ fault }) => fault !== null);
  const leftIds = left.flatMap(({ ids }) => ids ?? []).join(", ");
  const others = Object.keys(table.types).filter((column) => !Object.hasOwn(tasks, column));
  const report = (sentence: string) =>
    [
      sentence,
      ...left.map(({ fault, ids }) => `Left in ${name}, since ${fault}: ${ids ?? "without an id"}`),
      ...(left.length > 0 ? [`Mend these rows in ${name}, and adopting again takes them.`] : []),
      ...(newer > 0 ? [`Left in ${name}, since written after it was adopted: ${newer} rows`] : []),
      ...(others.length > 0 ? [`Left in ${name}, since there is no such column here: ${others.join(", ")}`] : []),
    ].join("\n");
  if (dryRun) return report(`${fit} rows of ${name} would be taken over. Nothing has been changed.`);
  if (adoptedTo !== undefined && fit === 0)
    return report(`${name} has been adopted before, up to id ${adoptedTo}. Nothing has been changed.`);

  await ask(sql`
    insert into tasks (id, user_id, title, description, completed, created_at, updated_at) overriding system value
    select id, user_id, title, description, completed, created_at, updated_at from ${rows}
    where ${asked} and fault is null order by id`);
  const [{ top } = { top: "0" }] = await ask<{ top: string }>(sql`
    select setval(sequence, greatest(pg_sequence_last_value(sequence), top,
      pg_sequence_last_value(pg_get_serial_sequence(${name}, 'id')::regclass)))::text as top
    from pg_get_serial_sequence('tasks', 'id') as s (own), cast(own as regclass) as c (sequence),
      (select max(id) as top from ${rows} where id between 1 and ${Number.MAX_SAFE_INTEGER}::bigint) as m
    where top > 0`);
  const [{ same } = { same: 0 }] = await ask<{ same: number }>(sql`
    select count(*)::int as same from ${rows} join tasks as new on
      (new.id, new.user_id, new.title, new.completed, new.created_at, new.updated_at) =
      (old.id, old.user_id, old.title, old.completed, old.created_at, old.updated_at)
      and new.description is not distinct from old.description
    where ${asked} and not exists (select from unnest(${`{${leftIds}}`}::bigint[]) as l (id) where l.id = old.id)`);
  if (same !== fit) throw new Error(`Nothing has been changed: of ${fit} rows, ${fit - same} would differ`);
  const mark = `${table.comment.replace(MARK, "")} Adopted by tasks-api up to id ${adoptedTo ?? top}, left: ${leftIds}.`;
  await ask(sql.raw(`comment on table ${name} is '${mark.trim().replaceAll("'", "''")}'`));
  await ask(sql`analyze tasks`);
  const renamed = table.isTasks ? " Its name was tasks before." : "";
  return report(`${fit} rows of ${name} have been taken over; compared one by one, they are the same.${renamed}`);
}

/** Gives the name of a foreign `tasks`, and those of its indexes and sequences, to ours. */
async function makeWay(ask: Ask, { oid }: Table): Promise<void> {
  const renaming = await ask<{ statement: string }>(sql`
    select format('alter table %s rename to %I', oid::regclass, left(relname, 47) || '_before_adoption') as statement
    from pg_class where oid = ${oid}::oid or oid in (select indexrelid from pg_index where indrelid = ${oid}::oid)
    or relkind = 'S' and oid in (select objid from pg_depend where refobjid = ${oid}::oid and deptype in ('a', 'i'))`);
  for (const { statement } of renaming) await ask(sql.raw(statement));
}

/** The table that was asked for; else the only one not yet adopted; else one that has been. */
async function choose(ask: Ask, from = ""): Promise<Table> {
  const found = await tablesNamed(ask, from ? [from] : USUAL_NAMES);
  const [one, another] = found.filter(isAdoptable);
  if (one && another) throw new Error(`Say which: --from ${one.name}, or --from ${another.name}`);
  const table = one ?? found.find((table) => !faultOf(table));
  if (table) return table;
  const reasons = found.map((table) => `${table.name} ${faultOf(table)}`).join("; ");
  throw new Error(`There is no table to adopt (${reasons || "none is there"}): --from NAME names one`);
}

const isOurs = ({ isTasks, types }: Table) =>
  isTasks && types.created_at === tasks.created_at.getSQLType().replace(" (", "(");

const isAdoptable = (table: Table) => !faultOf(table) && !MARK.test(table.comment);

/** Why a table can't be adopted, if it can't. */
function faultOf(table: Table): string {
  const { id = "", user_id, title, completed } = table.types;
  if (!(id && user_id && title && completed)) return "lacks one of the columns id, user_id, title and completed";
  if (isOurs(table)) return "is this service's own";
  return /^(smallint|integer|bigint)$/.test(id) ? "" : "has ids that aren't whole numbers";
}

/** A table's rows as ours would have them, under the name `old`, each with its fault if today's limits refuse it. */
function rowsOf(name: string, { description, ...types }: Table["types"], hasOurs: boolean): SQL {
  /** What has no time zone is UTC: Python's `utcnow()`. */
  const utc = (column: string) =>
    / with time/.test(types[column] ?? "") ? column : `${column}::timestamp at time zone 'UTC'`;
  // Of two times, one stands for the other where that is null.
  const times = ["created_at", "updated_at"].filter((column) => types[column]).map(utc);
  const time = (order: string[]) => `coalesce(${order.join() || "now()"})::timestamptz(3)`;
  return sql.raw(`(
    select *, case
      when id is null or id not between 1 and ${Number.MAX_SAFE_INTEGER} then 'the id is not from 1 to 2^53-1'
      when user_id is null or title is null or completed is null or created_at is null then 'a value is missing'
      when char_length(user_id) not between 1 and 255 then 'user_id is empty or over 255 characters'
      when btrim(title, '${SPACES}') = '' then 'the title is blank'
      when char_length(title) > 200 then 'the title is over 200 characters'
      when char_length(description) > 1000 then 'the description is over 1000 characters'
      when least(created_at, updated_at) < '0001-01-01 UTC' or greatest(created_at, updated_at) >= '10000-01-01 UTC'
        then 'a time is not in the years 1 to 9999'
      ${hasOurs ? "when exists (select from tasks where tasks.id = source.id) then 'another task has the id'" : ""}
    end as fault
    from (select id::bigint, user_id::text, title::text, ${description ? "description" : "null"}::text as description,
      completed::boolean, ${time(times)} as created_at, ${time(times.toReversed())} as updated_at
      from ${name}) as source) as old`);
}

/** Those of the names that are tables, in that order. */
async function tablesNamed(ask: Ask, names: string[]): Promise<Table[]> {
  const found = await ask<Omit<Table, "types"> & { types: string }>(sql`
    select oid::text, oid::regclass::text as name, coalesce(obj_description(oid, 'pg_class'), '') as comment,
      coalesce(oid = to_regclass(quote_ident(current_schema()) || '.tasks'), false) as "isTasks",
      (select json_object_agg(attname, format_type(atttypid, atttypmod))::text from pg_attribute
        where attrelid = pg_class.oid and attnum > 0 and not attisdropped) as types
    from unnest(string_to_array(${names.join("\n")}, E'\\n')) with ordinality as n (named, place)
    join pg_class on oid = to_regclass(named) where relkind in ('r', 'p') order by place`);
  return found.map((table) => ({ ...table, types: JSON.parse(table.types) }));
}
