import { describe, expect, test } from "bun:test";
import { connect } from "node:net";
import fc from "fast-check";
import type { Violation } from "../../src/http/problem.ts";
import { service } from "../harness.ts";

interface Problem {
  detail: string;
  errors: Violation[];
}

/** Sends bytes as they are: what `fetch` would mend or refuse. */
const raw = (request: string) =>
  new Promise<string>((resolve, reject) => {
    const socket = connect(Number(new URL(service.url).port), "127.0.0.1", () => socket.write(request));
    let answer = "";
    socket.on("data", (data) => {
      answer += data;
    });
    socket.on("close", () => resolve(answer)).on("error", reject);
  });

const not = (type: string, ...values: unknown[]) => values.map((value) => [value, type] as const);
const TITLES = [
  ...not("string_type", null, 5, true, ["x"], { x: 1 }),
  ...not("string_too_short", "", " ", "\t\r\n", "\u00a0\u2003\u0085\u001c"),
  ...not("string_too_long", "x".repeat(201), "😀".repeat(201), "用".repeat(5000)),
  ...not("string_unicode", "a\0b", "\ud800", "x\udc00y"),
];
const DESCRIPTIONS = [
  ...not("string_type", 5, false, [], {}),
  ...not("string_too_long", "x".repeat(1001), "👍".repeat(1001)),
  ...not("string_unicode", "\0", "\udfff"),
];
const BOOLEANS = not("bool_type", null, "true", "false", 0, 1, "", [], {});
const fields = (field: string, values: readonly (readonly [unknown, string])[]) =>
  values.map(([value, type]) => [field, value, type] as [string, unknown, string]);

