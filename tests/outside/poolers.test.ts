import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { SQL } from "bun";
import type { Task } from "../../src/tasks/model.ts";
import { canStartPostgres, startPostgres } from "../cluster.ts";
import { hasServer } from "../database.ts";
import { User } from "../harness.ts";
import { neonProxy } from "../neon-proxy.ts";
import { hasPgBouncer, startPgBouncer, tracksStatements } from "../pgbouncer.ts";
import { relay } from "../relay.ts";
import { type Service, type Settings, served } from "../served.ts";

setDefaultTimeout(120_000);

/** How long each load lasts, in seconds. */
const SECONDS = Number(process.env.TEST_LOAD_SECONDS ?? 3);

type Pooler = Awaited<ReturnType<typeof startPgBouncer>>;

describe.skipIf(!hasServer || !canStartPostgres || !hasPgBouncer)("through PgBouncer", () => {
  let server: Awaited<ReturnType<typeof startPostgres>>;
  let admin: SQL;
  const proxy = neonProxy();
  const started: Pooler[] = [];
  beforeAll(async () => {
    server = await startPostgres();
    admin = new SQL({ url: server.url, max: 1 });
  });
  afterAll(async () => {
    await admin?.close();
    for (const pooler of started) await pooler.stop();
    await server?.remove();
  });

  /** A PgBouncer in transaction mode with three connections to the server, and a database behind it. */
  async function pooled(settings: Settings = {}) {
    const name = `pooled_${started.length}`;
    await admin.unsafe(`create database ${name}`);
    const pooler = await startPgBouncer(server.url.replace("/postgres", `/${name}`), {
      pool_mode: "transaction",
      default_pool_size: 3,
      ...settings,
    });
    started.push(pooler);
    return { DATABASE_URL: pooler.url, RATE_LIMIT: "0" };
  }

  const drivers: [string, Settings][] = [
    ["Bun's driver", {}],
    ["Neon's driver", { NEON_WSPROXY: proxy.address }],
  ];
  const poolers: [string, boolean, Settings][] = [
    ["as it comes", true, {}],
    ["that drops what it doesn't know", true, { ignore_startup_parameters: "statement_timeout, extra_float_digits" }],
    ["that keeps track of prepared statements", tracksStatements, { max_prepared_statements: "100" }],
    ["that could, and doesn't", tracksStatements, { max_prepared_statements: "0" }],
  ];

  test.each(drivers)(
    "%s: creates nothing twice when the pooler loses the server before the answer",
    async (_, driver) => {
      const between = relay(Number(new URL(server.url).port));
      const pooler = await startPgBouncer(server.url.replace(/:\d+\//, `:${between.port}/`), {
        pool_mode: "transaction",
        server_login_retry: 1,
      });
      started.push(pooler);
      await served({ DATABASE_URL: pooler.url, ...driver }, async ({ newcomer }) => {
        const user = await newcomer();
        await user.task({ title: "before" });
        const lock = await admin.reserve();
        await lock.unsafe("begin");
        await lock.unsafe("lock table tasks in exclusive mode");
        const posted = user.post({ title: "once" });
        await Bun.sleep(500);
        // It is carried out, and the answer gets lost.
        between.stall();
        await lock.unsafe("commit");
        lock.release();
        await Bun.sleep(500);
        between.cut();
        between.restore();
        const answer = await posted;
        expect([answer.status, answer.headers.get("retry-after")]).toEqual([503, null]);
        const { tasks } = await admin
          .unsafe(`select array_agg(title order by id) as tasks from tasks where user_id = '${user.id}'`)
          .then(([row]) => row);
        expect(tasks).toEqual(["before", "once"]);
      });
      between.stop();
    },
  );

  describe.each(drivers)("%s", (_, driver) => {
    test.each(poolers.filter(([, isHere]) => isHere))(
      "%s: two processes on three connections answer each with its own",
      async (_, __, settings) => {
        const database = { ...(await pooled(settings)), ...driver };
        const results = await served(database, (one) =>
          served(database, async (other) => {
            const loads = Array.from({ length: 12 }, () => load([one, other]));
            return (await Promise.all(loads)).flat();
          }),
        );
        expect(results.filter((result) => result !== "right").slice(0, 5)).toEqual([]);
        expect(results.length).toBeGreaterThan(100 * SECONDS);
      },
    );
  });
});

/** A life of one user's tasks over several processes, in which every answer is known beforehand. */
async function load(services: Service[]): Promise<string[]> {
  const [first] = services as [Service];
  const { id, token } = await first.newcomer();
  const users = services.map(({ url }) => new User(url, id, token));
  const results: string[] = [];
  const tasks = new Map<number, Task>();
  const until = performance.now() + SECONDS * 1000;
  let turn = 0;

  const check = async (
    what: string,
    request: ReturnType<User["get"]>,
    status: number,
    expected: (body: never) => unknown,
  ) => {
    const answer = await request;
    const text = await answer.text();
    const body = answer.status === status && text !== "" ? JSON.parse(text) : undefined;
    const right = answer.status === status && Bun.deepEquals(expected(body as never), body);
    results.push(right ? "right" : `${what}: ${answer.status} ${text.slice(0, 300)}`);
    return right ? body : undefined;
  };
  const sorted = (compare: (a: Task, b: Task) => number) => [...tasks.values()].toSorted(compare);

  while (performance.now() < until) {
    const user = users[turn++ % users.length] as User;
    const title = `${turn % 7} ${crypto.randomUUID()}`;
    const made: Task | undefined = await check("POST", user.post({ title }), 201, (body: Task) => ({
      ...body,
      user_id: id,
      title,
      description: null,
      completed: false,
    }));
    if (made) tasks.set(made.id, made);
    const description = `note ${turn}`;
    const some = sorted((a, b) => a.title.localeCompare(b.title, "en"))[turn % tasks.size];
    if (some === undefined) continue;
    const other = users[turn % users.length] as User;
    await check("GET one", other.get(`/${some.id}`), 200, () => some);
    await check("GET, newest first", other.get(), 200, () => sorted((a, b) => b.id - a.id));
    await check("GET, by title", user.get("?sort=title&order=asc&limit=2"), 200, () =>
      sorted((a, b) => (a.title < b.title ? -1 : 1)).slice(0, 2),
    );
    await check("GET, completed", user.get("?status=completed&limit=5"), 200, () =>
      sorted((a, b) => b.id - a.id)
        .filter(({ completed }) => completed)
        .slice(0, 5),
    );
    await check("GET, searched", other.get(`?search=${some.title.slice(2)}`), 200, () => [some]);
    const changed: Task | undefined = await check("PUT", other.put(some.id, { description }), 200, (body: Task) => ({
      ...some,
      description,
      updated_at: body?.updated_at,
    }));
    if (changed) tasks.set(some.id, changed);
    const toggled: Task | undefined = await check("PATCH", user.complete(some.id), 200, (body: Task) => ({
      ...some,
      description,
      completed: !some.completed,
      updated_at: body?.updated_at,
    }));
    if (toggled) tasks.set(some.id, toggled);
    if (tasks.size > 10) {
      await check("DELETE", other.delete(some.id), 204, () => undefined);
      tasks.delete(some.id);
      await check("GET gone", user.get(`/${some.id}`), 404, (body) => body);
    }
  }
  return results;
}
