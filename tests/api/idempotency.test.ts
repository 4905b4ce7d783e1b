import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { SQL } from "bun";
import fc from "fast-check";
import type { Task } from "../../src/tasks/model.ts";
import { canStartPostgres, startPostgres } from "../cluster.ts";
import { hasServer } from "../database.ts";
import { canQuery, queryDatabase, SETTINGS, service, spawnService, type User } from "../harness.ts";

// Processes and databases take their time on a machine that does other things too.
setDefaultTimeout(120_000);

const key = () => ({ "idempotency-key": crypto.randomUUID() });
const taskOf = async (answer: Response) => (await answer.json()) as Task;
const all = async (user: User) => (await (await user.get()).json()) as Task[];
const statusOf = async (answer: Promise<Response>) => (await answer).status;

/** As if the key had been used so long ago. */
const age = (user: User, interval: string) =>
  queryDatabase(
    "update task_idempotency_keys set created_at = now() - $2::text::interval where user_id = $1 returning key",
    [user.id, interval],
  );

describe("a POST with an Idempotency-Key", () => {
  test("creates a task, and sent again answers 201 with that task", async () => {
    const user = await service.newcomer();
    const headers = key();
    const first = await user.post({ title: "Buy milk" }, headers);
    expect([first.status, first.headers.get("idempotency-replayed")]).toEqual([201, null]);
    const task = await taskOf(first);
    for (let i = 0; i < 3; i++) {
      const again = await user.post({ title: "Buy milk" }, headers);
      expect([again.status, again.headers.get("idempotency-replayed")]).toEqual([201, "true"]);
      for (const name of ["location", "etag", "cache-control", "content-type", "vary"])
        expect([name, again.headers.get(name)]).toEqual([name, first.headers.get(name)]);
      expect(await taskOf(again)).toEqual(task);
    }
    expect(first.headers.get("location")).toBe(`/api/${user.id}/tasks/${task.id}`);
    expect(await all(user)).toEqual([task]);
  });

  test("answers with the task as it is now, whatever has become of it", async () => {
    const user = await service.newcomer();
    const headers = key();
    const { id } = await taskOf(await user.post({ title: "Buy milk" }, headers));
    const changed = await user.put(id, { title: "Buy bread", completed: true, description: "rye" });
    const again = await user.post({ title: "Buy milk" }, headers);
    expect([again.status, again.headers.get("etag")]).toEqual([201, changed.headers.get("etag")]);
    expect(await taskOf(again)).toEqual(await taskOf(changed));
    expect(await statusOf(user.post({ title: "Buy bread", completed: true, description: "rye" }, headers))).toBe(422);
  });

  test.each([
    ["white space around the title", { title: " \u00a0x\n" }],
    ["what is the default, written out", { title: "x", completed: false, description: null }],
    ["members in another order", { description: null, title: "x" }],
    ["members that nobody knows", { title: "x", priority: 3, tags: ["a"], id: 7, user_id: "somebody" }],
    ["the JSON written otherwise", ' { "ti\\u0074le" :\n"\\u0078" } '],
    ["a member twice, of which the last counts", '{"title":"y","title":"x"}'],
  ])("is the same POST with %s", async (_, body) => {
    const user = await service.newcomer();
    const headers = key();
    const { id } = await taskOf(await user.post({ title: "x" }, headers));
    const again = await user.post(body, headers);
    expect([again.status, (await taskOf(again)).id]).toEqual([201, id]);
    expect(await all(user)).toHaveLength(1);
  });

  test.each([
    { title: "X" },
    { title: "x x" },
    { title: "x", completed: true },
    { title: "x", description: "" },
    { title: "x", description: "null" },
    { title: "x\u0301" },
  ])("with another body is 422, creates nothing, and the first may be sent again: %j", async (body) => {
    const user = await service.newcomer();
    const headers = key();
    const { id } = await taskOf(await user.post({ title: "x" }, headers));
    const other = await user.post(body, headers);
    const { detail, errors } = (await other.json()) as { detail: string; errors: { loc: string[] }[] };
    expect([other.status, errors[0]?.loc]).toEqual([422, ["header", "idempotency-key"]]);
    expect(detail).toMatch(/another task/);
    expect(other.headers.get("idempotency-replayed")).toBeNull();
    expect((await taskOf(await user.post({ title: "x" }, headers))).id).toBe(id);
    expect(await all(user)).toHaveLength(1);
  });

  test("keeps what it holds apart: nothing that moves between fields is the same", async () => {
    const user = await service.newcomer();
    const headers = key();
    const body = { title: 'a","description":"b', description: "c" };
    await user.post(body, headers);
    expect(await statusOf(user.post({ title: "a", description: 'b","description":"c' }, headers))).toBe(422);
    expect(await statusOf(user.post(body, headers))).toBe(201);
  });

  test("is its user's own: another's with the same key creates another task", async () => {
    const [user, other] = [await service.newcomer(), await service.newcomer()];
    const headers = key();
    const mine = await user.post({ title: "x" }, headers);
    const theirs = await other.post({ title: "y" }, headers);
    expect([theirs.status, theirs.headers.get("idempotency-replayed")]).toEqual([201, null]);
    expect((await taskOf(theirs)).id).not.toBe((await taskOf(mine)).id);
    expect(await statusOf(user.post({ title: "y" }, headers))).toBe(422);
  });

  test.each([
    ["deleted", (user: User, id: number) => user.delete(id)],
    ["cleared", (user: User) => user.send("DELETE", "?status=all")],
  ])("whose task has been %s is 404, and creates nothing", async (_, remove) => {
    const user = await service.newcomer();
    const headers = key();
    const { id } = await taskOf(await user.post({ title: "x" }, headers));
    await remove(user, id);
    const again = await user.post({ title: "x" }, headers);
    expect(again.status).toBe(404);
    expect(((await again.json()) as { detail: string }).detail).toMatch(/has been deleted/);
    expect(again.headers.get("location")).toBeNull();
    expect(await statusOf(user.post({ title: "other" }, headers))).toBe(422);
    expect(await all(user)).toEqual([]);
  });

  test("that was refused uses up no key", async () => {
    const user = await service.newcomer();
    const headers = key();
    const refused = [
      user.post({ title: "" }, headers),
      user.post({}, headers),
      user.post({ title: "x", completed: null }, headers),
      user.post("{", headers),
      user.post({ title: "x".repeat(70_000) }, headers),
      user.send("POST", "", "x", { ...headers, "content-type": "text/plain" }),
      fetch(user.path(), { method: "POST", headers, body: '{"title":"x"}' }),
    ];
    expect(await Promise.all(refused.map(statusOf))).toEqual([422, 422, 422, 400, 413, 415, 401]);
    const answer = await user.post({ title: "x" }, headers);
    expect([answer.status, answer.headers.get("idempotency-replayed")]).toEqual([201, null]);
  });

  test.each([
    "k",
    "!~",
    '"8e03978e-40d5-43dd-bc93-6894a57f9324"',
    "x".repeat(64),
    "a,b",
    "'; drop table tasks; --".replaceAll(" ", ""),
    "__proto__",
  ])("takes any 1 to 64 visible ASCII characters: %s", async (key) => {
    const user = await service.newcomer();
    const headers = { "idempotency-key": key };
    const { id } = await taskOf(await user.post({ title: "x" }, headers));
    expect((await taskOf(await user.post({ title: "x" }, headers))).id).toBe(id);
  });

  test.each(["", "x".repeat(65), "a b", "a\tb", "é", "a, b"])("refuses any other: %j", async (key) => {
    const user = await service.newcomer();
    const answer = await user.post({ title: "x" }, { "idempotency-key": key });
    const { errors } = (await answer.json()) as { errors: { loc: string[] }[] };
    expect([answer.status, errors.map(({ loc }) => loc)]).toEqual([422, [["header", "idempotency-key"]]]);
    expect(await all(user)).toEqual([]);
  });

  test("says at once what is wrong with its body and its key", async () => {
    const user = await service.newcomer();
    const answer = await user.post({ title: "" }, { "idempotency-key": "a b" });
    expect(answer.status).toBe(422);
    expect(await all(user)).toEqual([]);
  });

  test("tells keys apart by case, and to the last character", async () => {
    const user = await service.newcomer();
    const keys = ["key", "KEY", "key.", "ke", "key0"];
    const answers = await Promise.all(keys.map((key) => user.post({ title: "x" }, { "idempotency-key": key })));
    const ids = await Promise.all(answers.map(async (answer) => (await taskOf(answer)).id));
    expect(new Set(ids).size).toBe(5);
  });

  test("that is given up and sent again creates one task, whenever that was", async () => {
    const user = await service.newcomer();
    const rounds = Array.from({ length: 60 }, async (_, i) => {
      const headers = { ...key(), "content-type": "application/json", authorization: `Bearer ${user.token}` };
      const body = JSON.stringify({ title: `${i}` });
      await fetch(user.path(), { method: "POST", body, headers, signal: AbortSignal.timeout(i % 30) }).catch(() => {});
      const answer = await fetch(user.path(), { method: "POST", body, headers });
      expect(answer.status).toBe(201);
    });
    await Promise.all(rounds);
    const titles = (await all(user)).map(({ title }) => Number(title)).toSorted((a, b) => a - b);
    expect(titles).toEqual(Array.from({ length: 60 }, (_, i) => i));
  });
});

