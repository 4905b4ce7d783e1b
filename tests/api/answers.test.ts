import { describe, expect, test } from "bun:test";
import { STATUS_CODES } from "node:http";
import { connect } from "node:net";
import { OutcomeUnknown, Overloaded, TooManyWaiting } from "../../src/db/errors.ts";
import { createLogger } from "../../src/log.ts";
import { listening, outOfReach, service, User } from "../harness.ts";

/** The real app on a database that fails in this way, and last answered then. */
function appWhoseDatabase(fails: () => unknown, lastAnswer = () => 0) {
  const db = { ...outOfReach(async () => fails() as never), lastAnswer };
  const lines: string[] = [];
  const log = Object.assign(createLogger("ERROR", false), {
    error: (fields: object, message: string) => lines.push(JSON.stringify({ ...fields, message })),
  });
  return { ...listening({ db, log }), lines };
}

async function failing(error: unknown) {
  const app = appWhoseDatabase(() => Promise.reject(error));
  const user = await service.newcomer();
  const there = new User(app.url, user.id, user.token);
  const answers = [
    await there.post({ title: "a secret title" }),
    await there.get("?search=secret"),
    await there.complete(1),
  ];
  const text = await Promise.all(answers.map((answer) => answer.text()));
  await app.stop();
  return { answers, text, log: app.lines.join("\n") };
}

function expectEach(answers: Response[], status: number, retryAfter: string) {
  expect(answers.map(({ status, headers }) => [status, headers.get("retry-after")])).toEqual(
    answers.map(() => [status, retryAfter]),
  );
}

