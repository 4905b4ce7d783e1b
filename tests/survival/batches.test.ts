import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { SQL } from "bun";
import type { Task } from "../../src/tasks/model.ts";
import { hasServer } from "../database.ts";
import { SETTINGS, service, spawnService, type User } from "../harness.ts";

// Thousands of requests, on a machine that does other things too.
setDefaultTimeout(240_000);

const all = async (user: User) => (await (await user.get()).json()) as Task[];
const statusOf = async (answer: Promise<Response>) => (await answer).status;
const times = <T>(n: number, make: (i: number) => T) => Array.from({ length: n }, (_, i) => make(i));

/** Numbers that are the same in each run. */
function numbers(seed: number) {
  let state = seed;
  return (below: number) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

describe("ten thousand writes of two hundred users at once", () => {
  const USERS = 200;
  const random = numbers(7);

  /** What one user sends, and what of it has been answered. */
  interface Client {
    user: User;
    tasks: number[];
    toggles: Map<number, number>;
    puts: Map<number, { sent: string; body: Task }[]>;
    created: Map<number, string>;
    deleted: Set<number>;
    gone: number[];
  }

  const toggle = async ({ user, tasks, toggles }: Client, i: number) => {
    const id = tasks[i % 2] ?? 0;
    const answer = await user.complete(id);
    expect(answer.status).toBe(200);
    expect(await answer.json()).toMatchObject({ id, user_id: user.id });
    toggles.set(id, (toggles.get(id) ?? 0) + 1);
  };
  const put = async ({ user, tasks, puts }: Client, i: number) => {
    const id = tasks[2 + (i % 2)] ?? 0;
    const sent = `${user.id} ${i}`;
    const answer = await user.put(id, { title: sent });
    expect(answer.status).toBe(200);
    const body = (await answer.json()) as Task;
    expect(body).toMatchObject({ id, user_id: user.id, title: sent, completed: false });
    puts.set(id, [...(puts.get(id) ?? []), { sent, body }]);
  };
  const create = async ({ user, created }: Client, i: number) => {
    // Many users create the very same at once.
    const title = `title ${i % 3}`;
    const answer = await user.post({ title });
    const body = (await answer.json()) as Task;
    expect([answer.status, body.user_id, body.title]).toEqual([201, user.id, title]);
    created.set(body.id, title);
  };
  const remove = async ({ user, gone, deleted }: Client) => {
    const id = gone.pop() ?? 0;
    const answers = await Promise.all([statusOf(user.delete(id)), statusOf(user.delete(id))]);
    expect(answers.toSorted()).toEqual([204, 404]);
    deleted.add(id);
  };
  const look = async ({ user, tasks }: Client, i: number) => {
    const id = tasks[i % 4] ?? 0;
    expect(await (await user.get(`/${id}`)).json()).toMatchObject({ id, user_id: user.id });
  };
  const ACTIONS = [toggle, toggle, put, put, create, look, remove];

  test("end as a model of each user's tasks says", async () => {
    const clients = await Promise.all(
      times(USERS, async (): Promise<Client> => {
        const user = await service.newcomer();
        const made = await Promise.all(times(12, () => user.task({ title: "x" })));
        const ids = made.map(({ id }) => id);
        return {
          ...{ user, tasks: ids.slice(0, 4), gone: ids.slice(4) },
          ...{ toggles: new Map(), puts: new Map(), created: new Map(), deleted: new Set() },
        };
      }),
    );
    // Each user's go out in eight lanes at once: 1,600 requests are under way.
    const lane = async (client: Client, lane: number) => {
      for (let i = 0; i < 6; i++) {
        const act = lane === 0 && i === 0 ? remove : (ACTIONS[random(6)] ?? toggle);
        await act(client, lane * 100 + i);
      }
    };
    await Promise.all(clients.flatMap((client) => times(8, (n) => lane(client, n))));

    for (const { user, tasks, toggles, puts, created, gone, deleted } of clients) {
      const found = new Map((await all(user)).map((task) => [task.id, task]));
      expect(new Set(found.keys())).toEqual(new Set([...tasks, ...gone, ...created.keys()]));
      for (const id of deleted) expect(found.has(id)).toBe(false);
      for (const [id, title] of created) expect(found.get(id)?.title).toBe(title);
      for (const [id, n] of toggles) expect(found.get(id)?.completed).toBe(n % 2 === 1);
      for (const [id, answers] of puts) {
        // The versions follow each other, each from one PUT, and the last is what is there.
        const ordered = answers.toSorted((a, b) => a.body.updated_at.localeCompare(b.body.updated_at));
        expect(new Set(ordered.map(({ body }) => body.updated_at)).size).toBe(answers.length);
        expect(found.get(id)).toEqual(ordered.at(-1)?.body as Task);
      }
    }
  });
});

describe("one statement for many users", () => {
  test("reaches nobody else's task, whoever asks for it at the same time", async () => {
    const [a, b] = [await service.newcomer(), await service.newcomer()];
    const mine = await Promise.all(times(20, () => a.task({ title: "a's" })));
    const theirs = await Promise.all(times(20, () => b.task({ title: "b's" })));
    for (const action of [
      (user: User, id: number) => user.put(id, { title: "changed" }),
      (user: User, id: number) => user.complete(id, { completed: true }),
      (user: User, id: number) => user.get(`/${id}`),
      (user: User, id: number) => user.delete(id),
    ]) {
      const foreign = mine.map(({ id }) => statusOf(action(b, id)));
      const own = theirs.map(({ id }) => statusOf(action(b, id)));
      const back = theirs.map(({ id }) => statusOf(action(a, id)));
      expect(new Set(await Promise.all([...foreign, ...back]))).toEqual(new Set([404]));
      expect(new Set(await Promise.all(own)).isSubsetOf(new Set([200, 204]))).toBe(true);
    }
    expect((await all(a)).toSorted((x, y) => x.id - y.id)).toEqual(mine.toSorted((x, y) => x.id - y.id));
    expect(await all(b)).toEqual([]);
  });

  test("gives each who creates the same a task of their own", async () => {
    const users = await Promise.all(times(20, () => service.newcomer()));
    const made = await Promise.all(
      users.flatMap((user) => times(5, async () => ({ user, task: await user.task({ title: "same" }) }))),
    );
    for (const { user, task } of made) expect(task.user_id).toBe(user.id);
    expect(new Set(made.map(({ task }) => task.id)).size).toBe(100);
    for (const user of users) {
      const own = made.filter((one) => one.user === user).map(({ task }) => task.id);
      expect(new Set((await all(user)).map(({ id }) => id))).toEqual(new Set(own));
    }
  });

  test("answers each creation with what it sent, however alike they are", async () => {
    const user = await service.newcomer();
    const texts = [
      "x",
      "X",
      "x\u0301",
      "'x'",
      '"x"',
      "\\x",
      "\\u0078",
      "{x}",
      "null",
      "a\u2028b",
      "x\ty",
      "😀",
      "ﬀ",
      "İ",
    ];
    const bodies = texts.flatMap((text) => [
      { title: text, description: null, completed: false },
      { title: text, description: "", completed: true },
      { title: text, description: `${text} `, completed: false },
      { title: "x", description: text, completed: true },
    ]);
    const made = await Promise.all(bodies.map((body) => user.task(body)));
    for (const [i, task] of made.entries()) expect(task).toMatchObject(bodies[i] ?? {});
    expect(await all(user)).toHaveLength(bodies.length);
  });

  test("does the same row's changes one after the other, in the order in which they came", async () => {
    const user = await service.newcomer();
    const { id } = await user.task({ title: "0" });
    const answers = await Promise.all(times(100, () => user.complete(id)));
    const bodies = (await Promise.all(answers.map((answer) => answer.json()))) as Task[];
    const ordered = bodies.toSorted((x, y) => x.updated_at.localeCompare(y.updated_at));
    expect(ordered.map(({ completed }) => completed)).toEqual(times(100, (i) => i % 2 === 0));
    expect(new Set(bodies.map(({ updated_at }) => updated_at)).size).toBe(100);
  });
});

describe.skipIf(!hasServer)("on a server", () => {
  test("two processes that toggle the same hundred tasks fail nothing, and count right", async () => {
    const services = await Promise.all([spawnService(), spawnService()]);
    const name = `user-${crypto.randomUUID()}`;
    const [a, b] = (await Promise.all(services.map(({ newcomer }) => newcomer(name)))) as [User, User];
    const tasks = await Promise.all(times(100, () => a.task()));
    const toggled = new Map(tasks.map(({ id }) => [id, 0]));
    const until = performance.now() + 3000;
    const random = numbers(3);
    const lane = async (user: User) => {
      while (performance.now() < until) {
        const { id } = tasks[random(100)] as Task;
        expect(await statusOf(user.complete(id))).toBe(200);
        toggled.set(id, (toggled.get(id) ?? 0) + 1);
      }
    };
    await Promise.all(times(64, (i) => lane(i % 2 === 0 ? a : b)));
    for (const { id, completed } of await all(a))
      expect([id, completed]).toEqual([id, (toggled.get(id) ?? 0) % 2 === 1]);
    expect([...toggled.values()].reduce((sum, n) => sum + n)).toBeGreaterThan(500);
    await Promise.all(services.map(({ stop }) => stop()));
  });

  test.each([
    ["changed", (user: User, id: number) => user.complete(id)],
    ["changed with If-Match", (user: User, id: number) => user.put(id, { title: "y" }, { "if-match": '"0"' })],
    ["deleted", (user: User, id: number) => user.delete(id)],
  ])("sixty locked rows of one user that are to be %s hold up nobody else", async (_, change) => {
    const [user, other] = [await service.newcomer(), await service.newcomer()];
    const tasks = await Promise.all(times(60, () => user.task()));
    const theirs = await Promise.all(times(8, () => other.task()));
    const { DATABASE_URL = "" }: Record<string, string> = SETTINGS;
    const client = new SQL({ url: DATABASE_URL, max: 1 });
    const released = Promise.withResolvers<void>();
    const isLocked = Promise.withResolvers<void>();
    const holding = client.begin(async (transaction) => {
      await transaction`select from tasks where user_id = ${user.id} for update`;
      isLocked.resolve();
      await released.promise;
    });
    await isLocked.promise;
    // One by one, as they come, and then many at once.
    const waiting: Promise<number>[] = [];
    for (const { id } of tasks.slice(0, 20)) {
      waiting.push(statusOf(change(user, id)));
      await Bun.sleep(20);
    }
    waiting.push(...tasks.slice(20).map(({ id }) => statusOf(change(user, id))));
    await Bun.sleep(100);
    const began = performance.now();
    const answers = theirs.flatMap(({ id }) => [
      other.complete(id),
      other.get(`/${id}`),
      other.get(),
      other.put(id, { title: "y" }),
    ]);
    expect(new Set(await Promise.all(answers.map(statusOf)))).toEqual(new Set([200]));
    expect(performance.now() - began).toBeLessThan(3000);
    released.resolve();
    await holding;
    expect((await Promise.all(waiting)).every((status) => [200, 204, 412].includes(status))).toBe(true);
    await client.close();
  });

  test.each([
    ["changed", (user: User, id: number) => user.complete(id), 200],
    ["deleted", (user: User, id: number) => user.delete(id), 204],
  ])("a locked row holds up none of 63 others that are %s with it", async (_, change, done) => {
    const user = await service.newcomer();
    const [locked, ...others] = await Promise.all(times(64, () => user.task()));
    const { DATABASE_URL = "" }: Record<string, string> = SETTINGS;
    const client = new SQL({ url: DATABASE_URL, max: 1 });
    const released = Promise.withResolvers<void>();
    const isLocked = Promise.withResolvers<void>();
    const holding = client.begin(async (transaction) => {
      await transaction`select from tasks where id = ${locked?.id} for update`;
      isLocked.resolve();
      await released.promise;
    });
    await isLocked.promise;
    const began = performance.now();
    let waited = true;
    const waiting = statusOf(change(user, locked?.id ?? 0)).finally(() => {
      waited = false;
    });
    const statuses = await Promise.all(others.map(({ id }) => statusOf(change(user, id))));
    const took = performance.now() - began;
    expect(new Set(statuses)).toEqual(new Set([done]));
    expect(took).toBeLessThan(3000);
    // And who comes later isn't held up either.
    expect(await statusOf(user.post({ title: "x" }))).toBe(201);
    expect(waited).toBe(true);
    released.resolve();
    await holding;
    expect(await waiting).toBe(done);
    await client.close();
  });
});