describe("a value that is wrong is named and not echoed", () => {
  test.each([...fields("title", TITLES), ...fields("description", DESCRIPTIONS), ...fields("completed", BOOLEANS)])(
    "%s: %j on POST and PUT",
    async (field, value, type) => {
      const user = await service.newcomer();
      const { id } = await user.task();
      for (const answer of [
        await user.post({ title: "x", [field]: value }),
        await user.put(id, { title: "x", [field]: value }),
      ]) {
        expect(answer.status).toBe(422);
        const { errors } = (await answer.json()) as Problem;
        expect(errors).toEqual([{ loc: ["body", field], msg: expect.any(String), type }]);
      }
    },
  );

  test.each(BOOLEANS)("completed: %j on PATCH", async (completed) => {
    const user = await service.newcomer();
    const { id } = await user.task();
    const answer = await user.complete(id, { completed });
    expect(answer.status).toBe(422);
    expect(await answer.json()).toMatchObject({
      errors: [{ loc: ["body", "completed"], type: "bool_type" }],
    });
  });

  test.each(["[]", '"x"', "5", "true", "[{}]"])("a body that is %s", async (body) => {
    const user = await service.newcomer();
    const { id } = await user.task();
    for (const answer of [await user.post(body), await user.put(id, body), await user.complete(id, body)]) {
      expect(answer.status).toBe(422);
      expect(await answer.json()).toMatchObject({ errors: [{ loc: ["body"] }] });
    }
  });

  test("a body that is null, where there must be one", async () => {
    const user = await service.newcomer();
    for (const answer of [await user.post("null"), await user.put(1, "null")])
      expect([answer.status, await answer.json()]).toMatchObject([422, { errors: [{ loc: ["body"] }] }]);
  });

  test.each(["{}", '{"priority":1}', '{"id":1,"user_id":"x","created_at":"now"}'])(
    "a PUT of nothing to change: %s",
    async (body) => {
      const user = await service.newcomer();
      const answer = await user.put((await user.task()).id, body);
      expect(answer.status).toBe(422);
      expect(((await answer.json()) as Problem).detail).toContain("at least one of title");
    },
  );

  test.each<[detail: string, method: string, rest: string, body?: unknown]>([
    ["title: String should have at least 1 character", "POST", "", { title: " " }],
    ["title: String should have at most 200 characters", "POST", "", { title: "x".repeat(201) }],
    [
      "title: Input should be a valid string; description: Input should be a valid string",
      "POST",
      "",
      { title: 5, description: [] },
    ],
    ["title: String should hold no NUL and no lone surrogate", "POST", "", { title: "a\0b" }],
    ["completed: Input should be true or false", "POST", "", { title: "x", completed: 1 }],
    ["body: Input should be a JSON object", "POST", "", []],
    ["body: Give at least one of title, description and completed", "PUT", "/1", {}],
    ["id: Input should be a valid integer; title: String should have at least 1 character", "PUT", "/x", { title: "" }],
    ["id: Input should be greater than or equal to 1", "GET", "/0"],
    ["id: Input should be less than or equal to 9007199254740991", "GET", "/9007199254740992"],
    [
      "order: Input should be one of: asc, desc; limit: Input should be less than or equal to 1000",
      "GET",
      "?limit=1001&order=up",
    ],
    ["status: Input should be one of: all, pending, completed", "GET", "?status=x"],
    ["cursor: Take the cursor from the Link header of a list with the same sort and order", "GET", "?cursor=x"],
    ["completed: Says otherwise than status: give one of the two", "GET", "?completed=true&status=all"],
    ["status: Field required", "DELETE", ""],
    ["status: Give it once: completed or all", "DELETE", "?status=all&status=all"],
  ])("in words for a person: %s", async (...[detail, method, rest, body]) => {
    const answer = await (await service.newcomer()).send(method, rest, body);
    expect([answer.status, ((await answer.json()) as Problem).detail]).toEqual([422, detail]);
  });

  test("a title that is not there", async () => {
    const answer = await (await service.newcomer()).post({ description: "x" });
    expect(await answer.json()).toMatchObject({
      detail: "title: Field required",
      errors: [{ loc: ["body", "title"], msg: "Field required", type: "missing" }],
    });
  });

  test.each([
    "0",
    "-1",
    "+1",
    "1.0",
    "1e3",
    "0x10",
    "%201",
    "1%20",
    "01",
    "abc",
    "1;",
    "%00",
    "𝟏",
    "9007199254740992",
    "9".repeat(40),
  ])("the id %s, in every operation", async (id) => {
    const user = await service.newcomer();
    const answers = [
      await user.get(`/${id}`),
      await user.put(id, { title: "x" }),
      await user.delete(id),
      await user.complete(id),
    ];
    for (const answer of answers) {
      expect(answer.status).toBe(422);
      expect(await answer.json()).toMatchObject({ errors: [{ loc: ["path", "id"] }] });
    }
  });

  test.each([
    ["GET", "?status=marker"],
    ["GET", "?sort=marker&order=marker"],
    ["GET", "?limit=marker"],
    ["GET", "?completed=marker&offset=marker&skip=marker"],
    ["GET", "?cursor=marker"],
    ["GET", `?search=${"marker".repeat(50)}`],
    ["GET", "?search=marker%00"],
    ["GET", "/marker"],
    ["DELETE", "/marker"],
    ["PUT", "/marker"],
    ["PATCH", "/marker/complete"],
  ])("a URL's: %s %s", async (method, rest) => {
    const user = await service.newcomer();
    const answer = await user.send(method, rest, method === "PUT" ? { title: "x" } : undefined);
    expect(answer.status).toBe(422);
    expect(await answer.text()).not.toContain("marker");
    expect(JSON.stringify([...answer.headers])).not.toContain("marker");
  });

  test("the largest id there can be is merely not found", async () => {
    const user = await service.newcomer();
    expect((await user.get(`/${Number.MAX_SAFE_INTEGER}`)).status).toBe(404);
  });

  test("everything at once, in the path and in the body", async () => {
    const user = await service.newcomer();
    const answer = await user.put("abc", { title: "", description: 5, completed: "marker" });
    const text = await answer.text();
    expect((JSON.parse(text) as Problem).errors.map(({ loc }) => loc.join("."))).toEqual([
      "path.id",
      "body.title",
      "body.description",
      "body.completed",
    ]);
    expect(text).not.toContain("marker");
  });
});