describe("a failure", () => {
  test.each<[string, string, number, RequestInit]>([
    ["an unknown path", "/nope", 404, {}],
    ["half a path", "/api/somebody", 404, {}],
    ["another method", "/health", 405, { method: "DELETE" }],
    ["no token", "/api/somebody/tasks", 401, {}],
  ])("of %s is a problem that can be shown", async (_, path, status, init) => {
    const answer = await fetch(service.url + path, init);
    expect(answer.status).toBe(status);
    expect(answer.headers.get("content-type")).toBe("application/json");
    expect(await answer.json()).toEqual({
      type: "about:blank",
      title: STATUS_CODES[status] ?? "",
      status,
      detail: expect.stringMatching(/^[A-Z].{10,}/),
      request_id: answer.headers.get("x-request-id"),
    });
  });

  const PROBLEM = "application/problem+json";
  const JSON_TYPE = "application/json";
  test.each([
    ["*/*", JSON_TYPE],
    ["application/*", JSON_TYPE],
    ["application/json", JSON_TYPE],
    ["text/html", JSON_TYPE],
    ["application/problem+xml, application/problem+jsonx", JSON_TYPE],
    ["x-application/problem+json", JSON_TYPE],
    ["application/problem+json;q=0", JSON_TYPE],
    ["application/json, application/problem+json; q=0.0", JSON_TYPE],
    [PROBLEM, PROBLEM],
    ["Application/Problem+JSON", PROBLEM],
    ["application/json, application/problem+json", PROBLEM],
    ["application/json,application/problem+json;charset=utf-8;q=0.1,*/*", PROBLEM],
  ])("for a request that accepts %s is %s, wherever it comes from", async (accept, type) => {
    const user = await service.newcomer();
    const headers = { accept };
    const answers = [
      await fetch(`${service.url}/nope`, { headers }),
      await fetch(`${service.url}/health`, { method: "PUT", headers }),
      await fetch(user.path(), { headers }),
      await new User(service.url, "another", user.token).get("", headers),
      await user.get("/1", headers),
      await user.get("?limit=x", headers),
      await user.post("{", headers),
      await user.post({}, headers),
      await user.post("x".repeat(70_000), headers),
      await user.post({ title: "x" }, { ...headers, "content-type": "text/plain" }),
      await user.put(1, {}, headers),
    ];
    expect(answers.map(({ status }) => status)).toEqual([404, 405, 401, 403, 404, 422, 400, 422, 413, 415, 422]);
    for (const answer of answers) {
      expect([answer.headers.get("content-type"), answer.headers.get("vary")]).toEqual([type, "Origin, Accept"]);
      const { status } = answer;
      expect(await answer.json()).toMatchObject({ status, title: STATUS_CODES[status] });
    }
    const task = await user.post({ title: "x" }, headers);
    expect([task.status, task.headers.get("content-type")]).toEqual([201, expect.stringMatching(/^application\/json/)]);
    expect(task.headers.get("vary")).toBe("Origin");
  });

  test.each([
    ["/api/x/tasks", "PUT", "GET, HEAD, POST, DELETE"],
    ["/api/x/tasks/", "PATCH", "GET, HEAD, POST, DELETE"],
    ["/api/x/tasks/1", "POST", "GET, HEAD, PUT, DELETE"],
    ["/api/x/tasks/1/complete", "GET", "PATCH"],
    ["/health/ready", "POST", "GET, HEAD"],
    ["/docs", "POST", "GET, HEAD"],
    ["/openapi.json", "PROPFIND", "GET, HEAD"],
  ])("of a method that %s does not take (%s) says which it does", async (path, method, allow) => {
    const answer = await fetch(service.url + path, { method });
    expect([answer.status, answer.headers.get("allow")]).toEqual([405, allow]);
  });

  test.each([
    ...[
      ...["ECONNREFUSED", "ECONNRESET", "ECONNABORTED", "EPIPE", "ETIMEDOUT", "EHOSTUNREACH", "EHOSTDOWN"],
      ...["ENETUNREACH", "ENETDOWN", "ENOTFOUND", "EAI_AGAIN"],
    ].map((code): [string, Error] => [code, Object.assign(new Error("secret"), { code })]),
    ["a cut connection", Object.assign(new Error("secret"), { code: "ERR_POSTGRES_CONNECTION_CLOSED" })],
    ["a statement time-out", Object.assign(new Error("secret"), { code: "57014" })],
    ["a shutdown", Object.assign(new Error("secret"), { code: "57P01" })],
    ["too many connections", Object.assign(new Error("secret"), { errno: "53300", code: "ERR_POSTGRES_SERVER_ERROR" })],
    ["Neon's socket", new ErrorEvent("error", { message: "secret" })],
    ["Neon's pool", new Error("timeout exceeded when trying to connect")],
  ])("of the database (%s) is 503, says when to retry, and is logged once", async (_, error) => {
    const { answers, text, log } = await failing(error);
    for (const answer of answers) {
      expect(answer.status).toBe(503);
      expect(Number(answer.headers.get("retry-after"))).toBeGreaterThan(0);
    }
    expect(text.join() + log).not.toMatch(/secret|insert into|select/);
    expect(log.split("\n").length).toBe(1);
  });

  test("of the database that may have come after the change says so, and not to come back", async () => {
    const { answers, text, log } = await failing(new OutcomeUnknown("", { cause: new Error("secret") }));
    for (const answer of answers) expect([answer.status, answer.headers.get("retry-after")]).toEqual([503, null]);
    for (const body of text)
      expect(JSON.parse(body)).toMatchObject({
        status: 503,
        detail: expect.stringMatching(/whether it was done/),
      });
    expect(log).not.toContain("secret");
  });

  test.each([
    ...["08006", "28P01", "3D000", "3F000", "25006", "40001", "40P01", "42501", "42703", "42P01"],
    ...["53100", "55P03", "57P03", "58030"],
  ])("of the database, in its own words or not (SQLSTATE %s), is 503 and says when to retry", async (code) => {
    const { answers } = await failing(Object.assign(new Error("secret"), { code }));
    expectEach(answers, 503, "5");
  });

  test("of the database is logged anew when its cause is another, though the code is the same", async () => {
    const privileges = ["permission denied for table tasks", "permission denied for schema public"];
    const left = [...privileges];
    const app = appWhoseDatabase(() =>
      Promise.reject(Object.assign(new Error(left.shift() ?? privileges[1]), { code: "42501" })),
    );
    const user = await service.newcomer();
    for (let n = 0; n < 4; n++) expect((await new User(app.url, user.id, user.token).get()).status).toBe(503);
    await app.stop();
    expect(app.lines.map((line) => JSON.parse(line).message)).toEqual(
      privileges.map((sentence) => `the database did not answer: ${sentence}`),
    );
  });

  test("for want of time is 503, and is not blamed on the database", async () => {
    const { answers, text, log } = await failing(new Overloaded());
    expectEach(answers, 503, "5");
    for (const body of text) expect(JSON.parse(body).detail).toMatch(/too much to do/);
    expect(log).toContain("more to do than can be done in time");
  });

  test("of a user who has too many lists waiting is 429, says when to come back, and is not in the log", async () => {
    const { answers, text, log } = await failing(new TooManyWaiting());
    expectEach(answers, 429, "1");
    for (const body of text) expect(JSON.parse(body).detail).toMatch(/of your requests are under way/);
    expect(log).toBe("");
  });

  test.each([
    ["a constraint", Object.assign(new Error("secret"), { code: "23505" })],
    ["a bug", new TypeError("secret is not a function")],
    ["a thrown string", "secret"],
  ])("of ours (%s) is 500, and tells the log but nobody else", async (_, error) => {
    const { answers, text, log } = await failing(error);
    expect(answers.map(({ status }) => status)).toEqual([500, 500, 500]);
    expect(text.join() + log).not.toMatch(/secret|insert into|select/);
    expect(log).toContain(answers[0]?.headers.get("x-request-id") ?? "missing");
  });

  test("of the database leaves 401, 403, 404, 405, 422 and the probe of life as they are", async () => {
    const app = appWhoseDatabase(() => Promise.reject(new Error("unreachable")));
    const user = await service.newcomer();
    const there = new User(app.url, user.id, user.token);
    const answers = [
      await new User(app.url, user.id, "x").get(),
      await new User(app.url, "other", user.token).get(),
      await fetch(`${app.url}/nope`),
      await there.send("PUT"),
      await there.post({}),
      await fetch(`${app.url}/health/live`),
      await fetch(`${app.url}/health/ready`),
    ];
    await app.stop();
    expect(answers.map(({ status }) => status)).toEqual([401, 403, 404, 405, 422, 200, 503]);
  });

  test("to answer a probe within a second is 503, whatever it answered before", async () => {
    const began = performance.now();
    const app = appWhoseDatabase(
      () => new Promise(() => {}),
      () => began,
    );
    expect((await fetch(`${app.url}/health/ready`)).status).toBe(503);
    // A second, and room for a busy machine.
    expect(performance.now() - began).toBeWithin(900, 2900);
    await app.stop();
  });
});

