import { describe, expect, setDefaultTimeout, test } from "bun:test";
import type { Task } from "../../src/tasks/model.ts";
import { canQuery, queryDatabase, service, type User } from "../harness.ts";

// A hundred thousand rows are made, on a machine that does other things too.
setDefaultTimeout(120_000);

const clear = (user: User, query = "?status=completed") => user.send("DELETE", query);
const deleted = async (answer: Response) => {
  expect(answer.status).toBe(200);
  return ((await answer.json()) as { deleted: number }).deleted;
};
const all = async (user: User) => (await (await user.get()).json()) as Task[];

async function userWith(pending: number, completed: number) {
  const user = await service.newcomer();
  const task = (completed: boolean) => user.task({ title: "x", completed });
  await Promise.all([
    ...Array.from({ length: pending }, () => task(false)),
    ...Array.from({ length: completed }, () => task(true)),
  ]);
  return user;
}

describe("DELETE of a list", () => {
  test("with status=completed deletes those, says how many, and leaves the others", async () => {
    const user = await userWith(3, 4);
    const before = await all(user);
    expect(await deleted(await clear(user))).toBe(4);
    expect(await all(user)).toEqual(before.filter(({ completed }) => !completed));
    expect(await deleted(await clear(user))).toBe(0);
  });

  test("with status=all deletes them all, and nobody else's", async () => {
    const [user, other] = [await userWith(2, 2), await userWith(2, 2)];
    expect(await deleted(await clear(user, "?status=all"))).toBe(4);
    expect([(await all(user)).length, (await all(other)).length]).toEqual([0, 4]);
    expect(await deleted(await clear(other))).toBe(2);
    const stranger = { authorization: `Bearer ${user.token}` };
    const foreign = await fetch(other.path("?status=all"), { method: "DELETE", headers: stranger });
    expect([foreign.status, (await all(other)).length]).toEqual([403, 2]);
  });

  test.each([
    "",
    "?",
    "?status",
    "?status=",
    "?status=pending",
    "?status=active",
    "?status=done",
    "?status=Completed",
    "?status=ALL",
    "?status=all&status=all",
    "?status=completed&status=all",
    "?status=completed,all",
    "?status=all%20",
    "?Status=all",
    "?completed=true",
    "?status[]=all",
    "?status=constructor",
  ])("with any other status, or none, is 422 and deletes nothing: %j", async (query) => {
    const user = await userWith(1, 1);
    const answer = await clear(user, query);
    const { errors } = (await answer.json()) as { errors: { loc: string[] }[] };
    expect([answer.status, errors.map(({ loc }) => loc)]).toEqual([422, [["query", "status"]]]);
    expect(await all(user)).toHaveLength(2);
  });

  test("has no use for other parameters, a body, or conditions", async () => {
    const user = await userWith(1, 1);
    const headers = { "if-match": '"other"', "idempotency-key": "a b", "content-type": "application/json" };
    const answer = await user.send("DELETE", "?status=completed&search=no&limit=0&sort=x", "{", headers);
    expect(await deleted(answer)).toBe(1);
  });

  test("with a slash before the query is the same", async () => {
    const user = await userWith(1, 1);
    expect(await deleted(await clear(user, "/?status=completed"))).toBe(1);
  });
});

test("clearing among toggles, creates and deletes counts each task that it deletes once, and tears nothing", async () => {
  for (let round = 0; round < 5; round++) {
    const user = await userWith(20, 20);
    const before = await all(user);
    const toggles = before.map(async ({ id }) => [id, (await user.complete(id)).status] as const);
    const clears = Array.from({ length: 4 }, async () => deleted(await clear(user)));
    const deletes = before.slice(0, 10).map(async ({ id }) => [id, (await user.delete(id)).status] as const);
    const creates = Array.from({ length: 10 }, () => user.task({ title: "new", completed: true }));
    const [toggled, gone, cleared] = await Promise.all([
      Promise.all(toggles),
      Promise.all(deletes),
      Promise.all(clears),
      Promise.all(creates),
    ]);
    const left = new Map((await all(user)).map((task) => [task.id, task]));
    expect(new Set(toggled.map(([, status]) => status)).isSubsetOf(new Set([200, 404]))).toBe(true);
    const singly = gone.filter(([, status]) => status === 204).length;
    const together = cleared.reduce((sum, n) => sum + n, 0);
    expect(50 - singly - together).toBe(left.size);
    for (const [id, status] of [...toggled, ...gone].filter(([, status]) => status !== 200))
      expect([id, status, left.has(id)]).toEqual([id, status, false]);
    // Who was toggled and is still there has been toggled once.
    const completed = new Map(before.map((task) => [task.id, task.completed]));
    for (const [id] of toggled.filter(([id]) => left.has(id)))
      expect([id, left.get(id)?.completed]).toEqual([id, !completed.get(id)]);
  }
});

test.skipIf(!canQuery)("a hundred thousand tasks are cleared in time, and only their owner's", async () => {
  const [user, other] = [await service.newcomer(), await userWith(0, 1)];
  const insert = () =>
    queryDatabase(
      `insert into tasks (user_id, title, description, completed)
        select $1::text, 'task ' || n, 'about milk', n % 2 = 0 from generate_series(1, 100000) n`,
      [user.id],
    );
  await insert();
  const began = performance.now();
  expect(await deleted(await clear(user))).toBe(50_000);
  expect(await deleted(await clear(user, "?status=all"))).toBe(50_000);
  await insert();
  expect(await deleted(await clear(user, "?status=all"))).toBe(100_000);
  expect(performance.now() - began).toBeLessThan(30_000);
  expect(await all(user)).toEqual([]);
  expect(await all(other)).toHaveLength(1);
});
