import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { appendFileSync, cpSync, rmSync } from "node:fs";
import { join } from "node:path";
import { PGlite } from "@electric-sql/pglite";
import { SQL } from "bun";
import { drizzle } from "drizzle-orm/node-postgres";
import { migrate as migrateNode } from "drizzle-orm/node-postgres/migrator";
import { drizzle as drizzlePglite } from "drizzle-orm/pglite";
import { migrate as migratePglite } from "drizzle-orm/pglite/migrator";
import pg from "pg";
import type { Task } from "../../src/tasks/model.ts";
import { canStartPostgres, startPostgres } from "../cluster.ts";
import { hasServer } from "../database.ts";
import { frontEndProject } from "../front-end.ts";
import type { User } from "../harness.ts";
import { neonProxy } from "../neon-proxy.ts";
import { hasPgBouncer, startPgBouncer } from "../pgbouncer.ts";
import { folder } from "../programs.ts";
import { everyPage, run, type Service, type Settings, served } from "../served.ts";

// Each cell is a process and a database of its own.
setDefaultTimeout(90_000);

/** A time as the contract says it, and nothing else that JavaScript would parse. */
const INSTANT = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;

/** A short life of two users' tasks, in which whatever depends on the database's own settings would show. */
async function live(service: Service): Promise<Task[]> {
  const [user, stranger] = await Promise.all([service.newcomer(), service.newcomer()]);
  const began = Date.now();
  const made: Task[] = [];
  for (const title of ["École à Paris", "b) 100% _\\", "Ärger", "ÉCOLE", "zebra"])
    made.push(await user.task({ title, description: `about ${title}` }));
  const [first, second] = made as [Task, Task];
  for (const { created_at, updated_at } of made) {
    expect(created_at).toMatch(INSTANT);
    expect(updated_at).toBe(created_at);
    expect(Math.abs(Date.parse(created_at) - began)).toBeLessThan(60_000);
  }

  const ids = made.map(({ id }) => id);
  expect(await (await user.get()).json()).toEqual(made.toReversed());
  for (const [asked, expected] of [
    ["limit=2", ids.toReversed()],
    ["limit=2&sort=created_at&order=asc", ids],
    ["limit=2&sort=updated_at&order=asc", ids],
    ["limit=2&sort=title&order=asc", [1, 4, 2, 3, 0].map((n) => ids[n])],
  ] as [string, number[]][])
    expect([asked, await idsOf(user, asked)]).toEqual([asked, expected]);
  expect(await idsOf(user, "search=%C3%A9cole")).toEqual([ids[3], ids[0]] as number[]);
  expect(await idsOf(user, "search=%25%20_%5C")).toEqual([ids[1]] as number[]);

  const toggled = await Promise.all(Array.from({ length: 10 }, () => user.complete(first.id)));
  expect(toggled.map(({ status }) => status)).toEqual(Array(10).fill(200));
  const afterwards = (await (await user.get(`/${first.id}`)).json()) as Task;
  expect(afterwards.completed).toBe(false);
  expect(Date.parse(afterwards.updated_at)).toBeGreaterThanOrEqual(Date.parse(first.updated_at) + 10);
  const answers = await Promise.all(toggled.map(async (answer) => ((await answer.json()) as Task).updated_at));
  expect(new Set(answers).size).toBe(10);

  const put = await user.put(second.id, { description: null, completed: true });
  expect(await put.json()).toMatchObject({
    ...second,
    description: null,
    completed: true,
    updated_at: expect.stringMatching(INSTANT),
  });
  expect(await idsOf(user, "status=completed")).toEqual([second.id]);

  const own = await stranger.task();
  const theirs = await fetch(user.path(), { headers: { authorization: `Bearer ${stranger.token}` } });
  expect(theirs.status).toBe(403);
  for (const answer of [
    stranger.get(`/${first.id}`),
    stranger.put(first.id, { title: "mine" }),
    stranger.complete(first.id),
    stranger.delete(first.id),
  ])
    expect((await answer).status).toBe(404);
  expect((await stranger.delete(own.id)).status).toBe(204);
  expect((await stranger.get(`/${own.id}`)).status).toBe(404);

  expect(service.lines.filter((line) => /"level":"(ERROR|CRITICAL)"/.test(line))).toEqual([]);
  return (await (await user.get()).json()) as Task[];
}

/** The ids of a list, page by page. */
const idsOf = async (user: User, query: string) => (await everyPage(user, query)).map(({ id }) => id);