describe("a body", () => {
  const padded = (bytes: number) => JSON.stringify({ title: "x" }).padEnd(bytes);
  const stream = (text: string) =>
    new ReadableStream({
      start(controller) {
        controller.enqueue(new TextEncoder().encode(text));
        controller.close();
      },
    });
  const create = async (body: string | Buffer | ReadableStream, headers: Record<string, string> = {}) => {
    const user = await service.newcomer();
    const authorization = `Bearer ${user.token}`;
    return (await fetch(user.path(), { method: "POST", body, headers: { authorization, ...headers } })).status;
  };
  const json = { "content-type": "application/json" };

  test.each([
    [65_536, 201],
    [65_537, 413],
    [1_000_000, 413],
  ])("of %d bytes is %d, announced or not", async (bytes, status) => {
    expect(await create(padded(bytes), json)).toBe(status);
    expect(await create(stream(padded(bytes)), json)).toBe(status);
  });

  test.each([
    ["application/json", 201],
    ["Application/JSON; charset=utf-8", 201],
    ["application/json;charset=UTF-8", 201],
    ["application/json ; x=y", 201],
    ["application/merge-patch+json", 201],
    ["application/jsonp", 415],
    ["text/json", 415],
    ["text/plain", 415],
    ["application/x-www-form-urlencoded", 415],
    ["multipart/form-data; boundary=x", 415],
    ["application/octet-stream", 415],
    ["json", 415],
  ])("that says it is %s is %d", async (type, status) => {
    expect(await create('{"title":"x"}', { "content-type": type })).toBe(status);
  });

  test("that doesn't say what it is, is 415", async () => {
    expect(await create(Buffer.from('{"title":"x"}'))).toBe(415);
  });

  test.each([
    ["gzip", 415],
    ["br", 415],
    ["identity", 201],
  ])("encoded as %s is %d", async (encoding, status) => {
    expect(await create('{"title":"x"}', { ...json, "content-encoding": encoding })).toBe(status);
  });

  test.each(["{", "", " ", "{title:'x'}", '{"title":"x"', '{"title":"x"}}', "title=x", "NaN", "[".repeat(50_000)])(
    "of %j is 400",
    async (body) => expect(await create(body, json)).toBe(400),
  );

  test.each([[[0xff]], [[0xc3, 0x28]], [[0xed, 0xa0, 0x80]], [[0xf8, 0x88, 0x80, 0x80, 0x80]]])(
    "with the bytes %j in its text is 400",
    async (bytes) => {
      const body = Buffer.concat([Buffer.from('{"title":"'), Buffer.from(bytes), Buffer.from('"}')]);
      expect(await create(body, json)).toBe(400);
    },
  );

  test("that repeats a key, or names a prototype, harms nothing", async () => {
    expect(await create('{"title":1,"title":"last wins","__proto__":{"x":1},"constructor":{}}', json)).toBe(201);
    expect("x" in {}).toBe(false);
  });
});

describe("a body that may be left out", () => {
  const form = { "content-type": "application/x-www-form-urlencoded" };
  const json = { "content-type": "application/json" };

  test.each([
    ["none", undefined, {}],
    ["none that says it is JSON", undefined, json],
    ["an empty form", "", form],
    ["an empty text", "", { "content-type": "text/plain;charset=UTF-8" }],
    ["an empty upload", "", { "content-type": "multipart/form-data; boundary=x" }],
    ["an empty something", "", { "content-type": "?" }],
    ["nothing, compressed", "", { ...json, "content-encoding": "gzip" }],
    ["{}", "{}", json],
    ["null", "null", json],
    ["null with white space", " null\n", json],
    ["what isn't known", '{"priority":1}', json],
  ])("%s toggles", async (_, body, headers) => {
    const user = await service.newcomer();
    const { id } = await user.task();
    const answers = [
      await user.send("PATCH", `/${id}/complete`, body, headers),
      await user.send("PATCH", `/${id}/complete`, body, headers),
    ];
    const states = await Promise.all(answers.map((answer) => answer.json()));
    expect(states).toMatchObject([{ completed: true }, { completed: false }]);
  });

  test("is still refused if there is one that is not JSON", async () => {
    const user = await service.newcomer();
    const { id } = await user.task();
    const patch = (body: string, headers: Record<string, string>) =>
      user.send("PATCH", `/${id}/complete`, body, headers);
    expect((await patch("completed=true", form)).status).toBe(415);
    expect((await patch("{}", { "content-type": "text/plain" })).status).toBe(415);
    expect((await patch("{}", { ...json, "content-encoding": "gzip" })).status).toBe(415);
    expect((await patch("completed", json)).status).toBe(400);
    expect(await (await user.get(`/${id}`)).json()).toMatchObject({ completed: false });
  });

  test.each(["application/json", "text/plain", "multipart/form-data", "application/x-www-form-urlencoded", "?"])(
    "doesn't matter to a DELETE, even one that says it is %s",
    async (type) => {
      const user = await service.newcomer();
      for (const body of [undefined, "", "x"]) {
        const { id } = await user.task();
        const answer = await user.send("DELETE", `/${id}`, body, { "content-type": type });
        expect(answer.status).toBe(204);
      }
    },
  );
});

