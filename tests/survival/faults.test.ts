import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { SQL } from "bun";
import { canStartPostgres, startPostgres } from "../cluster.ts";
import { hasServer } from "../database.ts";
import { spawnService, type User, until } from "../harness.ts";
import { neonProxy } from "../neon-proxy.ts";
import { relay } from "../relay.ts";

// Time-outs are waited for here, and a server started and killed.
setDefaultTimeout(90_000);

type Postgres = Awaited<ReturnType<typeof startPostgres>>;
type Service = Awaited<ReturnType<typeof spawnService>>;

const proxy = neonProxy();
const drivers = [
  ["Bun's driver", {}],
  ["Neon's driver", { NEON_WSPROXY: proxy.address }],
] as [string, Record<string, string>][];

/** The status of an answer. A 503 says when to come back, or that it may have been done, and never both. */
async function statusOf(
  request: (Pick<Response, "status" | "text"> & { headers: Pick<Headers, "has"> }) | ReturnType<typeof fetch>,
): Promise<number> {
  const answer = await request;
  const text = await answer.text();
  const comeBack = answer.headers.has("retry-after");
  expect(answer.status === 503).toBe(comeBack || /look whether it was done/.test(text));
  expect(comeBack && /look whether it was done/.test(text)).toBe(false);
  return answer.status;
}

/** How long until this is answered 200, in milliseconds. */
async function untilAnswered(ask: () => ReturnType<typeof fetch>): Promise<number> {
  const began = performance.now();
  while ((await statusOf(ask())) !== 200) await Bun.sleep(50);
  return performance.now() - began;
}

const healthy = (service: Service) => {
  expect(service.child.exitCode).toBeNull();
  expect(service.lines.join("\n")).not.toMatch(/unhandled|select |insert |update /i);
};

