import { and, asc, desc, eq, fillPlaceholders, getTableColumns, ilike, or, type SQL, sql } from "drizzle-orm";
import type { UserId } from "../auth/index.ts";
import type { Database, Query } from "../db/database.ts";
import { retryRead } from "../db/errors.ts";
import { tasks } from "../db/schema.ts";
import { encodeCursor, type Order, type Position, type Sort } from "./cursor.ts";
import { type ListQuery, MAX_LIMIT, type NewTask, type Task, type TaskChanges } from "./model.ts";

/** A page of a list: the tasks, how many match in all, and where to go on, if more follow. */
export interface Page {
  tasks: Task[];
  total: number;
  next: string | undefined;
}

interface Asked extends Omit<ListQuery, "cursor"> {
  after: Position | undefined;
}

/** Every query of the service, each built once. Returns what makes one owner's `Tasks`. */
export function taskStore(db: Pick<Database, "orm" | "query" | "quick">): (owner: UserId) => Tasks {
  const statements = build(db);
  return (owner) => new Tasks(owner, statements);
}

/**
 * One user's tasks. There is no other way to a row, and every statement names the owner.
 * A statement fails as the driver fails; see `isOutage`.
 */
export class Tasks {
  readonly #owner: UserId;
  readonly #statements: ReturnType<typeof build>;

  constructor(owner: UserId, statements: ReturnType<typeof build>) {
    this.#owner = owner;
    this.#statements = statements;
  }

  /** The tasks that match, from `after` on (from the start without it), less the first `offset` of them. */
  async list({ status, search, sort, order, limit, offset, after }: Asked): Promise<Page> {
    const filter = {
      owner: this.#owner,
      completed: status === "completed",
      pattern: `%${search?.replace(/[\\%_]/g, "\\$&")}%`,
    };
    const matching = { status, searched: Boolean(search) };
    const continued = after !== undefined;
    const skipping = offset > 0;
    // Who asks for a part learns in the same round trip how many there are in all.
    const counted = continued || skipping || limit < MAX_LIMIT;
    const page = this.#statements.page({ ...matching, sort, order, continued, skipping, counted });
    // One more than asked for tells whether more follow.
    const rows = await retryRead(() => page({ ...filter, ...after, offset, limit: limit + 1 }));
    const tasks = rows.slice(0, limit).map(taskOf);
    const last = tasks.at(-1);
    const next = rows.length > limit && last ? encodeCursor(last, sort, order) : undefined;
    // The first page, if nothing follows, is everything.
    if (next === undefined && !continued && !skipping) return { tasks, total: tasks.length, next };
    const [row] =
      counted && rows.length > 0 ? rows : await retryRead(() => this.#statements.count(matching)(filter));
    return { tasks, total: Number(row?.total), next };
  }

  async create({ title, description = null, completed = false }: NewTask): Promise<Task> {
    const [row] = await this.#statements.create({
      owner: this.#owner,
      title: title.trim(),
      description,
      completed,
    });
    if (!row) throw new Error("insert … returning returned no row");
    return taskOf(row);
  }

  async find(id: number): Promise<Task | undefined> {
    const [row] = await retryRead(() => this.#statements.find({ owner: this.#owner, id }));
    return row && taskOf(row);
  }

  /** Changes the fields that are given. */
  async change(id: number, { title, description, completed }: TaskChanges): Promise<Task | undefined> {
    const [row] = await this.#statements.change({
      owner: this.#owner,
      id,
      title: title?.trim() ?? null,
      described: description !== undefined,
      description: description ?? null,
      completed: completed ?? null,
    });
    return row && taskOf(row);
  }

  /** Sets `completed`, or toggles it if no state is given. */
  async complete(id: number, completed: boolean | undefined): Promise<Task | undefined> {
    const [row] = await this.#statements.complete({
      owner: this.#owner,
      id,
      completed: completed ?? null,
    });
    return row && taskOf(row);
  }

  /** Whether there was such a task. */
  async delete(id: number): Promise<boolean> {
    const gone = await this.#statements.delete({ owner: this.#owner, id });
    return gone.length === 1;
  }
}

/** A row of the table as the drivers read it. */
interface Row extends Omit<typeof tasks.$inferSelect, "id"> {
  /** Bun's and Neon's driver keep what might not fit a number as text. */
  id: number | bigint | string;
  /** How many match in all, where that was asked. */
  total?: number;
}

/**
 * The row as it goes over the wire: times as ISO 8601 strings (UTC, `Z`, milliseconds), since `JSON.stringify` leaves
 * its fast path at the first object with a `toJSON`, which made a list of twenty five times dearer to serialise.
 *
 * By hand, since Drizzle's mapper finds out anew for each value what is to be done with it: of the 1.7 ms of CPU that
 * a list of a thousand took, that was 0.3.
 */