describe("strange HTTP", () => {
  const get = (path: string, host: string) => raw(`GET ${path} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`);

  test("without a host, a problem has the type that is accepted too", async () => {
    for (const type of ["application/problem+json", "application/json"])
      expect(await raw(`GET /nope HTTP/1.0\r\nAccept: ${type}\r\n\r\n`)).toContain(`\r\nContent-Type: ${type}\r\n`);
  });

  test("a short host does not change the path", async () => {
    expect(await get("/zz/health", "x")).toStartWith("HTTP/1.1 404");
    expect(await get("/health", "x")).toStartWith("HTTP/1.1 200");
  });

  test.each([
    ["GET /health", 200],
    ["GET /anything/health", 404],
    ["GET /nope?x=/health", 404],
    ["DELETE /health/live", 405],
    ["GET /api/somebody/tasks", 401],
    ["DELETE /api/somebody/tasks/1/complete", 405],
    ["GET /v1/api/somebody/tasks", 404],
    ["GET /openapi.json", 200],
  ])("%s without a host is %d", async (line, status) => {
    for (const host of ["HTTP/1.0\r\n", "HTTP/1.0\r\nHost: \r\n", "HTTP/1.1\r\nHost: a/b\r\n"]) {
      const answer = await raw(`${line} ${host}Connection: close\r\n\r\n`);
      expect(answer).toStartWith(`HTTP/1.1 ${status}`);
      expect(answer.toLowerCase()).toContain("x-request-id: ");
    }
  });

  test.each(["%", "%zz", "%ff", "%c3%28", "..", "%2e%2e", "a;b", "\\"])(
    "the path segment %s is never a 5xx",
    async (segment) => {
      expect(await get(`/api/${segment}/tasks`, "localhost")).toMatch(/^HTTP\/1.1 (401|404)/);
    },
  );
});

describe("whatever comes", () => {
  const runs = { numRuns: 150 };
  const anyText = fc.string({ unit: "binary", maxLength: 60 });
  const header = fc.string({ unit: fc.constantFrom(..."abcXYZ019 -_.,;=/\"'%{}~|"), maxLength: 60 });

  test("a JSON body is never a 5xx", async () => {
    const user = await service.newcomer();
    const { id } = await user.task();
    const almost = fc.record(
      { title: fc.oneof(anyText, fc.json()), description: fc.anything(), completed: fc.anything() },
      { requiredKeys: [] },
    );
    await fc.assert(
      fc.asyncProperty(
        fc.oneof(
          fc.json(),
          almost.map((value) => JSON.stringify(value) ?? ""),
        ),
        async (body) => {
          for (const answer of [await user.post(body), await user.put(id, body), await user.complete(id, body)])
            expect(answer.status).toBeLessThan(500);
        },
      ),
      runs,
    );
  });

  test("a path or a query is never a 5xx", async () => {
    const user = await service.newcomer();
    const segment = fc.oneof(
      anyText.map((text) => encodeURIComponent(text.toWellFormed())),
      fc.webSegment(),
    );
    await fc.assert(
      fc.asyncProperty(segment, segment, fc.webQueryParameters(), async (one, two, query) => {
        const headers = { authorization: `Bearer ${user.token}` };
        for (const url of [
          `${service.url}/${one}/${two}`,
          `${service.url}/api/${one}/tasks/${two}`,
          user.path(`/${one}?${query}`),
        ])
          expect((await fetch(url, { headers })).status).toBeLessThan(500);
      }),
      runs,
    );
  });

  test("a list parameter is never a 5xx", async () => {
    const user = await service.newcomer();
    const name = fc.constantFrom("status", "search", "sort", "order", "limit", "cursor", "completed", "offset", "skip");
    await fc.assert(
      fc.asyncProperty(name, anyText, async (name, value) => {
        const query = `?${name}=${encodeURIComponent(value.toWellFormed())}`;
        expect((await user.get(query)).status).toBeLessThan(500);
      }),
      runs,
    );
  });

  test("a header is never a 5xx", async () => {
    const user = await service.newcomer();
    const name = fc.constantFrom(
      "authorization",
      "content-type",
      "origin",
      "x-request-id",
      "content-encoding",
      "cookie",
      "accept",
    );
    await fc.assert(
      fc.asyncProperty(name, header, async (name, value) => {
        const answer = await user.post({ title: "x" }, { [name]: value.trim() });
        expect(answer.status).toBeLessThan(500);
      }),
      runs,
    );
  });

  test("a valid task comes back as it went in", async () => {
    const user = await service.newcomer();
    const characters = fc
      .string({ unit: "binary", maxLength: 200 })
      .map((text) => text.replaceAll("\0", "").toWellFormed());
    const valid = fc.record({
      title: characters.filter((text) => text.trim() !== ""),
      description: fc.option(characters),
      completed: fc.boolean(),
    });
    await fc.assert(
      fc.asyncProperty(valid, async (task) => {
        const created = await user.task(task);
        expect(created).toMatchObject({ ...task, title: task.title.trim() });
        expect(await (await user.get(`/${created.id}`)).json()).toEqual(created);
      }),
      runs,
    );
  });
});