// With the tests on a server only: they take as long as all the others together.
describe.skipIf(!hasServer || !canStartPostgres)("a Postgres that fails", () => {
  let server: Postgres;
  let admin: SQL;
  beforeAll(async () => {
    server = await startPostgres();
    admin = new SQL({ url: server.url, max: 1 });
  });
  afterAll(async () => {
    await admin.close();
    await server.remove();
  });

  const served = async (settings: Record<string, string>, use: (service: Service, user: User) => Promise<void>) => {
    const service = await spawnService({ DATABASE_URL: server.url, ...settings });
    try {
      await use(service, await service.newcomer());
      healthy(service);
    } finally {
      await service.stop();
    }
  };

  test.each(drivers)("killed under 16 writers loses nothing acknowledged, and is back within 5 s: %s", (_, settings) =>
    served(settings, async (_service, user) => {
      const created: number[] = [];
      const statuses = new Set<number>();
      let writing = true;
      const writers = Array.from({ length: 16 }, async () => {
        while (writing) {
          const answer = await user.post({ title: "x" });
          statuses.add(await statusOf(answer.clone()));
          if (answer.status === 201) created.push(((await answer.json()) as { id: number }).id);
          else await Bun.sleep(20);
        }
      });
      await Bun.sleep(1000);
      await server.crash();
      await Bun.sleep(1000);
      await server.start();
      const recovery = await untilAnswered(() => user.get("?limit=1"));
      await Bun.sleep(500);
      writing = false;
      await Promise.all(writers);
      expect([...statuses].toSorted()).toEqual([201, 503]);
      expect(recovery).toBeLessThan(5000);
      const client = new SQL({ url: server.url, max: 1 });
      const rows = await client`select id::int from tasks where user_id = ${user.id}`.values();
      await client.close();
      const found = new Set(rows.map(([id]: number[]) => id));
      expect(created.filter((id) => !found.has(id))).toEqual([]);
    }),
  );

  test.each(drivers)("that ends its idle connections fails no request after: %s", (_, settings) =>
    served(settings, async (_service, user) => {
      const client = new SQL({ url: server.url, max: 1 });
      for (let round = 0; round < 5; round++) {
        await Promise.all(Array.from({ length: 10 }, () => user.get()));
        await client`select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and datname = current_database()`;
        await Bun.sleep(20);
        const answers = await Promise.all(Array.from({ length: 10 }, () => statusOf(user.get())));
        expect(new Set(answers)).toEqual(new Set([200]));
      }
      await client.close();
    }),
  );

  test.each(drivers)("whose table is locked for 14 s answers 503 within 12 s, and well afterwards: %s", (_, settings) =>
    served(settings, async (_service, user) => {
      const client = new SQL({ url: server.url, max: 1 });
      const locked = client.begin(async (transaction) => {
        await transaction`lock table tasks in access exclusive mode`;
        await Bun.sleep(14_000);
      });
      await Bun.sleep(200);
      const began = performance.now();
      const answers = await Promise.all([user.get(), user.post({ title: "x" })].map(statusOf));
      const took = performance.now() - began;
      expect(answers).toEqual([503, 503]);
      expect(took).toBeLessThan(12_000);
      await locked;
      await client.close();
      expect(await statusOf(user.get())).toBe(200);
    }),
  );

  test.each(drivers)("behind a network that freezes answers 503 in time, and recovers: %s", async (_, settings) => {
    const network = relay(server.port);
    const url = server.url.replace(String(server.port), String(network.port));
    await served({ ...settings, DATABASE_URL: url }, async (_service, user) => {
      await user.task();
      network.stall();
      const began = performance.now();
      expect(await statusOf(user.get())).toBe(503);
      const took = performance.now() - began;
      expect(took).toBeLessThan(10_000);
      network.restore();
      const recovery = await untilAnswered(() => user.get());
      expect(recovery).toBeLessThan(10_000);
    });
    network.stop();
  });

  test.each(drivers)("behind a network that is cut answers 503 at once, and recovers: %s", async (_, settings) => {
    const network = relay(server.port);
    const url = server.url.replace(String(server.port), String(network.port));
    await served({ ...settings, DATABASE_URL: url }, async (service, user) => {
      await user.task();
      network.cut();
      proxy.cut();
      for (let i = 0; i < 20; i++) expect(await statusOf(user.post({ title: "x" }))).toBe(503);
      expect((await fetch(`${service.url}/health/live`)).status).toBe(200);
      expect((await fetch(`${service.url}/health/ready`)).status).toBe(503);
      // One line for the outage, however many requests it fails.
      expect(service.lines.filter((line) => line.includes("did not answer")).length).toBeLessThan(4);
      network.restore();
      const recovery = await untilAnswered(() => user.get());
      expect(recovery).toBeLessThan(5000);
    });
    network.stop();
  });

  test.each(drivers)("whose connections have frozen is reached over new ones: %s", async (_, settings) => {
    const network = relay(server.port);
    const url = server.url.replace(String(server.port), String(network.port));
    await served({ ...settings, DATABASE_URL: url }, async (_service, user) => {
      await user.get();
      network.freeze();
      // Each of those that were open takes one down with it.
      const unlucky: Promise<number>[] = [];
      for (let i = 0; i < 4; i++) {
        unlucky.push(statusOf(user.get()));
        await Bun.sleep(50);
      }
      const began = performance.now();
      const answers = await Promise.all(Array.from({ length: 20 }, () => statusOf(user.get())));
      expect(new Set(answers)).toEqual(new Set([200]));
      expect(performance.now() - began).toBeLessThan(3000);
      expect(await Promise.all(unlucky)).toContain(503);
      expect(await untilAnswered(() => user.get())).toBeLessThan(3000);
    });
    network.stop();
  });

  test.each(drivers)("with a row that is locked lets other rows be changed: %s", (_, settings) =>
    served(settings, async (_service, user) => {
      const [locked, other] = await Promise.all([user.task(), user.task()]);
      const client = new SQL({ url: server.url, max: 1 });
      const released = Promise.withResolvers<void>();
      const holding = client.begin(async (transaction) => {
        await transaction`select from tasks where id = ${locked.id} for update`;
        await released.promise;
      });
      await Bun.sleep(100);
      const waiting = user.complete(locked.id);
      await Bun.sleep(100);
      const began = performance.now();
      for (let i = 0; i < 5; i++) {
        const answers = await Promise.all(Array.from({ length: 8 }, () => statusOf(user.complete(other.id))));
        expect(new Set(answers)).toEqual(new Set([200]));
      }
      expect(performance.now() - began).toBeLessThan(3000);
      released.resolve();
      expect(await statusOf(waiting)).toBe(200);
      await holding;
      await client.close();
    }),
  );

  test.each(drivers)("serves 120 requests at once over a pool of five: %s", async (_, settings) => {
    const connections = async (): Promise<number> => {
      const [row] =
        await admin`select count(*)::int as n from pg_stat_activity where datname = 'postgres' and pid <> pg_backend_pid() and backend_type = 'client backend'`;
      return row.n;
    };
    // The server ends the connections of an earlier service in its own time.
    await until(async () => (await connections()) === 0);
    await served({ ...settings, DB_POOL_SIZE: "5", DB_MAX_OVERFLOW: "0" }, async (_service, user) => {
      const answers = await Promise.all(Array.from({ length: 120 }, () => statusOf(user.post({ title: "x" }))));
      expect(new Set(answers)).toEqual(new Set([201]));
      expect(await connections()).toBeLessThanOrEqual(5);
    });
  });

  test.each(drivers)("and is down at the start is waited for: %s", async (_, settings) => {
    const network = relay(server.port);
    network.cut();
    const url = server.url.replace(String(server.port), String(network.port));
    const service = await spawnService({ ...settings, DATABASE_URL: url }, "listening");
    expect((await fetch(`${service.url}/health/live`)).status).toBe(200);
    expect((await fetch(`${service.url}/health/ready`)).status).toBe(503);
    expect(await statusOf((await service.newcomer()).get())).toBe(503);
    network.restore();
    expect(await untilAnswered(() => fetch(`${service.url}/health/ready`))).toBeLessThan(5000);
    healthy(service);
    expect(await service.stop()).toBe(0);
    network.stop();
  });

  test("is migrated once by three processes that start together, and shared by them without losing a change", async () => {
    await admin`create database together`;
    // Where the second of them would not see what the first has done while it waited.
    await admin`alter database together set default_transaction_isolation = 'repeatable read'`;
    const settings = { DATABASE_URL: server.url.replace("/postgres", "/together") };
    const services = await Promise.all([1, 2, 3].map(() => spawnService(settings)));
    const client = new SQL({ url: settings.DATABASE_URL, max: 1 });
    const [applied] =
      await client`select count(*)::int as n, count(distinct hash)::int as different from tasks_api_migrations`;
    expect(applied).toEqual({ n: applied.different, different: 2 });
    await client.close();

    const users = await Promise.all(services.map((service) => service.newcomer("one-user")));
    const { id } = (await users[0]?.task()) ?? { id: 0 };
    const toggles = users.flatMap((user) => Array.from({ length: 67 }, () => user.complete(id)));
    const puts = users.flatMap((user, i) => Array.from({ length: 20 }, () => user.put(id, { description: `by ${i}` })));
    const answers = await Promise.all([...toggles, ...puts].map(statusOf));
    expect(new Set(answers)).toEqual(new Set([200]));
    // 3 × 67 toggles: an odd number.
    expect(await (await users[1]?.get(`/${id}`))?.json()).toMatchObject({
      completed: true,
      title: "Buy milk",
    });
    await Promise.all(services.map((service) => service.stop()));
  });
});
