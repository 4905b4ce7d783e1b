import type { UserId } from "../auth/index.ts";
import { type Caller, type Query, REQUEST_TIMEOUT_MS } from "../db/database.ts";
import { codeOf } from "../db/errors.ts";
import { stripped } from "../http/validation.ts";
import { encodeCursor, type Position } from "./cursor.ts";
import { type ListQuery, MAX_LIMIT, type NewTask, type Task, type TaskChanges } from "./model.ts";
import { type Row, taskOf } from "./row.ts";
import { searchPattern } from "./search.ts";
import { type Change, sending, withDefaults } from "./sending.ts";
import { type PageVariant, SHORT_COUNT, SHORT_PAGE } from "./statements.ts";
import type { Undone, Versions } from "./versions.ts";

/** A page of a list: the tasks, how many match in all, and where to go on, if more follow. */
interface Page {
  tasks: Task[];
  total: number;
  next: string | undefined;
}

interface PageQuery extends Omit<ListQuery, "cursor"> {
  after: Position | undefined;
}

/** Returns what makes one owner's `Tasks`. */
export function taskStore(query: Query): (owner: UserId, signal?: AbortSignal) => Tasks {
  const send = sending(query);
  return (owner, signal) => new Tasks(owner, signal, send);
}

/** One user's tasks. There is no other way to a row, and every statement names the owner. Fails as errors.ts has it. */
export class Tasks {
  #known: Caller | undefined;

  constructor(
    private readonly owner: UserId,
    private readonly signal: AbortSignal | undefined,
    private readonly send: ReturnType<typeof sending>,
  ) {}

