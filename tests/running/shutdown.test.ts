import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Task } from "../../src/tasks/model.ts";
import { hasServer } from "../database.ts";
import { listening, outOfReach, SETTINGS, spawnService, type User } from "../harness.ts";
import { relay } from "../relay.ts";

// Processes and databases take their time on a machine that does other things too.
setDefaultTimeout(60_000);

test("from SIGTERM on it is not ready, and says that each answer is the last on its connection", async () => {
  const service = await spawnService();
  service.child.kill("SIGTERM");
  await logged(service.lines, "stopping");
  const answer = await fetch(`${service.url}/health/ready`);
  expect(answer.status).toBe(503);
  expect(answer.headers.get("connection")).toBe("close");
  expect(await service.child.exited).toBe(0);
});

test.skipIf(!hasServer)("a start that ends after SIGTERM does not make it ready", async () => {
  const { DATABASE_URL = "" }: Record<string, string> = SETTINGS;
  const url = new URL(DATABASE_URL);
  const network = relay(Number(url.port), { hostname: url.hostname });
  network.cut();
  url.port = String(network.port);
  const service = await spawnService({ DATABASE_URL: url.href }, "listening");
  service.child.kill("SIGTERM");
  await logged(service.lines, "stopping");
  network.restore();
  const statuses: (number | undefined)[] = [];
  while (!statuses.includes(undefined)) {
    const answer = await fetch(`${service.url}/health/ready`).catch(() => undefined);
    statuses.push(answer?.status);
    await Bun.sleep(20);
  }
  expect(new Set(statuses)).toEqual(new Set([503, undefined]));
  expect(await service.child.exited).toBe(0);
  network.stop();
});

test("from SIGTERM on each answer says so, refusals too", async () => {
  const service = await spawnService();
  const user = await service.newcomer();
  const other = await service.newcomer();
  service.child.kill("SIGTERM");
  await logged(service.lines, "stopping");
  const answers = await Promise.all([
    user.get(),
    fetch(user.path()),
    fetch(user.path(), { headers: { authorization: `Bearer ${other.token}` } }),
    user.get("/999"),
    user.post("{"),
    user.post({}),
    user.post("x".repeat(70_000)),
    user.send("POST", "", "x", { "content-type": "text/plain" }),
    fetch(`${service.url}/nowhere`),
    fetch(`${service.url}/health`, { method: "DELETE" }),
    fetch(user.path(), { method: "OPTIONS" }),
    fetch(`${service.url}/docs`),
  ]);
  expect(answers.map(({ status, headers }) => [status, headers.get("connection")])).toEqual(
    [200, 401, 403, 404, 400, 422, 413, 415, 404, 405, 204, 200].map((status) => [status, "close"]),
  );
  expect(await service.child.exited).toBe(0);
});

describe("what isn't a whole request within 3 s of SIGTERM is cut, and the exit code is 0", () => {
  const head = (service: Service, user: User) =>
    `POST ${user.path().slice(service.url.length)} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${user.token}\r\nContent-Type: application/json\r\nContent-Length: 500\r\n`;
  const unfinished: [string, (service: Service, user: User) => string][] = [
    ["a connection that has sent nothing", () => ""],
    ["half a header", head],
    ["half a body", (service, user) => `${head(service, user)}\r\n{"title":`],
    ["a connection between two requests", () => "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"],
  ];

  test.each(unfinished)("%s", async (_, sent) => {
    const service = await spawnService();
    await connection(service, sent(service, await service.newcomer()));
    await Bun.sleep(200);
    service.child.kill("SIGTERM");
    const began = performance.now();
    expect(await service.child.exited).toBe(0);
    expect(performance.now() - began).toBeLessThan(5_000);
  });
});

test("a client that doesn't read its answer holds the stop for 13 s, and no longer", async () => {
  const service = await spawnService({ RATE_LIMIT: "0" });
  const user = await service.newcomer();
  // Six bytes each in JSON: 6 MB in all, of which the kernel holds 4.
  const long = { title: "x", description: "\u0001".repeat(1_000) };
  for (let round = 0; round < 20; round++) await Promise.all(Array.from({ length: 50 }, () => user.task(long)));
  const socket = connect(Number(new URL(service.url).port), "localhost").pause();
  socket.write(
    `GET ${user.path().slice(service.url.length)} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${user.token}\r\n\r\n`,
  );
  await Bun.sleep(1_000);
  service.child.kill("SIGTERM");
  const began = performance.now();
  expect(await service.child.exited).toBe(0);
  expect(performance.now() - began).toBeGreaterThan(12_000);
  expect(performance.now() - began).toBeLessThan(20_000);
  expect(service.lines.at(-1)).toContain('"message":"stopped"');
  socket.destroy();
});

