import { and, asc, desc, eq, ilike, or, type SQL, sql } from "drizzle-orm";
import type { Database } from "../db/index.ts";
import { reading } from "../db/outage.ts";
import { tasks } from "../db/schema.ts";
import { cursorAfter, type Order, type Place, type Sort } from "./cursor.ts";
import type { Listing, NewTask, Task, TaskChanges } from "./model.ts";

/** A page of a list: the tasks, how many match in all, and where to go on, if more follow. */
export interface Page {
  tasks: Task[];
  total: number;
  next: string | undefined;
}

/** One user's tasks. There is no other way to a row, and every statement names the owner. */
export interface Tasks {
  /** The tasks that match, from `after` on (from the start without it). */
  list(listing: Required<Pick<Listing, "status" | "sort" | "order">> & Wanted): Promise<Page>;
  create(task: NewTask): Promise<Task>;
  find(id: number): Promise<Task | undefined>;
  /** Changes the fields that are given. */
  change(id: number, changes: TaskChanges): Promise<Task | undefined>;
  /** Sets `completed`, or toggles it if no state is given. */
  complete(id: number, completed: boolean | undefined): Promise<Task | undefined>;
  /** Whether there was such a task. */
  delete(id: number): Promise<boolean>;
}

interface Wanted {
  search: string | undefined;
  limit: number;
  after: Place | undefined;
}

/**
 * Every query of the service, each prepared once for its text. Returns what makes one owner's `Tasks`.
 * A statement fails as the driver fails; see `isOutage`.
 */
export function taskStore(db: Database["orm"]): (owner: string) => Tasks {
  const statements = prepare(db);
  return (owner) => ({
    async list({ status, search, sort, order, limit, after }) {
      const filter = {
        owner,
        completed: status === "completed",
        pattern: `%${search?.replace(/[\\%_]/g, "\\$&")}%`,
      };
      const matching = { status, searched: Boolean(search) };
      // One more than asked for tells whether more follow.
      const query = statements.page({ ...matching, sort, order, continued: after !== undefined });
      const rows = await reading(() => query.execute({ ...filter, ...after, limit: limit + 1 }));
      const tasks = rows.slice(0, limit);
      const last = tasks.at(-1);
      const next = rows.length > limit && last ? cursorAfter(last, sort, order) : undefined;
      // The first page, if nothing follows, is everything.
      if (next === undefined && after === undefined) return { tasks, total: tasks.length, next };
      const [counted] = await reading(() => statements.count(matching).execute(filter));
      return { tasks, total: counted?.total ?? 0, next };
    },

    async create({ title, description = null, completed = false }) {
      const [task] = await statements.create.execute({ owner, title: title.trim(), description, completed });
      if (!task) throw new Error("insert … returning returned no row");
      return task;
    },

    async find(id) {
      const [task] = await reading(() => statements.find.execute({ owner, id }));
      return task;
    },

    async change(id, { title, description, completed }) {
      const [task] = await statements.change.execute({
        owner,
        id,
        title: title?.trim() ?? null,
        described: description !== undefined,
        description: description ?? null,
        completed: completed ?? null,
      });
      return task;
    },

    async complete(id, completed) {
      const [task] = await statements.complete.execute({ owner, id, completed: completed ?? null });
      return task;
    },

    async delete(id) {
      const gone = await statements.delete.execute({ owner, id });
      return gone.length === 1;
    },
  });
}

interface Matching {
  status: NonNullable<Listing["status"]>;
  searched: boolean;
}

interface PageShape extends Matching {
  sort: Sort;
  order: Order;
  continued: boolean;
}

function prepare(db: Database["orm"]) {
  const owner = eq(tasks.user_id, sql.placeholder("owner"));
  const one = and(eq(tasks.id, sql.placeholder("id")), owner);
  // Two changes within a millisecond still differ.
  const updated_at = sql`greatest(now(), ${tasks.updated_at} + interval '1 millisecond')`;

  const matching = ({ status, searched }: Matching) =>
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

  return {
    page: once(({ sort, order, continued, ...shape }: PageShape) => {
      const key = sortKeys[sort];
      const [direction, beyond] = order === "asc" ? [asc, sql`>`] : [desc, sql`<`];
      const rest = sql`(${key.column}, ${tasks.id}) ${beyond} (${key.place}, ${sql.placeholder("id")}::bigint)`;
      return db
        .select()
        .from(tasks)
        .where(and(matching(shape), continued ? rest : undefined))
        .orderBy(direction(key.column), direction(tasks.id))
        .limit(sql.placeholder("limit"))
        .prepare(`page_${sort}_${order}_${shape.status}_${shape.searched}_${continued}`);
    }),

    count: once((shape: Matching) =>
      db
        .select({ total: sql<number>`count(*)::int` })
        .from(tasks)
        .where(matching(shape))
        .prepare(`count_${shape.status}_${shape.searched}`),
    ),

    create: db
      .insert(tasks)
      .values({
        user_id: sql.placeholder("owner"),
        title: sql.placeholder("title"),
        description: sql.placeholder("description"),
        completed: sql.placeholder("completed"),
      })
      .returning()
      .prepare("create"),

    find: db.select().from(tasks).where(one).prepare("find"),

    change: db
      .update(tasks)
      .set({
        title: sql`coalesce(${sql.placeholder("title")}, ${tasks.title})`,
        description: sql`case when ${sql.placeholder("described")}::boolean then ${sql.placeholder("description")} else ${tasks.description} end`,
        completed: sql`coalesce(${sql.placeholder("completed")}, ${tasks.completed})`,
        updated_at,
      })
      .where(one)
      .returning()
      .prepare("change"),

    complete: db
      .update(tasks)
      .set({
        completed: sql`coalesce(${sql.placeholder("completed")}, not ${tasks.completed})`,
        updated_at,
      })
      .where(one)
      .returning()
      .prepare("complete"),

    delete: db.delete(tasks).where(one).returning({ id: tasks.id }).prepare("delete"),
  };
}

const sortKeys: Record<Sort, { column: SQL; place: SQL }> = {
  created_at: { column: sql`${tasks.created_at}`, place: sql`${sql.placeholder("key")}::timestamptz` },
  updated_at: { column: sql`${tasks.updated_at}`, place: sql`${sql.placeholder("key")}::timestamptz` },
  title: { column: sql`${tasks.title} collate "C"`, place: sql`${sql.placeholder("key")}` },
};

/** Builds each shape of a query at its first use, and keeps it. The shapes are few: words from the model. */
function once<Shape extends object, Query>(build: (shape: Shape) => Query): (shape: Shape) => Query {
  const built = new Map<string, Query>();
  return (shape) => {
    const name = Object.values(shape).join();
    const query = built.get(name) ?? build(shape);
    built.set(name, query);
    return query;
  };
}
