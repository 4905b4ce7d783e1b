import { and, asc, desc, eq, fillPlaceholders, type SQL, sql } from "drizzle-orm";
import { PgDialect } from "drizzle-orm/pg-core";
import type { Caller, Query, Statement } from "../db/database.ts";
import { idempotency_keys, tasks } from "../db/schema.ts";
import type { Order, Sort } from "./model.ts";
import { columns, type Row } from "./row.ts";

const given = sql.placeholder;
const dialect = new PgDialect();

const isOwners = eq(tasks.user_id, given("owner"));

/** Many requests are sent as one JSON text, which every driver and pooler carries. */
const askedAs = (members: string) => sql.raw(`json_to_recordset($1::text::json) as asked(${members})`);

/** Two changes within a millisecond still differ. */
const touched = sql`updated_at = greatest(now(), ${tasks.updated_at} + interval '1 millisecond')`;

const isAsked = sql`${tasks.id} = asked.id and ${tasks.user_id} = asked.owner`;

/** Locks the tasks that are asked for, if they are there. */
const locked = (members: string, lock: SQL) => sql`select asked.*, ${tasks.updated_at} as version
  from ${askedAs(`n int, owner text, id bigint, versions timestamptz[]${members}`)}
  join ${tasks} on ${isAsked} for update of ${tasks} ${lock}`;
const isVersion = sql`(asked.versions is null or asked.version = any(asked.versions))`;

const DAY = sql.raw("interval '24 hours'");

/** Pages of up to so many tasks go together with others'. */
export const SHORT_PAGE = 100;
/** Their total is counted up to this, and above it by a statement of its own. */
export const SHORT_COUNT = 1000;

/** The row after the change, or before its deletion. Without an id: the task is there in another version. */
type Changed = (Row | { id: null }) & { n: number };

export interface Filter {
  status: "all" | "pending" | "completed";
  searched: boolean;
}

export interface PageVariant extends Filter {
  sort: Sort;
  order: Order;
  continued: boolean;
  counted: boolean;
}

const matching = ({ status, searched }: Filter) =>
  and(
    isOwners,
    status === "all" ? undefined : sql`${tasks.completed} = ${given("completed")}::boolean`,
    searched
      ? sql`(${tasks.title} ~ ${given("pattern")}::text or ${tasks.description} ~ ${given("pattern")}::text)`
      : undefined,
  );

const counting = (filter: Filter) => sql`select count(*)::int as total from ${tasks} where ${matching(filter)}`;

const sortKeys: Record<Sort, { column: SQL; position: SQL }> = {
  created_at: { column: sql`${tasks.created_at}`, position: sql`${given("key")}::text::timestamptz` },
  updated_at: { column: sql`${tasks.updated_at}`, position: sql`${given("key")}::text::timestamptz` },
  title: { column: sql`${tasks.title} collate "C"`, position: sql`${given("key")}::text collate "C"` },
};

/** Which way a list goes, and what comes after a task in it. */
const way = (order: Order) => (order === "asc" ? ([asc, sql`>`] as const) : ([desc, sql`<`] as const));