// Like the tests of a failing Postgres: with a server's suite only, since they take as long as all the others.
describe.skipIf(!hasServer || !canStartPostgres || !hasPgBouncer)("over a server,", () => {
  let server: Awaited<ReturnType<typeof startPostgres>>;
  let admin: SQL;
  const poolers: Awaited<ReturnType<typeof startPgBouncer>>[] = [];
  const proxy = neonProxy();
  const users = { owner: "tasks", little: "little" };
  beforeAll(async () => {
    server = await startPostgres();
    admin = new SQL({ url: server.url, max: 1 });
    await admin.unsafe("create role little login");
    for (const pool_mode of ["transaction", "session"] as const)
      poolers.push(
        await startPgBouncer(server.url, { pool_mode, default_pool_size: pool_mode === "session" ? 20 : 3 }),
      );
  });
  afterAll(async () => {
    await admin?.close();
    for (const pooler of poolers) await pooler.stop();
    await server?.remove();
  });

  let made = 0;
  /** A new database, as `create database` makes it with these words. */
  async function database(words = "") {
    const name = `cell_${made++}`;
    await admin.unsafe(`create database ${name} ${words}`);
    const url = at(server.port, name);
    const execute = async (statements: string) => {
      const client = new SQL({ url, max: 1 });
      await client.unsafe(statements).simple();
      await client.close();
    };
    return { name, url, execute };
  }
  const at = (port: number, name: string, user = users.owner) => `postgres://${user}@127.0.0.1:${port}/${name}`;

  /** How the service reaches a database. */
  const ways: [string, (name: string, user?: string) => Settings][] = [
    ["PostgreSQL itself", (name, user) => ({ DATABASE_URL: at(server.port, name, user) })],
    ["PgBouncer, transaction mode", (name, user) => ({ DATABASE_URL: at(poolers[0]?.port ?? 0, name, user) })],
    ["PgBouncer, session mode", (name, user) => ({ DATABASE_URL: at(poolers[1]?.port ?? 0, name, user) })],
    ["Neon's driver", (name, user) => ({ DATABASE_URL: at(server.port, name, user), NEON_WSPROXY: proxy.address })],
    [
      "Neon's driver and PgBouncer, transaction mode",
      (name, user) => ({ DATABASE_URL: at(poolers[0]?.port ?? 0, name, user), NEON_WSPROXY: proxy.address }),
    ],
  ];

  /** How a database may be found. Makes one, and says by whom it is used. */
  const states: [string, () => Promise<{ name: string; url: string; user?: string }>][] = [
    ["as it comes", () => database()],
    [
      "whose transactions are serializable by default",
      async () => {
        const made = await database();
        await made.execute(`alter database ${made.name} set default_transaction_isolation = 'serializable'`);
        return made;
      },
    ],
    [
      "whose dates are German, and whose clock is in Kathmandu",
      async () => {
        const made = await database();
        await made.execute(
          `alter database ${made.name} set datestyle = 'German, DMY'; alter database ${made.name} set timezone = 'Asia/Kathmandu'`,
        );
        return made;
      },
    ],
    ["whose LC_CTYPE is C", () => database("template template0 encoding 'UTF8' lc_collate 'C' lc_ctype 'C'")],
    [
      "in which a front end's Drizzle has migrated last",
      async () => {
        const made = await database();
        await frontEndMigrates(made.url, frontEndProject({ when: Date.now() + 3_600_000 }));
        return made;
      },
    ],
    [
      "by a role that may do nothing but read and write the tables",
      async () => {
        const made = await database();
        expect((await run(["migrate"], { DATABASE_URL: made.url })).exitCode).toBe(0);
        // Not the journal of migrations: it can't look into that.
        await made.execute("grant select, insert, update, delete on tasks, task_idempotency_keys to little");
        return { ...made, user: users.little };
      },
    ],
  ];

  describe.each(ways)("%s,", (_, settings) => {
    test.each(states)("a database %s: tasks live", async (_, prepare) => {
      const { name, url, user } = await prepare();
      const left = await served(settings(name, user), live);
      const client = new SQL({ url, max: 1 });
      const stored =
        await client`select id::int, (extract(epoch from updated_at) * 1000)::bigint::text as milliseconds from tasks`;
      await client.close();
      expect(Object.fromEntries(left.map(({ id, updated_at }) => [id, String(Date.parse(updated_at))]))).toEqual(
        Object.fromEntries(
          stored.map(({ id, milliseconds }: { id: number; milliseconds: string }) => [id, milliseconds]),
        ),
      );
    });
  });
});

/** The front end's own `migrate`, with Drizzle's own migrator. */
async function frontEndMigrates(url: string, migrationsFolder: string) {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  await migrateNode(drizzle({ client }), { migrationsFolder });
  await client.end();
}

describe.skipIf(!hasServer)("over an embedded Postgres,", () => {
  let pristine: string;
  const folders: string[] = [];
  beforeAll(async () => {
    pristine = folder("pglite");
    folders.push(pristine);
    await (await PGlite.create(join(pristine, "postgres"))).close();
  });
  afterAll(() => {
    for (const path of folders) rmSync(path, { recursive: true, force: true });
  });
  const copy = () => {
    const path = folder("pglite");
    folders.push(path);
    cpSync(pristine, path, { recursive: true });
    return { path, files: join(path, "postgres"), configuration: join(path, "postgres", "postgresql.conf") };
  };

  test.each([
    ["as it comes", () => {}],
    [
      "whose transactions are serializable by default",
      ({ configuration }) => appendFileSync(configuration, "\ndefault_transaction_isolation = serializable\n"),
    ],
    ["whose dates are German", ({ configuration }) => appendFileSync(configuration, "\ndatestyle = 'German, DMY'\n")],
    [
      "in which a front end's Drizzle has migrated last",
      async ({ files }) => {
        const client = await PGlite.create(files);
        await migratePglite(drizzlePglite({ client }), {
          migrationsFolder: frontEndProject({ when: Date.now() + 3_600_000 }),
        });
        await client.close();
      },
    ],
  ] as [string, (database: ReturnType<typeof copy>) => void | Promise<void>][])(
    "a database %s: tasks live",
    async (_, prepare) => {
      const database = copy();
      await prepare(database);
      await served({ DATABASE_URL: `pglite://${database.path}` }, live);
    },
  );
});
