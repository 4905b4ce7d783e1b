import { afterAll, beforeAll, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import type { UserId } from "../../src/auth/index.ts";
import { loadConfig } from "../../src/config.ts";
import { connect } from "../../src/db/connect.ts";
import type { Caller, Database, Query, Statement } from "../../src/db/database.ts";
import { migrate } from "../../src/db/migrate.ts";
import { parseCursor } from "../../src/tasks/cursor.ts";
import { taskStore } from "../../src/tasks/store.ts";

// A hundred thousand rows are made first.
setDefaultTimeout(60_000);

const USERS = 1000;
const EACH = 100;

interface Plan {
  "Node Type": string;
  "Relation Name"?: string;
  "Index Cond"?: string;
  "Actual Rows": number;
  "Rows Removed by Filter"?: number;
  "Rows Removed by Index Recheck"?: number;
  Plans?: Plan[];
}

let db: Database;
const asked: (Statement & { values: unknown[]; caller: Caller | undefined })[] = [];
let store: ReturnType<typeof taskStore>;
let tasks: ReturnType<typeof store>;

beforeAll(async () => {
  db = await connect(loadConfig({ DATABASE_URL: "memory://" }));
  await migrate(db);
  await db.orm.execute(`
    insert into tasks (user_id, title, description, completed, created_at)
    select 'user' || n % ${USERS}, 'task ' || n, 'about milk', n % 3 = 0, now() - n * interval '1 minute'
    from generate_series(1, ${USERS * EACH}) n`);
  await db.orm.execute(`
    insert into tasks (user_id, title) select 'long', 'task ' || n from generate_series(1, ${1.5 * EACH}) n`);
  await db.orm.execute(`
    insert into task_idempotency_keys (user_id, key, fingerprint, task_id, created_at)
    select 'user' || n % ${USERS}, 'key' || n, 'x', n, now() - n * interval '10 seconds' from generate_series(1, 10000) n`);
  await db.orm.execute("analyze");
  const query: Query = (statement, values, caller) => {
    asked.push({ ...statement, values, caller });
    return db.query(statement, values);
  };
  store = taskStore(query);
});
// As a request has them, whose time runs from its first statement on.
beforeEach(() => {
  tasks = store("user7" as UserId);
});
afterAll(() => db.close());

const nodes = (plan: Plan): Plan[] => [plan, ...(plan.Plans ?? []).flatMap(nodes)];

/** The plans of what an operation really asks, as they ran. */
async function plansOf(operation: () => Promise<unknown>): Promise<Plan[]> {
  asked.length = 0;
  await operation();
  const plans: Plan[] = [];
  for (const { text, values } of asked.splice(0)) {
    const [explain] = await db.query<{ "QUERY PLAN": [{ Plan: Plan }] }>(
      { name: "explain", text: `explain (analyze, format json) ${text}` },
      values,
    );
    plans.push(...nodes(explain?.["QUERY PLAN"][0].Plan as Plan));
  }
  return plans;
}

const listing = { status: "all", search: undefined, limit: 20, offset: 0, after: undefined } as const;
const sorts = ["created_at", "updated_at", "title"] as const;
const operations: [string, () => Promise<unknown>][] = [
  ...sorts.flatMap((sort) =>
    (["asc", "desc"] as const).flatMap((order): [string, () => Promise<unknown>][] => [
      [`list by ${sort} ${order}`, () => tasks.list({ ...listing, sort, order })],
      [
        `list by ${sort} ${order}, from the third page on`,
        async () => {
          const { next = "" } = await tasks.list({ ...listing, limit: 40, sort, order });
          await tasks.list({ ...listing, sort, order, after: parseCursor(next, sort, order) });
        },
      ],
      [`list all by ${sort} ${order}`, () => tasks.list({ ...listing, limit: 1000, sort, order })],
    ]),
  ),
  ["list with an offset", () => tasks.list({ ...listing, offset: 5, sort: "created_at", order: "desc" })],
  ["list what is pending", () => tasks.list({ ...listing, status: "pending", sort: "created_at", order: "desc" })],
  ["search", () => tasks.list({ ...listing, search: "milk", sort: "title", order: "asc" })],
  ["create", () => tasks.create({ title: "x" })],
  ["find", () => tasks.find(7)],
  ["change", () => tasks.change(7, { title: "x" })],
  ["complete", () => tasks.complete(7, undefined)],
  ["change what has a version", () => tasks.change(7, { title: "x" }, ["2026-11-23T11:50:00.123Z"])],
  ["find, change and list many at once", () => many((n) => [tasks.find(n), tasks.complete(n, true), page()])],
  ["create many at once", () => many((n) => [tasks.create({ title: `x${n}` })])],
  ["create with a key", () => tasks.createOnce("key", { title: "x" })],
  ["create with a key again", () => tasks.createOnce("key", { title: "x" })],
  ["delete what has a version", () => tasks.delete(7, ["2026-11-23T11:50:00.123Z"])],
  ["delete many at once", () => many((n) => [tasks.delete(n)])],
  ["delete", () => tasks.delete(5007)],
  ["clear", () => tasks.clear("completed")],
];

/** What is asked at once goes together. */
const many = (ask: (id: number) => Promise<unknown>[]) => Promise.all([7, 1007, 2007, 3007].flatMap((id) => ask(id)));
const page = () => tasks.list({ ...listing, sort: "created_at", order: "desc" });

test.each(operations)("%s reads no other user's rows", async (_, operation) => {
  const plans = await plansOf(operation);
  expect(plans.length).toBeGreaterThan(0);
  expect(plans.map((plan) => plan["Node Type"])).not.toContain("Seq Scan");
  for (const plan of plans) {
    const removed = (plan["Rows Removed by Filter"] ?? 0) + (plan["Rows Removed by Index Recheck"] ?? 0);
    expect(plan["Actual Rows"] + removed).toBeLessThanOrEqual(EACH + 20);
    if (plan["Node Type"].includes("Index")) expect(plan["Index Cond"]).toMatch(/user_id|\(id = |created_at < /);
  }
});

test.each(operations.filter(([name]) => /^list (by|all by) created_at/.test(name)))(
  "%s sorts nothing",
  async (_, operation) => {
    expect((await plansOf(operation)).map((plan) => plan["Node Type"])).not.toContain("Sort");
  },
);

test.each<[string, (id: number) => Promise<unknown>]>([
  ["create", (id) => tasks.create({ title: `together ${id}` })],
  ["find", (id) => tasks.find(id)],
  ["list", page],
  ["complete", (id) => tasks.complete(id, true)],
  ["delete", (id) => tasks.delete(id)],
])("%s by twenty at once takes a few statements", async (_, ask) => {
  const made = await Promise.all(Array.from({ length: 20 }, () => tasks.create({ title: "x" })));
  asked.length = 0;
  await Promise.all(made.map(({ id }) => ask(id)));
  expect(asked.length).toBeLessThan(10);
});

const IN_TURN = ", in turn with others";

test.each<[string, Partial<Parameters<typeof tasks.list>[0]>, string[]]>([
  ["a page", {}, ["pages"]],
  ["a page of a hundred", { limit: 100 }, ["pages"]],
  ["a longer page", { limit: 120 }, ["pages", `page${IN_TURN}`]],
  ["all", { limit: 1000 }, ["pages", `page${IN_TURN}`]],
  ["a page by title", { sort: "title" }, [`page${IN_TURN}`]],
  ["all from a place on by title", { sort: "title", limit: 1000, after: { key: "", id: 0 } }, [`page${IN_TURN}`]],
  ["a page with an offset", { offset: 5 }, [`page${IN_TURN}`]],
  ["what is beyond the end", { offset: 500 }, [`page${IN_TURN}`, `count${IN_TURN}`]],
])(
  "%s takes no more statements than it must, and its owner's turn for those that may be long",
  async (_, query, kinds) => {
    asked.length = 0;
    await store("long" as UserId).list({ ...listing, sort: "created_at", order: "asc", ...query });
    expect(asked.map(({ name, slow }) => name.replace(/_.*/, "") + (slow ? IN_TURN : ""))).toEqual(kinds);
  },
);

test.each(["completed", "all"] as const)("clearing (%s) takes its owner's turn, for it may be long", async (status) => {
  asked.length = 0;
  await store("nobody" as UserId).clear(status);
  expect(asked.map(({ name, slow }) => [name, slow])).toEqual([[`clear_${status}`, true]]);
});

test("a request has ten seconds for all of its statements together", async () => {
  asked.length = 0;
  const until = performance.now() + 10_000;
  await tasks.createOnce("ten seconds", { title: "x" });
  const deadlines = asked.map(({ caller }) => caller?.deadline ?? 0);
  expect(deadlines).toHaveLength(2);
  expect(new Set(deadlines).size).toBe(1);
  expect(deadlines[0]).toBeWithin(until, until + 5_000);
});
