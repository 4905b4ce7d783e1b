import { afterEach, describe, expect, jest, setDefaultTimeout, test } from "bun:test";
import { connect, type Socket } from "node:net";
import { Elysia } from "elysia";
import { limits } from "../../src/http/limits.ts";
import { service, spawnService, start, type User } from "../harness.ts";

setDefaultTimeout(60_000);

afterEach(() => {
  jest.useRealTimers();
});

type Service = Awaited<ReturnType<typeof spawnService>>;

/** The status of an answer, once it has been read. */
async function statusOf(answering: Promise<Response>): Promise<number> {
  const answer = await answering;
  await answer.arrayBuffer();
  return answer.status;
}

const headersOf = ({ headers }: Response) => [
  headers.get("ratelimit-policy"),
  headers.get("ratelimit"),
  headers.get("retry-after"),
];

// The clock is this process's, so the service must be in it.
describe.skipIf(process.env.TEST_COMMAND !== undefined)("a user who asks too often", () => {
  /** A service whose clock stands still. */
  async function limitedTo(rate: string) {
    jest.useFakeTimers();
    const limited = await start({ RATE_LIMIT: rate });
    return { user: await limited.newcomer(), other: await limited.newcomer(), stop: limited.stop };
  }

  test("may send ten seconds' worth at once, and then as many as the time brings", async () => {
    const { user, stop } = await limitedTo("50/s");
    const statuses = await Promise.all(Array.from({ length: 510 }, () => statusOf(user.get("?limit=1"))));
    expect(statuses.filter((status) => status === 200)).toHaveLength(500);
    expect(statuses.filter((status) => status === 429)).toHaveLength(10);
    jest.advanceTimersByTime(39);
    expect([await statusOf(user.get()), await statusOf(user.get())]).toEqual([200, 429]);
    jest.advanceTimersByTime(60_000);
    const rested = await Promise.all(Array.from({ length: 501 }, () => statusOf(user.get("?limit=1"))));
    expect(rested.filter((status) => status === 200)).toHaveLength(500);
    await stop();
  });

  test("is told what is left, and when to come back, in a problem", async () => {
    const { user, stop } = await limitedTo("1/s");
    expect(headersOf(await user.get())).toEqual(['"default";q=10;w=10', '"default";r=9;t=1', null]);
    for (let n = 0; n < 8; n++) await user.get();
    expect(headersOf(await user.get())).toEqual(['"default";q=10;w=10', '"default";r=0;t=10', null]);
    const refused = await user.get();
    expect(headersOf(refused)).toEqual(['"default";q=10;w=10', '"default";r=0;t=10', "1"]);
    expect(await refused.json()).toMatchObject({ status: 429, title: "Too Many Requests" });
    jest.advanceTimersByTime(1_000);
    expect((await user.get()).status).toBe(200);
    await stop();
  });

  test("is nobody else's concern, and what others send in their name doesn't count", async () => {
    const { user, other, stop } = await limitedTo("1/s");
    const pretending = { authorization: `Bearer ${other.token}` };
    for (let n = 0; n < 20; n++) {
      expect((await fetch(user.path())).status).toBe(401);
      expect((await fetch(user.path(), { headers: pretending })).status).toBe(403);
    }
    for (let n = 0; n < 10; n++) expect((await user.get()).status).toBe(200);
    expect((await user.get()).status).toBe(429);
    expect((await fetch(user.path())).status).toBe(401);
    expect((await fetch(user.path(), { method: "OPTIONS" })).status).toBe(204);
    expect((await fetch(`${user.url}/health/ready`)).status).toBe(200);
    expect((await other.get()).status).toBe(200);
    await stop();
  });

  test("is not forgotten for those who ask in between, however long the service has run", async () => {
    const { user, other, stop } = await limitedTo("1/s");
    jest.advanceTimersByTime(60_000);
    for (let n = 0; n < 10; n++) expect((await user.get()).status).toBe(200);
    for (let n = 0; n < 5; n++) expect((await other.get()).status).toBe(200);
    expect((await user.get()).status).toBe(429);
    await stop();
  });

  test("is not refused with RATE_LIMIT=0, nor told of a limit", async () => {
    const { user, stop } = await limitedTo("0");
    const answers = await Promise.all(Array.from({ length: 50 }, () => user.get()));
    expect(answers.map(({ status }) => status)).toEqual(Array(50).fill(200));
    expect(headersOf(answers[0] as Response)).toEqual([null, null, null]);
    await stop();
  });
});

test("a user is forgotten when 100,000 others come within ten seconds, since memory has an end", async () => {
  const app = new Elysia()
    .derive(({ headers }) => ({ userId: headers.from }))
    // One request in ten seconds.
    .use(limits(0.1, () => true))
    .get("/", "");
  const ask = async (from: string) => {
    const { status } = await app.handle(new Request("http://localhost/", { headers: { from } }));
    return status;
  };
  expect([await ask("ada"), await ask("ada")]).toEqual([200, 429]);
  for (let round = 0; round < 20; round++) {
    for (let n = 0; n < 5_000; n++) await ask(`${round} ${n}`);
    // They are under way until the event loop turns, and 8,192 may be.
    await Bun.sleep(0);
  }
  expect(await ask("ada")).toBe(200);
});

