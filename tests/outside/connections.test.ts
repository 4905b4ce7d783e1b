import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { SQL } from "bun";
import { canStartPostgres, startPostgres } from "../cluster.ts";
import { hasServer } from "../database.ts";
import { type User, until } from "../harness.ts";
import { neonProxy } from "../neon-proxy.ts";
import { type Settings, served } from "../served.ts";

// Time limits are waited for here.
setDefaultTimeout(120_000);

const proxy = neonProxy();
const drivers: [string, Settings][] = [
  ["Bun's driver", {}],
  ["Neon's driver", { NEON_WSPROXY: proxy.address }],
];

describe.skipIf(!hasServer || !canStartPostgres)("the connections to a server", () => {
  let server: Awaited<ReturnType<typeof startPostgres>>;
  let admin: SQL;
  beforeAll(async () => {
    server = await startPostgres();
    admin = new SQL({ url: server.url, max: 1 });
    await admin.unsafe("create role hurried login superuser");
    await admin.unsafe("alter role hurried set statement_timeout = '300ms'");
  });
  afterAll(async () => {
    await admin?.close();
    await server?.remove();
  });

  let made = 0;
  /** A database of its own, and who is connected to it besides the tests. */
  async function database(user = "tasks") {
    const name = `connections_${made++}`;
    await admin.unsafe(`create database ${name}`);
    const url = server.url.replace("/postgres", `/${name}`);
    const backends = async (condition = "true"): Promise<{ pid: number }[]> =>
      admin.unsafe(
        `select pid from pg_stat_activity where datname = '${name}' and application_name like 'tasks-api %' and ${condition}`,
      );
    return {
      url,
      settings: { DATABASE_URL: url.replace("tasks@", `${user}@`) },
      backends,
      waiting: () => backends("wait_event_type = 'Lock'"),
    };
  }

  /** Keeps everybody else from changing any task meanwhile. */
  async function locked<Result>(url: string, use: () => Promise<Result>): Promise<Result> {
    const client = new SQL({ url, max: 1 });
    try {
      return await client.begin(async (transaction) => {
        await transaction`lock table tasks in exclusive mode`;
        return await use();
      });
    } finally {
      await client.close();
    }
  }

  describe.each(drivers)("%s:", (_, driver) => {
    test("a statement is ended after five seconds by the server itself, though the service stands still", async () => {
      const { url, settings, waiting } = await database();
      await served({ ...settings, ...driver }, async ({ child, newcomer }) => {
        const user = await newcomer();
        const { id } = await user.task();
        await locked(url, async () => {
          const answer = user.put(id, { title: "x" });
          await until(async () => (await waiting()).length === 1);
          child.kill("SIGSTOP");
          try {
            await Bun.sleep(4000);
            expect(await waiting()).toHaveLength(1);
            await until(async () => (await waiting()).length === 0, 8);
          } finally {
            child.kill("SIGCONT");
          }
          expect((await answer).status).toBe(503);
        });
      });
    });

    test("a statement is ended on the server, once its client has hung up", async () => {
      const { url, settings, waiting } = await database();
      await served({ ...settings, ...driver }, async ({ newcomer }) => {
        const user = await newcomer();
        const { id } = await user.task();
        await locked(url, async () => {
          const client = new AbortController();
          const headers = { authorization: `Bearer ${user.token}` };
          const answer = fetch(user.path(`/${id}`), { method: "DELETE", headers, signal: client.signal });
          await until(async () => (await waiting()).length === 1);
          client.abort();
          await expect(answer).rejects.toThrow();
          // Before the server would end it by itself.
          await until(async () => (await waiting()).length === 0, 3);
        });
        expect((await user.get(`/${id}`)).status).toBe(200);
      });
    });

    test("a migration takes the time it takes, whatever limit the role has", async () => {
      const { url, settings } = await database("hurried");
      const client = new SQL({ url, max: 1 });
      await client.unsafe(
        `create function slow() returns event_trigger language plpgsql as $$ begin perform pg_sleep(1); end $$`,
      );
      await client.unsafe(
        "create event trigger slow on ddl_command_start when tag in ('CREATE INDEX') execute function slow()",
      );
      await client.close();
      await served({ ...settings, ...driver }, async ({ newcomer, lines }) => {
        expect((await (await newcomer()).task()).title).toBe("Buy milk");
        expect(lines.filter((line) => line.includes('"level":"ERROR"'))).toEqual([]);
      });
    });

    test("one is replaced after DB_POOL_RECYCLE seconds, and not before", async () => {
      const { settings, backends } = await database();
      const used = async (recycle: string) =>
        served({ ...settings, ...driver, DB_POOL_RECYCLE: recycle }, async ({ newcomer }) => {
          const user = await newcomer();
          const seen = new Set<number>();
          for (let i = 0; i < 40; i++) {
            expect((await user.get()).status).toBe(200);
            for (const { pid } of await backends()) seen.add(pid);
            await Bun.sleep(100);
          }
          return seen.size;
        });
      expect(await used("1")).toBeGreaterThan(2);
      expect(await used("300")).toBeLessThan(3);
    });

    const changes: [string, number, (user: User, id: number, tag: string) => Promise<Response>][] = [
      ["POST", 1, (user) => user.post({ title: "twice" })],
      ["POST, three at once", 3, (user) => user.post({ title: "twice" })],
      ["PUT", 1, (user, id) => user.put(id, { title: "changed" })],
      ["PUT, three at once", 3, (user, id) => user.put(id, { title: "changed" })],
      ["PUT with If-Match", 1, (user, id, tag) => user.put(id, { title: "changed" }, { "if-match": tag })],
      ["PATCH that toggles", 1, (user, id) => user.complete(id)],
      ["PATCH that toggles, three at once", 3, (user, id) => user.complete(id)],
      ["DELETE", 1, (user, id) => user.delete(id)],
      ["DELETE, three at once", 3, (user, id) => user.delete(id)],
      ["DELETE with If-Match", 1, (user, id, tag) => user.send("DELETE", `/${id}`, undefined, { "if-match": tag })],
      ["DELETE of all", 1, (user) => user.send("DELETE", "?status=all")],
    ];

    test("no change is sent again whose connection was lost: it may have been done", async () => {
      const { url, settings, waiting } = await database();
      await served({ ...settings, ...driver }, async ({ newcomer }) => {
        for (const [name, times, change] of changes) {
          const user = await newcomer();
          const tasks = await Promise.all(Array.from({ length: times }, () => user.task()));
          const tags = await Promise.all(
            tasks.map(async ({ id }) => (await user.get(`/${id}`)).headers.get("etag") ?? ""),
          );
          const answers = await locked(url, async () => {
            const asked = tasks.map(({ id }, i) => change(user, id, tags[i] ?? ""));
            // Those that come while one is under way go together.
            const statements = Math.min(times, 2);
            await until(async () => (await waiting()).length === statements);
            for (const { pid } of await waiting()) await admin`select pg_terminate_backend(${pid})`;
            const answers = await Promise.race([Promise.all(asked), Bun.sleep(3000)]);
            expect([name, (await waiting()).length]).toEqual([name, 0]);
            return answers ?? [];
          });
          expect([name, answers.map(({ status, headers }) => [status, headers.has("retry-after")])]).toEqual([
            name,
            tasks.map(() => [503, false]),
          ]);
          const after = (await (await user.get("?order=asc")).json()) as object[];
          expect([name, after]).toEqual([name, tasks.toSorted((a, b) => a.id - b.id)]);
        }
      });
    });
  });

  test("those that are idle are closed after half a minute, unless DB_POOL_PRE_PING is off", async () => {
    const left = await Promise.all(
      ["True", "False"].flatMap((DB_POOL_PRE_PING) =>
        drivers.map(async ([, driver]) => {
          const { settings, backends } = await database();
          return served({ ...settings, ...driver, DB_POOL_PRE_PING }, async ({ newcomer }) => {
            const user = await newcomer();
            await Promise.all(Array.from({ length: 8 }, (_, i) => user.get(`?limit=${i + 101}`)));
            const opened = (await backends()).length;
            await Bun.sleep(20_000);
            const meanwhile = (await backends()).length;
            await Bun.sleep(20_000);
            return { opened: opened > 0, kept: meanwhile === opened, left: (await backends()).length > 0 };
          });
        }),
      ),
    );
    expect(left).toEqual([
      { opened: true, kept: true, left: false },
      { opened: true, kept: true, left: false },
      { opened: true, kept: true, left: true },
      { opened: true, kept: true, left: true },
    ]);
  });
});
