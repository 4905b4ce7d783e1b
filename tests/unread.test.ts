import { expect, setDefaultTimeout, test } from "bun:test";
import { connect } from "node:net";
import { spawnService } from "./harness.ts";

setDefaultTimeout(180_000);

/** Asks until the answer has this status. */
async function until(status: number, ask: () => Promise<Response>): Promise<Response> {
  for (;;) {
    const answer = await ask();
    if (answer.status === status) return answer;
    await answer.arrayBuffer();
    await Bun.sleep(20);
  }
}

test("who leaves long answers unread gets no more of them; short ones, and others, go on", async () => {
  const service = await spawnService();
  const user = await service.newcomer();
  const other = await service.newcomer();
  // Six bytes each in JSON.
  const task = { title: "x", description: "\u0001".repeat(1_000) };
  for (let round = 0; round < 20; round++)
    await Promise.all(Array.from({ length: 50 }, () => user.task(task)));
  const whole = () => user.get("", { "accept-encoding": "identity" });
  const before = await (await whole()).text();
  const { hostname, port } = new URL(service.url);
  const readers = Array.from({ length: 4 }, () => connect(Number(port), hostname).pause());
  for (const reader of readers)
    reader.write(
      `GET ${user.path().slice(service.url.length)} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${user.token}\r\n\r\n`,
    );
  const refused = await until(429, whole);
  expect(refused.headers.get("retry-after")).toBe("5");
  expect(await refused.json()).toMatchObject({ status: 429, detail: expect.stringContaining("unread") });
  expect((await user.get("?limit=1")).status).toBe(200);
  expect((await other.get()).status).toBe(200);
  for (const reader of readers) reader.destroy();
  expect(await (await until(200, whole)).text()).toBe(before);
  // A client that hangs up, or asks for the head alone, leaves nothing behind.
  for (let n = 0; n < 5; n++) await user.send("HEAD", "", undefined, { "accept-encoding": "identity" });
  for (let n = 0; n < 5; n++) {
    const hangUp = new AbortController();
    const answer = await fetch(user.path(), {
      headers: { authorization: `Bearer ${user.token}`, "accept-encoding": "identity" },
      signal: hangUp.signal,
    });
    expect(answer.status).toBe(200);
    hangUp.abort();
    await Bun.sleep(50);
  }
  expect((await whole()).status).toBe(200);
  await service.stop();
});