describe("fifty POSTs of one key at once, over two services", async () => {
  const services = hasServer ? await Promise.all([spawnService(), spawnService()]) : [service, service];
  afterAll(() => hasServer && Promise.all(services.map(({ stop }) => stop())));

  const both = async () => {
    const id = `user-${crypto.randomUUID()}`;
    return (await Promise.all(services.map((one) => one.newcomer(id)))) as [User, User];
  };

  test("create one task, and all answer that", async () => {
    for (let round = 0; round < 5; round++) {
      const [a, b] = await both();
      const headers = key();
      const answers = await Promise.all(
        Array.from({ length: 25 }).flatMap(() => [a, b].map((user) => user.post({ title: "x" }, headers))),
      );
      expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([201]));
      const ids = await Promise.all(answers.map(async (answer) => (await taskOf(answer)).id));
      expect(new Set(ids).size).toBe(1);
      const replayed = answers.filter(({ headers }) => headers.get("idempotency-replayed") === "true");
      expect(replayed).toHaveLength(49);
      expect(await all(a)).toHaveLength(1);
    }
  });

  test("with two bodies create one task, and answer the other body 422", async () => {
    const [a, b] = await both();
    const headers = key();
    const answers = await Promise.all(
      Array.from({ length: 25 }).flatMap(() => [a.post({ title: "a" }, headers), b.post({ title: "b" }, headers)]),
    );
    const [task] = await all(a);
    expect(answers.map(({ status }) => status)).toEqual(
      Array.from({ length: 25 }).flatMap(() => (task?.title === "a" ? [201, 422] : [422, 201])),
    );
    expect(await all(b)).toHaveLength(1);
  });

  test("beside each other's, and beside POSTs without one, create as many tasks as there are keys and those", async () => {
    const [a, b] = await both();
    const keys = Array.from({ length: 20 }, key);
    const keyed = keys.flatMap((headers, i) =>
      [a, b, a, b].map((user) => statusOf(user.post({ title: `${i}` }, headers))),
    );
    const keyless = [a, b].flatMap((user) => Array.from({ length: 20 }, () => statusOf(user.post({ title: "x" }))));
    expect(new Set(await Promise.all([...keyed, ...keyless]))).toEqual(new Set([201]));
    const titles = (await all(a)).map(({ title }) => title);
    expect(titles.filter((title) => title === "x")).toHaveLength(40);
    expect(new Set(titles).size).toBe(21);
    expect(titles).toHaveLength(60);
  });
});