const taskOf = (row: Row): Task => ({
  id: Number(row.id),
  user_id: row.user_id,
  title: row.title,
  description: row.description,
  completed: row.completed,
  created_at: row.created_at.toISOString(),
  updated_at: row.updated_at.toISOString(),
});

interface Filter {
  status: ListQuery["status"];
  searched: boolean;
}

interface PageVariant extends Filter {
  sort: Sort;
  order: Order;
  continued: boolean;
  skipping: boolean;
  counted: boolean;
}

function build({ orm, query, quick }: Pick<Database, "orm" | "query" | "quick">) {
  const owner = eq(tasks.user_id, sql.placeholder("owner"));
  const byId = and(eq(tasks.id, sql.placeholder("id")), owner);
  // Two changes within a millisecond still differ.
  const updated_at = sql`greatest(now(), ${tasks.updated_at} + interval '1 millisecond')`;

  const matching = ({ status, searched }: Filter) =>
    and(
      owner,
      status === "all" ? undefined : eq(tasks.completed, sql.placeholder("completed")),
      searched
        ? or(
            ilike(tasks.title, sql.placeholder("pattern")),
            ilike(tasks.description, sql.placeholder("pattern")),
          )
        : undefined,
    );
  const count = (shape: Filter) =>
    orm
      .select({ total: sql<number>`count(*)::int`.as("total") })
      .from(tasks)
      .where(matching(shape));

  return {
    page: memoized(({ sort, order, continued, skipping, counted, ...shape }: PageVariant) => {
      const key = sortKeys[sort];
      const [direction, beyond] = order === "asc" ? [asc, sql`>`] : [desc, sql`<`];
      const rest = sql`(${key.column}, ${tasks.id}) ${beyond} (${key.place}, ${sql.placeholder("id")}::bigint)`;
      const page = orm
        .select({
          ...getTableColumns(tasks),
          ...(counted && { total: sql<number>`(${count(shape)})`.as("total") }),
        })
        .from(tasks)
        .where(and(matching(shape), continued ? rest : undefined))
        .orderBy(direction(key.column), direction(tasks.id))
        .limit(sql.placeholder("limit"));
      return statement(
        shape.searched || skipping ? query : quick,
        `page_${sort}_${order}_${shape.status}_${shape.searched}_${continued}_${skipping}_${counted}`,
        skipping ? page.offset(sql.placeholder("offset")) : page,
      );
    }),

    count: memoized((shape: Filter) =>
      statement(shape.searched ? query : quick, `count_${shape.status}_${shape.searched}`, count(shape)),
    ),

    create: statement(
      query,
      "create",
      orm
        .insert(tasks)
        .values({
          user_id: sql.placeholder("owner"),
          title: sql.placeholder("title"),
          description: sql.placeholder("description"),
          completed: sql.placeholder("completed"),
        })
        .returning(),
    ),

    find: statement(quick, "find", orm.select().from(tasks).where(byId)),

    change: statement(
      query,
      "change",
      orm
        .update(tasks)
        .set({
          title: sql`coalesce(${sql.placeholder("title")}, ${tasks.title})`,
          description: sql`case when ${sql.placeholder("described")}::boolean then ${sql.placeholder("description")} else ${tasks.description} end`,
          completed: sql`coalesce(${sql.placeholder("completed")}, ${tasks.completed})`,
          updated_at,
        })
        .where(byId)
        .returning(),
    ),

    complete: statement(
      query,
      "complete",
      orm
        .update(tasks)
        .set({
          completed: sql`coalesce(${sql.placeholder("completed")}, not ${tasks.completed})`,
          updated_at,
        })
        .where(byId)
        .returning(),
    ),

    delete: statement(query, "delete", orm.delete(tasks).where(byId).returning({ id: tasks.id })),
  };
}

/** Builds a query once. What it returns sends its text, with the values that its placeholders name. */
function statement(send: Query, name: string, built: { toSQL(): { sql: string; params: unknown[] } }) {
  const { sql: text, params } = built.toSQL();
  const prepared = { name, text };
  return (values: Record<string, unknown>) => send<Row>(prepared, fillPlaceholders(params, values));
}

const sortKeys: Record<Sort, { column: SQL; place: SQL }> = {
  created_at: { column: sql`${tasks.created_at}`, place: sql`${sql.placeholder("key")}::timestamptz` },
  updated_at: { column: sql`${tasks.updated_at}`, place: sql`${sql.placeholder("key")}::timestamptz` },
  title: { column: sql`${tasks.title} collate "C"`, place: sql`${sql.placeholder("key")}` },
};

/** Builds each shape of a query at its first use, and keeps it. The shapes are few: words from the model. */
function memoized<Shape extends object, Query>(build: (shape: Shape) => Query): (shape: Shape) => Query {
  const built = new Map<string, Query>();
  return (shape) => {
    const name = Object.values(shape).join();
    const query = built.get(name) ?? build(shape);
    built.set(name, query);
    return query;
  };
}
