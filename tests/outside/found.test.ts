import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { SQL } from "bun";
import { drizzle } from "drizzle-orm/node-postgres";
import { migrate } from "drizzle-orm/node-postgres/migrator";
import pg from "pg";
import type { Task } from "../../src/tasks/model.ts";
import { canStartPostgres, startPostgres } from "../cluster.ts";
import { hasServer } from "../database.ts";
import { firstVersion, frontEndProject } from "../front-end.ts";
import { spawnService } from "../harness.ts";
import { neonProxy } from "../neon-proxy.ts";
import { hasPgBouncer, startPgBouncer } from "../pgbouncer.ts";
import { run, type Service, type Settings, said, served } from "../served.ts";

// Locks and time-outs are waited for here.
setDefaultTimeout(90_000);

const proxy = neonProxy();
const drivers: [string, Settings][] = [
  ["Bun's driver", {}],
  ["Neon's driver", { NEON_WSPROXY: proxy.address }],
];

describe.skipIf(!hasServer || !canStartPostgres || !hasPgBouncer)("a database as it is found:", () => {
  let server: Awaited<ReturnType<typeof startPostgres>>;
  let admin: SQL;
  const poolers: Awaited<ReturnType<typeof startPgBouncer>>[] = [];
  beforeAll(async () => {
    server = await startPostgres({
      tls: true,
      access: [
        "hostssl tls_only all 127.0.0.1/32 trust",
        "host tls_only all 127.0.0.1/32 reject",
        "host all secretive 127.0.0.1/32 scram-sha-256",
      ],
    });
    admin = new SQL({ url: server.url, max: 1 });
    for (const statement of [
      "create database tls_only",
      "create role secretive login password 'the right one'",
      "create role little login",
      "create role hasty login superuser",
      "alter role hasty set lock_timeout = '100ms'",
    ])
      await admin.unsafe(statement);
  });
  afterAll(async () => {
    await admin?.close();
    for (const pooler of poolers) await pooler.stop();
    await server?.remove();
  });

  const at = (name: string, user = "tasks", { port } = server) => `postgres://${user}@127.0.0.1:${port}/${name}`;
  let made = 0;
  async function database(words = "") {
    const name = `found_${made++}`;
    await admin.unsafe(`create database ${name} ${words}`);
    return { name, url: at(name) };
  }
  /** Does the statements in one session, which stays open until they are undone. */
  async function session<Result>(url: string, use: (client: pg.Client) => Promise<Result>): Promise<Result> {
    const client = new pg.Client({ connectionString: url });
    await client.connect();
    try {
      return await use(client);
    } finally {
      await client.end();
    }
  }
  const execute = (url: string, statements: string) => session(url, (client) => client.query(statements));
  const exists = async (url: string, table: string) =>
    (await session(url, (client) => client.query("select to_regclass($1) as found", [table]))).rows[0].found !== null;

  describe.each(drivers)("%s:", (_, driver) => {
    test.each([
      [
        "a wrong password",
        () => at("postgres", "secretive:a-wrong-one"),
        /password authentication failed for user \\"secretive\\"/,
      ],
      ["a database that isn't there", () => at("nowhere"), /database \\"nowhere\\" does not exist/],
      [
        "no encryption where it must be",
        () => `${at("tls_only")}?sslmode=disable`,
        /pg_hba.conf rejects connection .*no encryption/,
      ],
    ])("%s is said in the server's own words, once", async (_, url, words) => {
      const service = await spawnService({ DATABASE_URL: url(), ...driver }, "listening");
      const answer = await (await service.newcomer()).get();
      expect([answer.status, answer.headers.has("retry-after")]).toEqual([503, true]);
      const ready = await fetch(`${service.url}/health/ready`);
      expect([ready.status, await ready.text()]).toEqual([
        503,
        expect.stringContaining("does not let this service in"),
      ]);
      await Bun.sleep(4000);
      await service.stop();
      expect(said(service).filter((line) => words.test(line))).toHaveLength(1);
      expect(service.lines.join("\n")).not.toContain("a-wrong-one");

      const command = await run(["migrate"], { DATABASE_URL: url(), ...driver });
      expect(command.exitCode).not.toBe(0);
      expect(JSON.stringify(command.err + command.out)).toMatch(words);
      expect(command.err + command.out).not.toContain("a-wrong-one");
    });

    test("a role that may not make the table is told which privilege it lacks", async () => {
      const { name } = await database();
      const { exitCode, err } = await run(["migrate"], { DATABASE_URL: at(name, "little"), ...driver });
      expect(exitCode).toBe(1);
      expect(err).toMatch(/permission denied for (schema|database) \w+/);
      expect(err).toMatch(/\bCREATE\b/);
    });

    test("a schema that was never migrated is 503, and the log says once what to run", async () => {
      const { url } = await database();
      const service = await spawnService({ DATABASE_URL: url, DB_MIGRATE_ON_START: "False", ...driver }, "listening");
      const user = await service.newcomer();
      for (let n = 0; n < 5; n++) {
        const answer = await user.get();
        expect([answer.status, answer.headers.has("retry-after")]).toEqual([503, true]);
        expect((await user.post({ title: "x" })).status).toBe(503);
      }
      const ready = await fetch(`${service.url}/health/ready`);
      expect([ready.status, await ready.text()]).toEqual([503, expect.stringContaining("table")]);
      await service.stop();
      expect(said(service).filter((line) => line.includes("migrate"))).toHaveLength(1);
    });

    test("an encoding that can't hold every text is refused at the start", async () => {
      const { url } = await database("template template0 encoding 'LATIN1' lc_collate 'C' lc_ctype 'C'");
      const { exitCode, err } = await run(["serve"], {
        DATABASE_URL: url,
        PORT: "0",
        HOST: "127.0.0.1",
        ...driver,
      });
      expect([exitCode, err]).toEqual([1, expect.stringMatching(/LATIN1.*UTF-?8|UTF-?8.*LATIN1/s)]);
    });

    test("a trigger that changes what is created makes nobody's task twice", async () => {
      const { url } = await database();
      await served({ DATABASE_URL: url, ...driver }, async ({ newcomer }) => {
        await execute(
          url,
          `create function upper_title() returns trigger language plpgsql as $$ begin new.title := upper(new.title); return new; end $$;
           create trigger upper_title before insert on tasks for each row execute function upper_title()`,
        );
        const users = await Promise.all(Array.from({ length: 3 }, () => newcomer()));
        const titles = Array.from({ length: 20 }, (_, i) => `buy ${i}`);
        for (const user of users)
          await Promise.all(
            titles.map(async (title) => {
              const task = await user.task({ title });
              expect([task.title, task.user_id]).toEqual([title.toUpperCase(), user.id]);
            }),
          );
        for (const user of users) expect((await user.get()).headers.get("x-total-count")).toBe("20");
      });
    });

    test("a migration that takes 7 s is waited for", async () => {
      const { url } = await database();
      await execute(
        url,
        `create function slow() returns event_trigger language plpgsql as $$ begin
           if exists (select from pg_event_trigger_ddl_commands() where object_identity = 'public.tasks') then perform pg_sleep(7); end if;
         end $$;
         create event trigger slow on ddl_command_end when tag in ('CREATE TABLE') execute function slow()`,
      );
      await served({ DATABASE_URL: url, ...driver }, async (service) => {
        expect((await (await service.newcomer()).task()).title).toBe("Buy milk");
      });
    });

    test("a lock_timeout of the role's fails no migration that waits for another, and makes a change 503 when it is over", async () => {
      const { name, url } = await database();
      await execute(
        url,
        `create function slow() returns event_trigger language plpgsql as $$ begin perform pg_sleep(1); end $$;
         create event trigger slow on ddl_command_start when tag in ('CREATE INDEX') execute function slow()`,
      );
      const settings = { DATABASE_URL: at(name, "hasty"), ...driver };
      const services = await Promise.all([1, 2].map(() => spawnService(settings)));
      for (const service of services)
        expect(said(service).filter((line) => /"level":"(ERROR|WARNING)"/.test(line))).toEqual([]);
      const [user] = await Promise.all(services.map((service) => service.newcomer()));
      const { id } = (await user?.task()) ?? { id: 0 };
      const began = performance.now();
      const answer = await session(url, async (client) => {
        await client.query("begin");
        await client.query("select from tasks where id = $1 for update", [id]);
        return await user?.put(id, { title: "x" });
      });
      expect(answer?.status).toBe(503);
      // Before the service's own limit.
      expect(performance.now() - began).toBeLessThan(4000);
      expect((await user?.put(id, { title: "x" }))?.status).toBe(200);
      await Promise.all(services.map((service) => service.stop()));
    });

    test("an id that is taken, since the sequence lags behind, is a bug's 500, with a key and without", async () => {
      const { url } = await database();
      await served({ DATABASE_URL: url, ...driver }, async ({ newcomer }) => {
        const user = await newcomer();
        for (const headers of [undefined, { "idempotency-key": "a" }]) {
          const { id } = await user.task();
          await execute(url, `select setval(pg_get_serial_sequence('tasks', 'id'), ${id}, false)`);
          expect((await user.post({ title: "x" }, headers)).status).toBe(500);
        }
      });
    });

    test("a server that only reads answers reads, and 503 for writes, with its own words in the log once", async () => {
      const { name, url } = await database();
      expect((await run(["migrate"], { DATABASE_URL: url })).exitCode).toBe(0);
      await execute(url, `alter database ${name} set default_transaction_read_only = on`);
      await served({ DATABASE_URL: url, ...driver }, async (service) => {
        const user = await service.newcomer();
        expect((await user.get()).status).toBe(200);
        for (let n = 0; n < 3; n++) expect((await user.post({ title: "x" })).status).toBe(503);
        await Bun.sleep(500);
        expect(said(service).filter((line) => line.includes("read-only transaction"))).toHaveLength(1);
      });
    });

    /** A way to the server with one connection, in the service and in what stands between. */
    const ways: [string, (name: string) => Promise<Settings>][] = [
      ["directly", async (name) => ({ DATABASE_URL: at(name) })],
      [
        "through PgBouncer that drops the statement timeout",
        async (name) => {
          const pooler = await startPgBouncer(at(name), {
            pool_mode: "transaction",
            default_pool_size: 1,
            ignore_startup_parameters: "statement_timeout",
          });
          poolers.push(pooler);
          return { DATABASE_URL: pooler.url };
        },
      ],
    ];

    test.each(ways)("%s, what waits for a lock is given up, on the server too, and not done later", async (_, way) => {
      const { name, url } = await database();
      await served({ ...(await way(name)), DB_POOL_SIZE: "1", DB_MAX_OVERFLOW: "0", ...driver }, async (service) => {
        const user = await service.newcomer();
        const { id } = await user.task({ title: "before" });
        await session(url, async (client) => {
          await client.query("begin");
          await client.query("select from tasks where id = $1 for update", [id]);
          const began = performance.now();
          const changes = [user.put(id, { title: "late" }), user.complete(id)];
          const creations = ["a", "b", "c"].map((title) => user.post({ title }));
          const [changed, created] = await Promise.all([Promise.all(changes), Promise.all(creations)]);
          expect(performance.now() - began).toBeLessThan(12_000);
          expect(changed.map(({ status }) => status)).toEqual([503, 503]);
          await Bun.sleep(500);
          const waiting = await client.query(
            "select query from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'",
          );
          expect(waiting.rows).toEqual([]);
          await client.query("rollback");
          await Bun.sleep(500);
          const tasks = (await (await user.get()).json()) as Task[];
          expect(tasks.find((task) => task.id === id)).toMatchObject({
            title: "before",
            completed: false,
          });
          // One that says `Retry-After` was not done: else a client would do it twice.
          const promised = created.flatMap(({ status, headers }, n) =>
            status === 503 && headers.has("retry-after") ? ["abc"[n]] : [],
          );
          expect(tasks.filter(({ title }) => promised.includes(title))).toEqual([]);
        });
      });
    });
  });

  test("TLS is used where it is offered, without a word in the URL", () =>
    served({ DATABASE_URL: at("tls_only") }, async (service) => {
      expect((await (await service.newcomer()).task()).title).toBe("Buy milk");
    }));

  test.each([
    ["SQLAlchemy's driver", (url: string) => url.replace("postgres:", "postgresql+psycopg2:")],
    ["quotes", (url: string) => `"${url}"`],
    [
      "Prisma's and Supabase's parameters",
      (url: string) => `${url}?schema=public&connection_limit=1&pool_timeout=10&pgbouncer=true&supa=base-pooler.x`,
    ],
  ])("a URL with %s reaches it", async (_, written) => {
    const { url } = await database();
    await served({ DATABASE_URL: written(url) }, async (service) => {
      expect((await (await service.newcomer()).task()).title).toBe("Buy milk");
    });
  });

  describe("with a front end's Drizzle on it,", () => {
    const frontEndMigrates = (url: string, migrationsFolder: string) =>
      session(url, (client) => migrate(drizzle({ client }), { migrationsFolder }));
    const works = async (service: Service) => {
      const { id } = await (await service.newcomer()).task();
      expect(id).toBeGreaterThan(0);
    };

    test("whose last migration is newer than ours, ours are still done", async () => {
      const { url } = await database();
      await frontEndMigrates(url, frontEndProject({ when: Date.now() + 3_600_000 }));
      const { exitCode } = await run(["migrate"], { DATABASE_URL: url });
      expect([exitCode, await exists(url, "tasks")]).toEqual([0, true]);
      await served({ DATABASE_URL: url, DB_MIGRATE_ON_START: "False" }, works);
    });

    test("whose migration is older than ours, and comes after, is still done", async () => {
      const { url } = await database();
      await served({ DATABASE_URL: url }, works);
      await frontEndMigrates(url, frontEndProject({ when: 1_000 }));
      expect(await exists(url, "front_end_posts")).toBe(true);
    });

    test("our first version's row leaves its journal, and nothing else there is touched", async () => {
      const { url } = await database();
      await frontEndMigrates(url, frontEndProject({ when: 1_000, table: "first_posts" }));
      await frontEndMigrates(url, firstVersion());
      expect(await exists(url, "tasks")).toBe(true);
      await execute(url, "insert into tasks (user_id, title) values ('somebody', 'kept')");
      const journal = () =>
        session(
          url,
          async (client) => (await client.query("select * from drizzle.__drizzle_migrations order by id")).rows,
        );
      const [theirs] = await journal();

      const { exitCode } = await run(["migrate"], { DATABASE_URL: url });
      expect([exitCode, await journal()]).toEqual([0, [theirs]]);
      await frontEndMigrates(url, frontEndProject({ when: 2_000, table: "second_posts" }));
      expect(await exists(url, "second_posts")).toBe(true);
      await served({ DATABASE_URL: url }, async (service) => {
        await works(service);
        expect(await (await (await service.newcomer("somebody")).get()).json()).toMatchObject([{ title: "kept" }]);
      });
      // Once more changes nothing.
      const before = await journal();
      expect((await run(["migrate"], { DATABASE_URL: url })).exitCode).toBe(0);
      expect(await journal()).toEqual(before);
    });
  });
});