/** So many requests of a user whose body is on its way, and stays there until they are cut. */
async function unfinished(url: string, user: User, count: number): Promise<Socket[]> {
  const request = [
    `POST ${user.path().slice(url.length)} HTTP/1.1`,
    "Host: localhost",
    `Authorization: Bearer ${user.token}`,
    "Content-Length: 500",
    "",
    "{",
  ].join("\r\n");
  return Promise.all(
    Array.from({ length: count }, () => {
      const { promise, resolve, reject } = Promise.withResolvers<Socket>();
      const socket = connect(Number(new URL(url).port), new URL(url).hostname)
        .on("error", reject)
        .on("connect", () => socket.write(request, () => resolve(socket)));
      return promise;
    }),
  );
}

/** Asks until the answer has this status. */
async function until(status: number, ask: () => Promise<Response>): Promise<Response> {
  for (;;) {
    const answer = await ask();
    await answer.arrayBuffer();
    if (answer.status === status) return answer;
    await Bun.sleep(20);
  }
}

describe("what is under way", () => {
  test("is at most 256 requests of a user; others notice nothing, and those who hang up leave room", async () => {
    // A process of its own: in this one, what other tests have left unread holds connections.
    const busy: Service = await spawnService();
    const [user, other] = [await busy.newcomer(), await busy.newcomer()];
    // Some more than there may be: those are refused themselves.
    const sockets = await unfinished(busy.url, user, 270);
    const refused = await until(429, () => user.get());
    expect(refused.headers.get("retry-after")).toBe("1");
    expect(await statusOf(other.get())).toBe(200);
    for (const socket of sockets) socket.destroy();
    await until(200, () => user.get());
    const again = await unfinished(busy.url, user, 200);
    for (let n = 0; n < 10; n++) expect(await statusOf(user.get())).toBe(200);
    for (const socket of again) socket.destroy();
    await busy.stop();
  });

  test.skipIf(process.env.TEST_COMMAND !== undefined)("counts however long it takes", async () => {
    jest.useFakeTimers();
    const busy = await start();
    const [user, other] = [await busy.newcomer(), await busy.newcomer()];
    const sockets = await unfinished(busy.url, user, 270);
    // Nothing sleeps while the clock stands still.
    while ((await statusOf(user.get())) !== 429);
    for (let n = 0; n < 2; n++) {
      jest.advanceTimersByTime(11_000);
      expect(await statusOf(other.get())).toBe(200);
    }
    expect(await statusOf(user.get())).toBe(429);
    for (const socket of sockets) socket.destroy();
    jest.useRealTimers();
    await busy.stop();
  });

  test("is left by every kind of answer", async () => {
    const user = await service.newcomer();
    for (let n = 0; n < 260; n++) {
      const { id } = await user.task();
      await Promise.all(
        [
          user.get(),
          user.get("/abc"),
          user.get("/999999999"),
          user.get("?limit=x"),
          user.post("{"),
          user.post({}),
          user.post("x".repeat(70_000)),
          user.send("POST", "", "x", { "content-type": "text/plain" }),
          user.send("HEAD", ""),
          user.delete(id),
        ].map(statusOf),
      );
    }
    expect((await user.get()).status).toBe(200);
  });

  test("is at most 8,192 requests in all: the next is refused within a moment, and probes are not", async () => {
    const busy: Service = await spawnService();
    const sockets: Socket[] = [];
    for (let n = 0; n < 34; n++) sockets.push(...(await unfinished(busy.url, await busy.newcomer(), 250)));
    const user = await busy.newcomer();
    const refused = await until(503, () => user.get());
    expect(refused.headers.get("retry-after")).toBe("5");
    const began = performance.now();
    expect(await statusOf(user.get())).toBe(503);
    expect(await statusOf(fetch(user.path()))).toBe(401);
    expect(await statusOf(fetch(`${busy.url}/health/ready`))).toBe(200);
    expect(performance.now() - began).toBeLessThan(5_000);
    for (const socket of sockets) socket.destroy();
    await until(200, () => user.get());
    await busy.stop();
  });
});

test("until the schema is there, who has passed 401 and 403 is asked to come back", async () => {
  const starting = await spawnService({ DATABASE_URL: "postgres://nobody@127.0.0.1:1/none" }, "listening");
  const user = await starting.newcomer();
  const other = await starting.newcomer();
  expect((await fetch(user.path())).status).toBe(401);
  expect((await other.get(`/../../${user.id}/tasks`)).status).toBe(403);
  for (const answer of [await user.get(), await user.post("{"), await user.get("/abc")])
    expect([answer.status, answer.headers.get("retry-after")]).toEqual([503, "5"]);
  await starting.stop();
});
