import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import type { UserId } from "../../src/auth/index.ts";
import { loadConfig } from "../../src/config.ts";
import { connect } from "../../src/db/connect.ts";
import type { Database, Query } from "../../src/db/database.ts";
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
const asked: { text: string; values: unknown[] }[] = [];
let tasks: ReturnType<ReturnType<typeof taskStore>>;

beforeAll(async () => {
  db = await connect(loadConfig({ DATABASE_URL: "memory://" }));
  await migrate(db);
  await db.orm.execute(`
    insert into tasks (user_id, title, description, completed, created_at)
    select 'user' || n % ${USERS}, 'task ' || n, 'about milk', n % 3 = 0, now() - n * interval '1 minute'
    from generate_series(1, ${USERS * EACH}) n`);
  await db.orm.execute(`
    insert into task_idempotency_keys (user_id, key, fingerprint, task_id, created_at)
    select 'user' || n % ${USERS}, 'key' || n, 'x', n, now() - n * interval '10 seconds' from generate_series(1, 10000) n`);
  await db.orm.execute("analyze");
  const query: Query = (statement, values) => {
    asked.push({ text: statement.text, values });
    return db.query(statement, values);
  };
  tasks = taskStore(query)("user7" as UserId);
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