test.each<NodeJS.Signals>(["SIGINT", "SIGHUP", "SIGQUIT"])("%s stops it as SIGTERM does", async (signal) => {
  const service = await spawnService();
  expect(await service.stop(signal)).toBe(0);
  expect(service.lines.at(-1)).toContain('"message":"stopped"');
});

test("after SIGTERM it takes no new connection for long", async () => {
  const service = await spawnService();
  service.child.kill("SIGTERM");
  await logged(service.lines, "stopping");
  await Bun.sleep(2500);
  await expect(fetch(`${service.url}/health`)).rejects.toThrow();
  expect(await service.child.exited).toBe(0);
});

test.each([
  [' it"}', 201],
  [" it", 400],
])("a request that SIGTERM meets half-way is answered, on a connection that closes (%s: %d)", async (rest, status) => {
  const service = await spawnService();
  const user = await service.newcomer();
  const begun = Promise.withResolvers<void>();
  const answer = fetch(user.path(), {
    method: "POST",
    headers: { authorization: `Bearer ${user.token}`, "content-type": "application/json" },
    body: new ReadableStream({
      async start(body) {
        body.enqueue(new TextEncoder().encode('{"title":"Half of'));
        await Bun.sleep(300);
        begun.resolve();
        await Bun.sleep(1000);
        body.enqueue(new TextEncoder().encode(rest));
        body.close();
      },
    }),
  });
  await begun.promise;
  service.child.kill("SIGTERM");
  expect((await answer).status).toBe(status);
  expect((await answer).headers.get("connection")).toBe("close");
  expect(await service.child.exited).toBe(0);
});

test("a read that is under way at SIGTERM is answered, on a connection that closes", async () => {
  const asked = Promise.withResolvers<void>();
  const answered = Promise.withResolvers<never>();
  const db = outOfReach(() => {
    asked.resolve();
    return answered.promise;
  });
  const app = listening({ db });
  const answer = (await app.newcomer()).get("/1");
  await asked.promise;
  // As serve.ts does at the signal.
  app.store.stopping = true;
  answered.resolve([] as never);
  const { status, headers } = await answer;
  expect([status, headers.get("connection")]).toEqual([404, "close"]);
  await app.stop();
});

test("fifty writes that SIGTERM meets are all answered and all kept, in a database that is shut down", async () => {
  const directory = mkdtempSync(join(tmpdir(), "tasks-"));
  const settings = { DATABASE_URL: `pglite://${directory}` };
  const first = await spawnService(settings);
  const user = await first.newcomer();
  const writes = Array.from({ length: 50 }, (_, n) => user.post({ title: `Task ${n}` }));
  await Promise.race(writes);
  first.child.kill("SIGTERM");
  const answers = await Promise.all(writes);
  expect(answers.map(({ status }) => status)).toEqual(Array(50).fill(201));
  const acknowledged = await Promise.all(answers.map(async (answer) => (await answer.json()) as Task));
  expect(await first.child.exited).toBe(0);
  // PostgreSQL's own word for its state: 1 is "shut down", 6 is what has to be recovered at the next start.
  expect(readFileSync(join(directory, "postgres/global/pg_control")).readUInt32LE(16)).toBe(1);

  const second = await spawnService(settings);
  const kept = await (await second.newcomer(user.id)).get();
  expect(await kept.json()).toEqual(acknowledged.toSorted((a, b) => b.id - a.id));
  await second.stop();
  rmSync(directory, { recursive: true });
});

test("a second signal ends it at once, and the log has all that came before", async () => {
  const service = await spawnService();
  service.child.kill("SIGTERM");
  while ((await fetch(`${service.url}/health/ready`)).status !== 503) await Bun.sleep(1);
  service.child.kill("SIGTERM");
  expect(await service.child.exited).toBe(1);
  await logged(service.lines, "stopping");
});

type Service = Awaited<ReturnType<typeof spawnService>>;

/** A connection of its own, on which this much has been sent. */
async function connection(service: Service, sent: string) {
  const port = Number(new URL(service.url).port);
  const socket = await Bun.connect({ hostname: "localhost", port, socket: { data() {} } });
  socket.write(sent);
}

/** Waits for a line of the log. */
async function logged(lines: string[], message: string) {
  while (!lines.some((line) => line.includes(`"message":"${message}`))) await Bun.sleep(10);
}