describe.skipIf(!canQuery)("a key", () => {
  test("is good for 24 hours, and then for another task", async () => {
    const user = await service.newcomer();
    const headers = key();
    const { id } = await taskOf(await user.post({ title: "x" }, headers));
    expect(await age(user, "23 hours 59 minutes")).toHaveLength(1);
    expect((await taskOf(await user.post({ title: "x" }, headers))).id).toBe(id);
    await age(user, "24 hours 1 second");
    const later = await user.post({ title: "another" }, headers);
    expect([later.status, later.headers.get("idempotency-replayed")]).toEqual([201, null]);
    const { id: second } = await taskOf(later);
    expect((await taskOf(await user.post({ title: "another" }, headers))).id).toBe(second);
    expect(await all(user)).toHaveLength(2);
  });

  test("that is over is used anew, however many are over for longer", async () => {
    const [old, user] = [`old-${crypto.randomUUID()}`, await service.newcomer()];
    const headers = key();
    await user.post({ title: "x" }, headers);
    await age(user, "25 hours");
    await queryDatabase(
      `insert into task_idempotency_keys (user_id, key, fingerprint, task_id, created_at)
        select $1::text, n, 'x', 1, now() - interval '30 days' from generate_series(1, 100) n`,
      [old],
    );
    const again = await user.post({ title: "another" }, headers);
    expect([again.status, again.headers.get("idempotency-replayed")]).toEqual([201, null]);
    await queryDatabase("delete from task_idempotency_keys where user_id = $1", [old]);
  });

  test("that is over is used anew by one of many at once", async () => {
    const user = await service.newcomer();
    const headers = key();
    await user.post({ title: "x" }, headers);
    await age(user, "25 hours");
    const answers = await Promise.all(Array.from({ length: 30 }, () => user.post({ title: "x" }, headers)));
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([201]));
    const ids = await Promise.all(answers.map(async (answer) => (await taskOf(answer)).id));
    expect(new Set(ids).size).toBe(1);
    expect(await all(user)).toHaveLength(2);
  });

  test("of anybody's that is over goes with others' POSTs, a few at a time, and no younger one", async () => {
    const [old, user] = [`old-${crypto.randomUUID()}`, await service.newcomer()];
    const insert = (name: string, since: string) =>
      queryDatabase(
        `insert into task_idempotency_keys (user_id, key, fingerprint, task_id, created_at)
          select $1::text, $2::text || n, 'x', 1, now() - $3::text::interval - n * interval '1 second'
          from generate_series(1, 1000) n`,
        [old, name, since],
      );
    await insert("over", "24 hours");
    await insert("young", "23 hours");
    const left = async () => {
      const rows = await queryDatabase<{ over: boolean }>(
        "select key like 'over%' as over from task_idempotency_keys where user_id = $1",
        [old],
      );
      return [rows.filter(({ over }) => over).length, rows.filter(({ over }) => !over).length];
    };
    expect(await left()).toEqual([1000, 1000]);
    for (let i = 1; i <= 10; i++) {
      expect(await statusOf(user.post({ title: "x" }, key()))).toBe(201);
      const [over = 0, young] = await left();
      expect(young).toBe(1000);
      expect(over).toBeGreaterThanOrEqual(1000 - i * 20);
      expect(over).toBeLessThan(1000);
    }
    await user.post({ title: "x" });
    const before = await left();
    expect(before[0]).toBeGreaterThan(0);
    await Promise.all(Array.from({ length: 100 }, () => user.post({ title: "x" }, key())));
    expect(await left()).toEqual([0, 1000]);
    await queryDatabase("delete from task_idempotency_keys where user_id = $1", [old]);
  });

  test.skipIf(!hasServer)("that is over, and locked by somebody, holds up no other's POST", async () => {
    const [old, user] = [await service.newcomer(), await service.newcomer()];
    await old.post({ title: "x" }, key());
    await age(old, "30 days");
    const { DATABASE_URL = "" }: Record<string, string> = SETTINGS;
    await using client = new SQL({ url: DATABASE_URL, max: 1 });
    await client.begin(async (transaction) => {
      await transaction`select from task_idempotency_keys where user_id = ${old.id} for update`;
      expect(await statusOf(user.post({ title: "x" }, key()))).toBe(201);
    });
    await user.post({ title: "x" }, key());
    expect(await age(old, "30 days")).toEqual([]);
  });
});