test("a probe whose turn does not come is 200, if others were answered while it waited", async () => {
  const app = appWhoseDatabase(
    () => new Promise(() => {}),
    () => performance.now(),
  );
  expect((await fetch(`${app.url}/health/ready`)).status).toBe(200);
  await app.stop();
});

test("a bug of ours leaves the places in the code in the log, and no message", async () => {
  const { log } = await failing(new TypeError("secret is not a function"));
  const { stack } = JSON.parse(log.split("\n")[0] ?? "");
  expect(stack[0]).toMatch(/^\s+at .*answers\.test\.ts:\d+/);
  expect(stack.join()).not.toContain("secret");
});

test("the docs page can't be framed, and takes nothing from elsewhere", async () => {
  const answer = await fetch(`${service.url}/docs`);
  const policy = (answer.headers.get("content-security-policy") ?? "").split("; ").map((part) => part.split(" "));
  expect(Object.fromEntries(policy.map(([directive, ...sources]) => [directive, sources.join(" ")]))).toEqual({
    "default-src": "'none'",
    "script-src": expect.stringMatching(/^'self' 'sha256-[\w+/=]+'$/),
    "style-src": "'self' 'unsafe-inline'",
    "img-src": "'self' data:",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
  });
});

describe("every answer", () => {
  test("has an id of its own, or the one it came with", async () => {
    const ids = await Promise.all(
      ["", "given-1._A", "x".repeat(65), "no spaces", 'inject"ion'].map(async (id) => {
        const answer = await fetch(`${service.url}/health`, { headers: id ? { "x-request-id": id } : {} });
        return answer.headers.get("x-request-id");
      }),
    );
    expect(ids[1]).toBe("given-1._A");
    for (const id of ids.toSpliced(1, 1)) expect(id).toMatch(/^[0-9a-f-]{36}$/);
  });

  test.each(["close", "Close", "TE, close", "close,TE"])(
    "says that it is the last on its connection, when asked with %s",
    async (word) => {
      const { hostname, port } = new URL(service.url);
      const socket = connect(Number(port), hostname);
      socket.write(`GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: ${word}\r\n\r\n`);
      expect(await new Response(socket as never).text()).toMatch(/\r\nconnection: close\r\n/i);
    },
  );

  describe("waits for the body: what comes after the answer could lose it", () => {
    const HALF = "x".repeat(100_000);
    const SIZED: [string, string] = [`Content-Length: ${2 * HALF.length}\r\n\r\n${HALF}`, HALF];
    const chunk = `${HALF.length.toString(16)}\r\n${HALF}\r\n`;
    const CHUNKED: [string, string] = [`Transfer-Encoding: chunked\r\n\r\n${chunk}`, `${chunk}0\r\n\r\n`];

    /** Sends a request up to the middle of its body, which is not answered yet. */
    async function half(line: string, [first]: [string, string]) {
      const [user, other] = [await service.newcomer(), await service.newcomer()];
      const { hostname, port } = new URL(service.url);
      const socket = connect(Number(port), hostname);
      const answer = new Response(socket as never).text();
      const path = line.replace("/mine", `/api/${user.id}/tasks`).replace("/other", `/api/${other.id}/tasks`);
      socket.write(`${path}\r\nHost: x\r\nConnection: TE, close\r\nAuthorization: Bearer ${user.token}\r\n${first}`);
      await Bun.sleep(100);
      expect(socket.bytesRead).toBe(0);
      return { socket, answer };
    }

    test.each([
      ["POST /mine HTTP/1.1", SIZED, 413],
      ["POST /mine HTTP/1.1", CHUNKED, 413],
      ["PUT /mine/1 HTTP/1.1", SIZED, 413],
      ["PATCH /mine/1/complete HTTP/1.1", CHUNKED, 413],
      ["DELETE /mine HTTP/1.1", SIZED, 422],
      ["DELETE /mine/1 HTTP/1.1", CHUNKED, 404],
      ["POST /other HTTP/1.1", SIZED, 403],
      ["POST /mine HTTP/1.0\r\nAuthorization: x", SIZED, 401],
      ["POST /health HTTP/1.1", SIZED, 405],
      ["POST /nope HTTP/1.1", CHUNKED, 404],
    ] as [string, [string, string], number][])("%s", async (line, body, status) => {
      const { socket, answer } = await half(line, body);
      socket.write(body[1]);
      expect(await answer).toStartWith(`HTTP/1.1 ${status} `);
    });

    test("but not for ever", async () => {
      const began = performance.now();
      expect(await (await half("POST /other HTTP/1.1", SIZED)).answer).toStartWith("HTTP/1.1 403 ");
      expect(performance.now() - began).toBeGreaterThan(4_900);
    }, 15_000);
  });

  test("is not to be stored or sniffed", async () => {
    const user = await service.newcomer();
    for (const answer of [await user.get("?limit=0"), await user.post({}), await fetch(`${service.url}/nope`)]) {
      expect(answer.headers.get("cache-control")).toBe("no-store");
      expect(answer.headers.get("x-content-type-options")).toBe("nosniff");
    }
  });
});