/** Every statement of the service, each built once. All that touch a task name its owner. */
export function statements(send: Query) {
  /** Returns what sends the statement, with values for its placeholders. */
  function statement<R = Row>(name: string, built: SQL, flags: Pick<Statement, "slow" | "unrepeatable"> = {}) {
    const { sql: text, params } = dialect.sqlToQuery(built);
    const prepared = { name, text, ...flags };
    return (values: Record<string, unknown>, caller: Caller) =>
      send<R>(prepared, fillPlaceholders(params, values), caller);
  }

  /** Sends many at once, each under its number `n`, by which their rows tell whose they are. */
  function fromList<R = Row & { n: number }>(name: string, built: SQL, flags: Pick<Statement, "unrepeatable"> = {}) {
    const prepared = { name, text: dialect.sqlToQuery(built).sql, ...flags };
    return (members: object[], caller: Caller) =>
      send<R>(prepared, [JSON.stringify(members.map((member, n) => ({ n, ...member })))], caller);
  }

  /**
   * `alone` waits for a lock that somebody else has. So does `ifVersion`, which has a row without an id for a task in
   * another version, and none for a task that isn't there. `together` skips what is locked: it has a row for each task
   * that it changed.
   */
  const changing = (name: string, members: string, action: SQL) => ({
    alone: fromList<Changed>(
      name,
      sql`${action} ${askedAs(`n int, owner text, id bigint${members}`)} where ${isAsked} returning asked.n, ${columns}`,
      { unrepeatable: true },
    ),
    ifVersion: fromList<Changed>(
      `${name}_if`,
      sql`with asked as materialized (${locked(members, sql``)}),
        done as (${action} asked where ${isAsked} and ${isVersion} returning asked.n as done, ${columns})
        select asked.n, done.* from asked left join done on done = n`,
      { unrepeatable: true },
    ),
    together: fromList<Row & { n: number }>(
      `${name}_together`,
      sql`${action} (${locked(members, sql`skip locked`)}) as asked where ${isAsked} and ${isVersion}
        returning asked.n, ${columns}`,
      { unrepeatable: true },
    ),
  });

  return {
    find: fromList(
      "find",
      sql`select asked.n, ${columns} from ${askedAs("n int, owner text, id bigint")} join ${tasks} on ${isAsked}`,
    ),

    /** Rows are matched with requests by their content. Of two equal requests either may get either row. */
    create: fromList<Row>(
      "create",
      sql`insert into ${tasks} (user_id, title, description, completed)
        select owner, title, description, completed
        from ${askedAs("n int, owner text, title text, description text, completed boolean")} order by n
        returning ${columns}`,
      { unrepeatable: true },
    ),

    /**
     * Creates nothing if the key is there, and fails (23505) if another creates with it at this moment. The new row
     * bears the table's name, so that the columns can be selected from it.
     */
    createOnce: statement(
      "create_once",
      sql`with tasks as (
          insert into ${tasks} (user_id, title, description, completed)
          select ${given("owner")}::text, ${given("title")}::text, ${given("description")}::text, ${given("completed")}::boolean
          where not exists (select from ${idempotency_keys} where ${idempotency_keys.user_id} = ${given("owner")}
            and ${idempotency_keys.key} = ${given("key")})
          returning *
        ), kept as (
          insert into ${idempotency_keys} (user_id, key, fingerprint, task_id)
          select ${given("owner")}::text, ${given("key")}::text, ${given("fingerprint")}::text, id from tasks
        )
        select ${columns} from tasks`,
      { unrepeatable: true },
    ),

    /** Deletes this key if it is over a day old, and up to 20 others that are. Doing it twice is harmless. */
    forgetKeys: statement(
      "forget_keys",
      sql`delete from ${idempotency_keys} where ctid = any(array(
        select ctid from ${idempotency_keys} where ${idempotency_keys.user_id} = ${given("owner")}
          and ${idempotency_keys.key} = ${given("key")} and created_at < now() - ${DAY}
        union all select ctid from (select ctid from ${idempotency_keys} where created_at < now() - ${DAY}
          order by created_at limit 20 for update skip locked) as oldest))`,
    ),

    /** What a key has created; without the task, if that has been deleted since. */
    createdBefore: statement<{ fingerprint: string } & (Row | { id: null })>(
      "created_before",
      sql`select ${idempotency_keys.fingerprint} as fingerprint, ${columns} from ${idempotency_keys}
        left join ${tasks} on ${tasks.id} = ${idempotency_keys.task_id} and ${isOwners}
        where ${idempotency_keys.user_id} = ${given("owner")} and ${idempotency_keys.key} = ${given("key")}`,
    ),

    change: changing(
      "change",
      ", title text, sets_description boolean, description text, completed boolean, toggles boolean",
      sql`update ${tasks} set
        title = coalesce(asked.title, ${tasks.title}),
        description = case when asked.sets_description then asked.description else ${tasks.description} end,
        completed = coalesce(asked.completed, ${tasks.completed} <> coalesce(asked.toggles, false)),
        ${touched} from`,
    ),
    delete: changing("delete", "", sql`delete from ${tasks} using`),

    clear: memoized(({ status }: Pick<Filter, "status">) =>
      statement<{ deleted: number }>(
        `clear_${status}`,
        sql`with gone as (delete from ${tasks} where ${matching({ status, searched: false })} returning 1)
          select count(*)::int as deleted from gone`,
        { slow: true, unrepeatable: true },
      ),
    ),

    /** Pages that are short whatever their owner has: a range of the index, and a total up to a limit. */
    pages({ order, continued }: Pick<PageVariant, "order" | "continued">) {
      const [direction, beyond] = way(order);
      return fromList<Row & { n: number; total: number | null }>(
        `pages_${order}_${continued}`,
        sql`with asked as materialized (
            select asked.*, case when asked.counted then (
              select count(*)::int from (select from ${tasks} where ${tasks.user_id} = asked.owner
                limit ${sql.raw(String(SHORT_COUNT + 1))}) as first
            ) end as total
            from ${askedAs("n int, owner text, take int, counted boolean, key text, id bigint")}
          )
          select asked.n, asked.total, page.* from asked, lateral (
            select ${columns} from ${tasks} where ${tasks.user_id} = asked.owner
            ${continued ? sql`and (${tasks.created_at}, ${tasks.id}) ${beyond} (asked.key::timestamptz, asked.id)` : sql``}
            order by ${direction(tasks.created_at)}, ${direction(tasks.id)} limit asked.take
          ) as page`,
      );
    },

    page: memoized(({ sort, order, continued, counted, ...filter }: PageVariant) => {
      const { column, position } = sortKeys[sort];
      const [direction, beyond] = way(order);
      const rest = sql`(${column}, ${tasks.id}) ${beyond} (${position}, ${given("id")}::bigint)`;
      return statement<Row & { total: number }>(
        `page_${sort}_${order}_${filter.status}_${filter.searched}_${continued}_${counted}`,
        sql`select ${columns}${counted ? sql`, (${counting(filter)}) as total` : sql``} from ${tasks}
          where ${and(matching(filter), continued ? rest : undefined)}
          order by ${direction(column)}, ${direction(tasks.id)} limit ${given("limit")} offset ${given("offset")}`,
        { slow: true },
      );
    }),

    count: memoized((filter: Filter) =>
      statement<{ total: number }>(`count_${filter.status}_${filter.searched}`, counting(filter), {
        slow: true,
      }),
    ),
  };
}

/** Builds what a variant needs at its first use, and keeps it. The variants are few: words from the model. */
export function memoized<Variant extends object, Built>(
  build: (variant: Variant) => Built,
): (variant: Variant) => Built {
  const built = new Map<string, Built>();
  return (variant) => {
    const name = Object.values(variant).join();
    const found = built.get(name) ?? build(variant);
    built.set(name, found);
    return found;
  };
}