test("any sequence of POSTs with few keys and bodies creates what a table of keys would", async () => {
  const step = fc.record({ key: fc.nat(3), title: fc.nat(2), remove: fc.boolean() });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 12 }), async (steps) => {
      const user = await service.newcomer();
      const made = new Map<number, { title: number; id: number }>();
      const tasks = new Set<number>();
      for (const { key, title, remove } of steps) {
        const answer = await user.post({ title: `${title}` }, { "idempotency-key": `k${key}` });
        const known = made.get(key);
        const expected = !known ? 201 : known.title !== title ? 422 : tasks.has(known.id) ? 201 : 404;
        expect(answer.status).toBe(expected);
        const { id } = await taskOf(answer);
        const created = known === undefined ? [id] : [];
        for (const id of created) {
          made.set(key, { title, id });
          tasks.add(id);
        }
        const gone = remove ? [...tasks].slice(0, 1) : [];
        for (const id of gone) {
          await user.delete(id);
          tasks.delete(id);
        }
      }
      expect(new Set((await all(user)).map(({ id }) => id))).toEqual(tasks);
    }),
    { numRuns: 30 },
  );
});

describe.skipIf(!hasServer || !canStartPostgres)("a role without rights on the table of keys", () => {
  test("serves POSTs without a key, and says of one with a key which privilege it lacks", async () => {
    const server = await startPostgres();
    const admin = new SQL({ url: server.url, max: 1 });
    const migrating = await spawnService({ DATABASE_URL: server.url });
    await migrating.stop();
    await admin`create role least login`;
    await admin`grant select, insert, update, delete on tasks to least`;
    const url = server.url.replace("tasks@", "least@");
    const least = await spawnService({ DATABASE_URL: url, DB_MIGRATE_ON_START: "False" });
    const user = await least.newcomer();
    expect(await statusOf(user.post({ title: "x" }))).toBe(201);
    expect(await statusOf(user.post({ title: "x" }, key()))).toBe(503);
    expect(await all(user)).toHaveLength(1);
    const refusal = "permission denied for table task_idempotency_keys";
    // The log is written a little later.
    while (!least.lines.some((line) => line.includes(refusal))) await Bun.sleep(20);
    await admin`grant select, insert, delete on task_idempotency_keys to least`;
    const headers = key();
    const { id } = await taskOf(await user.post({ title: "x" }, headers));
    expect((await taskOf(await user.post({ title: "x" }, headers))).id).toBe(id);
    await least.stop();
    await admin.close();
    await server.remove();
  });
});
