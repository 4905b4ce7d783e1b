import { expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Task } from "../src/tasks/model.ts";
import { spawnService } from "./harness.ts";

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
}, 60_000);

test("after SIGTERM it takes no new connection for long", async () => {
  const service = await spawnService();
  service.child.kill("SIGTERM");
  await logged(service.lines, "stopping");
  await Bun.sleep(2500);
  await expect(fetch(`${service.url}/health`)).rejects.toThrow();
  expect(await service.child.exited).toBe(0);
}, 60_000);

test("a request that SIGTERM meets half-way is answered, on a connection that closes", async () => {
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
        await Bun.sleep(3000);
        body.enqueue(new TextEncoder().encode(' it"}'));
        body.close();
      },
    }),
  });
  await begun.promise;
  service.child.kill("SIGTERM");
  expect((await answer).status).toBe(201);
  expect((await answer).headers.get("connection")).toBe("close");
  expect(await service.child.exited).toBe(0);
}, 60_000);

test("fifty writes that SIGTERM meets are all answered and all kept", async () => {
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

  const second = await spawnService(settings);
  const kept = await (await second.newcomer(user.id)).get();
  expect(await kept.json()).toEqual(acknowledged.toSorted((a, b) => b.id - a.id));
  await second.stop();
  rmSync(directory, { recursive: true });
}, 60_000);

test("a second signal ends it at once", async () => {
  const service = await spawnService();
  service.child.kill("SIGTERM");
  await logged(service.lines, "stopping");
  service.child.kill("SIGTERM");
  expect(await service.child.exited).toBe(1);
}, 60_000);

/** Waits for a line of the log. */
async function logged(lines: string[], message: string) {
  while (!lines.some((line) => line.includes(`"message":"${message}`))) await Bun.sleep(10);
}
