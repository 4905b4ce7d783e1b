import { afterAll, beforeAll, describe, expect, jest, setDefaultTimeout, test } from "bun:test";
import { SQL } from "bun";
import { hasServer } from "../database.ts";
import { service as here, lateBody, spawnService, type User } from "../harness.ts";

setDefaultTimeout(60_000);

let service: Awaited<ReturnType<typeof spawnService>>;
beforeAll(async () => {
  service = await spawnService();
});
afterAll(async () => {
  await service.stop();
});

/** Sends these lines over a connection of its own, and hangs up after a while. */
async function sendAndHangUp(lines: string[], after = 200) {
  const { port } = new URL(service.url);
  const socket = await Bun.connect({ hostname: "localhost", port: Number(port), socket: { data() {} } });
  socket.write(lines.join("\r\n"));
  await Bun.sleep(after);
  socket.terminate();
}

const head = (user: User, request: string, id: string, ...more: string[]) => [
  `${request} HTTP/1.1`,
  "Host: localhost",
  `Authorization: Bearer ${user.token}`,
  `X-Request-Id: ${id}`,
  ...more,
  "",
  "",
];

/** The line of the log of the request with this id, once it is there. */
async function lineOf(id: string): Promise<Record<string, unknown>> {
  for (;;) {
    const line = service.lines.find((line) => line.includes(`"request_id":"${id}"`));
    if (line !== undefined) return JSON.parse(line);
    await Bun.sleep(20);
  }
}

describe("a client that hangs up", () => {
  test.each([
    ["Content-Length: 500", "0123456789"],
    ["Transfer-Encoding: chunked", '10\r\n{"title":"Half"}\r\n'],
  ])("in the middle of its body (%s) is logged as 499, not as an error, and creates nothing", async (framing, part) => {
    const user = await service.newcomer();
    const id = crypto.randomUUID();
    const request = head(user, `POST ${new URL(user.path()).pathname}`, id, "Content-Type: application/json", framing);
    await sendAndHangUp([...request.slice(0, -1), part]);
    expect(await lineOf(id)).toMatchObject({ level: "INFO", status: 499, user_id: user.id });
    expect(service.lines.filter((line) => line.includes('"level":"ERROR"'))).toEqual([]);
    expect(await (await user.get()).json()).toEqual([]);
  });

  test.skipIf(!hasServer)("while the database is at work is logged as 499, not as an error", async () => {
    const user = await service.newcomer();
    const id = crypto.randomUUID();
    const { database } = service.config;
    await using admin = new SQL({ url: "url" in database ? database.url : "", max: 1 });
    await admin.begin(async (transaction) => {
      await transaction`lock table tasks in access exclusive mode`;
      await sendAndHangUp(head(user, `GET ${new URL(user.path()).pathname}`, id));
    });
    expect(await lineOf(id)).toMatchObject({ level: "INFO", status: 499, user_id: user.id });
    expect(service.lines.filter((line) => line.includes('"level":"ERROR"'))).toEqual([]);
  });

  test("once it has its answer has been served", async () => {
    const user = await service.newcomer();
    const id = crypto.randomUUID();
    await sendAndHangUp(head(user, `GET ${new URL(user.path()).pathname}`, id), 500);
    expect(await lineOf(id)).toMatchObject({ status: 200 });
  });
});

// The clock is this process's, so the service must be in it.
test.skipIf(process.env.TEST_COMMAND !== undefined)(
  "a body that takes more than 30 s to arrive is answered 408, on a connection that closes",
  async () => {
    const user = await here.newcomer();
    jest.useFakeTimers();
    const answer = fetch(user.path(), {
      method: "POST",
      headers: { authorization: `Bearer ${user.token}`, "content-type": "application/json" },
      body: new ReadableStream({ start: (body) => body.enqueue(new TextEncoder().encode('{"title":')) }),
    });
    // By the time this is answered, so has the body begun.
    for (let n = 0; n < 20; n++) await user.get();
    jest.advanceTimersByTime(29_000);
    expect(Bun.peek.status(answer)).toBe("pending");
    jest.advanceTimersByTime(1_000);
    jest.useRealTimers();
    const { status, headers } = await answer;
    expect([status, headers.get("connection")]).toEqual([408, "close"]);
    expect(headers.get("content-type")).toContain("json");
  },
);

test("a request's line says how many milliseconds it took, from its head to its answer", async () => {
  const user = await service.newcomer();
  const id = crypto.randomUUID();
  const began = performance.now();
  const answer = await fetch(user.path(), {
    method: "POST",
    headers: { authorization: `Bearer ${user.token}`, "content-type": "application/json", "x-request-id": id },
    body: lateBody('{"title":', '"late"}'),
  });
  const took = performance.now() - began;
  expect(answer.status).toBe(201);
  expect((await lineOf(id)).duration_ms).toBeWithin(250, took + 1);
});

describe("a trace", () => {
  const trace = "4bf92f3577b34da6a3ce929d0e0e4736";
  const parent = "00f067aa0ba902b7";

  test.each([`00-${trace}-${parent}-01`, `cc-${trace}-${parent}-01`, `cc-${trace}-${parent}-01-more`])(
    "that a request is part of is named in its line: %s",
    async (traceparent) => {
      const id = crypto.randomUUID();
      await fetch(`${service.url}/health`, { headers: { traceparent, "x-request-id": id } });
      expect(await lineOf(id)).toMatchObject({ trace_id: trace });
    },
  );

  test.each([
    `ff-${trace}-${parent}-01`,
    `00-${trace}-${parent}-01-more`,
    `cc-${trace}-${parent}-01.more`,
    `00-${"0".repeat(32)}-${parent}-01`,
    `00-${trace}-${"0".repeat(16)}-01`,
    `00-${trace.toUpperCase()}-${parent}-01`,
    `00-${trace}-${parent}`,
    "x",
  ])("that is malformed is left out: %s", async (traceparent) => {
    const id = crypto.randomUUID();
    await fetch(`${service.url}/health`, { headers: { traceparent, "x-request-id": id } });
    expect(await lineOf(id)).not.toHaveProperty("trace_id");
  });
});