  /** Its time runs from the first statement on, when the request is whole. */
  get #caller(): Caller {
    const { owner, signal } = this;
    this.#known ??= { owner, signal, deadline: performance.now() + REQUEST_TIMEOUT_MS };
    return this.#known;
  }

  /**
   * The tasks that match, from `after` on (from the start without it). The total is the number of the rows if they are
   * all, else what the page's own statement has counted, else what one more statement counts.
   */
  async list(query: PageQuery): Promise<Page> {
    const { status, search, sort, order, offset, limit, after } = query;
    const plain = status === "all" && !search && sort === "created_at" && offset === 0;
    const page = await (plain ? this.#shortPage(query) : this.#page(query, isPart(query)));
    const tasks = page.rows.slice(0, limit).map(taskOf);
    const last = tasks.at(-1);
    const next = page.rows.length > limit && last ? encodeCursor(last, sort, order) : undefined;
    // A first page, if nothing follows, is everything.
    const whole = next === undefined && after === undefined && (offset === 0 || tasks.length > 0);
    const total = whole ? offset + tasks.length : page.total;
    return { tasks, total: total ?? (await this.#count(query)), next };
  }

  /** A page of the usual list. If it turns out to be a long one, the rest of it is asked for in turn with others. */
  async #shortPage(query: PageQuery): Promise<{ rows: Row[]; total: number | undefined }> {
    const { order, limit, after } = query;
    const continued = after !== undefined;
    const rows = await this.send.page({ order, continued })(
      {
        owner: this.owner,
        // One more than asked for tells whether more follow.
        take: Math.min(limit, SHORT_PAGE) + 1,
        counted: continued || limit <= SHORT_PAGE,
        ...after,
      },
      this.#caller,
    );
    const [last] = limit > SHORT_PAGE ? rows.slice(SHORT_PAGE).map(taskOf) : [];
    if (last) {
      const from = { key: last.created_at, id: last.id };
      const rest = await this.#page({ ...query, after: from, limit: limit - rows.length }, isPart(query));
      return { rows: [...rows, ...rest.rows], total: rest.total };
    }
    const total = rows[0]?.total ?? undefined;
    return { rows, total: total === undefined || total > SHORT_COUNT ? undefined : total };
  }

  async #page({ status, search, sort, order, limit, offset, after }: PageQuery, counted: boolean) {
    const continued = after !== undefined;
    const variant: PageVariant = { status, searched: Boolean(search), sort, order, continued, counted };
    const values = { ...this.#filter({ status, search }), ...after, limit: limit + 1, offset };
    const rows = await this.send.statements.page(variant)(values, this.#caller);
    return { rows, total: rows[0]?.total };
  }

  async #count({ status, search }: PageQuery): Promise<number> {
    const count = this.send.statements.count({ status, searched: Boolean(search) });
    const [row] = await count(this.#filter({ status, search }), this.#caller);
    return row?.total ?? 0;
  }

  #filter({ status, search = "" }: Partial<PageQuery>) {
    return {
      owner: this.owner,
      completed: status === "completed",
      pattern: searchPattern(search),
    };
  }

  async create(task: NewTask): Promise<Task> {
    return taskOf(await this.send.create({ owner: this.owner, ...withDefaults(task) }, this.#caller));
  }

  /**
   * Creates a task, unless one was created with this key within the last 24 hours. Then that one, as it is now:
   * "missing" if it was deleted, "other" if it was created from something else.
   */
  async createOnce(key: string, task: NewTask): Promise<{ task: Task; replayed: boolean } | "missing" | "other"> {
    const { createOnce, createdBefore, forgetKeys } = this.send.statements;
    const values = withDefaults(task);
    const fingerprint = new Bun.CryptoHasher("sha256").update(JSON.stringify(values)).digest("base64");
    const named = { owner: this.owner, key };
    await forgetKeys(named, this.#caller);
    for (;;) {
      let clash: unknown;
      const [made] = await createOnce({ ...named, ...values, fingerprint }, this.#caller).catch((error) => {
        // Another one has just created with this key. (Or an id is taken, which is somebody's fault.)
        if (codeOf(error) !== "23505") throw error;
        clash = error;
        return [];
      });
      if (made) return { task: taskOf(made), replayed: false };
      const [before] = await createdBefore(named, this.#caller);
      if (before === undefined && clash) throw clash;
      // The key has been forgotten in between: its day was over.
      if (before === undefined) continue;
      if (before.fingerprint !== fingerprint) return "other";
      return before.id === null ? "missing" : { task: taskOf(before), replayed: true };
    }
  }

  async find(id: number): Promise<Task | undefined> {
    const row = await this.send.find({ owner: this.owner, id }, this.#caller);
    return row === null ? undefined : taskOf(row);
  }

  /** Changes the fields that are given, if the task has one of the versions, where any are given. */
  async change(id: number, changes: TaskChanges, versions?: Versions): Promise<Task | Undone> {
    const { title, description, completed } = changes;
    const sets_description = description !== undefined;
    return this.#change({ id, versions, title: title && stripped(title), description, sets_description, completed });
  }

  /** Sets `completed`, or toggles it if no state is given. */
  async complete(id: number, completed: boolean | undefined, versions?: Versions): Promise<Task | Undone> {
    return this.#change({ id, versions, completed, toggles: completed === undefined });
  }

  async #change(change: Omit<Change, "owner">): Promise<Task | Undone> {
    const row = await this.send.change({ owner: this.owner, ...change }, this.#caller);
    return typeof row === "string" ? row : taskOf(row);
  }

  /** Undefined when it has been deleted. */
  async delete(id: number, versions?: Versions): Promise<Undone | undefined> {
    const row = await this.send.delete({ owner: this.owner, id, versions }, this.#caller);
    return typeof row === "string" ? row : undefined;
  }

  /** Deletes the completed tasks, or all. Returns how many. */
  async clear(status: "completed" | "all"): Promise<number> {
    const clear = this.send.statements.clear({ status });
    const [row] = await clear(this.#filter({ status }), this.#caller);
    return row?.deleted ?? 0;
  }
}

/** A part of the list is asked for, so that its rows don't tell how many there are. */
const isPart = ({ after, offset, limit }: PageQuery) => after !== undefined || offset > 0 || limit < MAX_LIMIT;
