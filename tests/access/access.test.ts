import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { createHmac } from "node:crypto";
import type { taskStore } from "../../src/tasks/store.ts";
import { SETTINGS, service, start, User } from "../harness.ts";

// Processes and databases take their time on a machine that does other things too.
setDefaultTimeout(60_000);

const SECRET = SETTINGS.BETTER_AUTH_SECRET;
const OWNER = "owner-of-tokens";
const now = () => Math.floor(Date.now() / 1000);
const base64url = (data: string | Buffer) => Buffer.from(data).toString("base64url");

/** A token made by hand, so that it can be wrong in every way. Strings go in as they are. */
function forge(
  claims: object | string | Buffer,
  header: object | string = { alg: "HS256", typ: "JWT" },
  { secret = SECRET, hash = "sha256" } = {},
): string {
  const [head, body] = [header, claims].map((part) =>
    base64url(typeof part === "string" || part instanceof Buffer ? part : JSON.stringify(part)),
  );
  const signature = createHmac(hash, secret).update(`${head}.${body}`).digest("base64url");
  return `${head}.${body}.${signature}`;
}

const claims = (changes: object = {}) => ({ sub: OWNER, iat: now(), exp: now() + 600, ...changes });
const [HEAD = "", BODY = "", SIGNATURE = ""] = forge(claims()).split(".");
const list = (authorization?: string, id = OWNER, url = service.url) =>
  fetch(`${url}/api/${encodeURIComponent(id)}/tasks`, { headers: authorization ? { authorization } : {} });
const statusOf = async (token: string, id?: string, url?: string) => (await list(`Bearer ${token}`, id, url)).status;

/** The same bytes in the decoder's eyes, with another last character. */
const withStrayBits = (part: string) => {
  const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  return part.slice(0, -1) + alphabet[alphabet.indexOf(part.at(-1) ?? "") + 1];
};

const numericDates = [null, "soon", String(now() + 600), true, [], {}, Number.NaN];

describe("a token is refused", () => {
  test.each<[string, string]>([
    // Signature and algorithm
    ["another secret", forge(claims(), undefined, { secret: SECRET.replace("v", "w") })],
    ["no secret", forge(claims(), undefined, { secret: "" })],
    ["alg none", `${base64url('{"alg":"none"}')}.${BODY}.`],
    ["alg None, with a signature", forge(claims(), { alg: "None" })],
    ["no alg", forge(claims(), {})],
    ["alg null", forge(claims(), { alg: null })],
    ["alg as a list", forge(claims(), { alg: ["HS256"] })],
    ["alg hs256", forge(claims(), { alg: "hs256" })],
    ["HS384", forge(claims(), { alg: "HS384" }, { hash: "sha384" })],
    ["HS512", forge(claims(), { alg: "HS512" }, { hash: "sha512" })],
    ...["RS256", "PS256", "ES256", "EdDSA", "dir", "A256GCM"].map((alg): [string, string] => [
      `${alg} signed with the secret`,
      forge(claims(), { alg }),
    ]),
    ["HS512's signature under HS256", forge(claims(), undefined, { hash: "sha512" })],
    ["a key in the header", forge(claims(), { alg: "HS256", jwk: { kty: "oct", k: "AA" } }, { secret: "\0" })],
    ["a kid that is a path", forge(claims(), { alg: "HS256", kid: "/dev/null" }, { secret: "" })],
    ["an unknown crit", forge(claims(), { alg: "HS256", crit: ["exp"], exp: 1 })],
    ["an empty crit", forge(claims(), { alg: "HS256", crit: [] })],
    ["crit of no list", forge(claims(), { alg: "HS256", crit: "b64" })],
    ["a crit that is known elsewhere", forge(claims(), { alg: "HS256", b64: true, crit: ["b64"] })],
    ["a crit null", forge(claims(), { alg: "HS256", crit: null })],
    ["alg as an object that is no text", forge(claims(), { alg: { toString: 1 } })],
    ["alg twice, the last one none", forge(claims(), '{"alg":"HS256","alg":"none"}')],
    ["an unencoded payload", forge(claims(), { alg: "HS256", b64: false, crit: ["b64"] })],
    ["a tampered payload", `${HEAD}.${base64url(JSON.stringify(claims({ admin: true })))}.${SIGNATURE}`],
    ["a tampered header", `${base64url('{"alg":"HS256"}')}.${BODY}.${SIGNATURE}`],
    ["a shortened signature", `${HEAD}.${BODY}.${SIGNATURE.slice(0, -4)}`],
    ["an empty signature", `${HEAD}.${BODY}.`],
    // Encoding
    ["a padded signature", `${HEAD}.${BODY}.${SIGNATURE}=`],
    ["stray bits in the signature", `${HEAD}.${BODY}.${withStrayBits(SIGNATURE)}`],
    ["a padded payload", `${HEAD}.${BODY}==.${SIGNATURE}`],
    ["base64 with + and /", `${HEAD}.${BODY}.${"+/".repeat(21)}A`],
    ["two parts", `${HEAD}.${BODY}`],
    ["four parts", `${HEAD}.${BODY}.${SIGNATURE}.${SIGNATURE}`],
    ["five parts", `${HEAD}.${BODY}.${SIGNATURE}.${BODY}.${SIGNATURE}`],
    ["one part", HEAD],
    ["dots", ".."],
    ["an opaque session token", "vT4nQ8sLw2ZrXk7mB9dYc3hJf6gPa1eU"],
    ["an opaque signed cookie", "q8sLw2ZrXk7m.Zm9v"],
    ["a payload of no JSON", forge("no json")],
    ["a header of no JSON", forge(claims(), "no json")],
    ...["[]", "null", '"x"', "5", "{}"].map((payload): [string, string] => [`the payload ${payload}`, forge(payload)]),
    ...[
      ["a byte that is no UTF-8", "\xff"],
      ["an overlong slash", "\xc0\xaf"],
      ["half a character", "\xe7\x94"],
      ["a surrogate in UTF-8", "\xed\xa0\x80"],
    ].map(([name, bytes]): [string, string] => [
      `${name} in the payload`,
      forge(Buffer.from(JSON.stringify(claims({ name: bytes })), "latin1")),
    ]),
    ["a byte order mark before the payload", forge(`\ufeff${JSON.stringify(claims())}`)],
    ["a byte order mark before the header", forge(claims(), '\ufeff{"alg":"HS256"}')],
    ["a payload in UTF-16", forge(Buffer.from(JSON.stringify(claims()), "utf16le"))],
    ["a payload of two values", forge(`${JSON.stringify(claims())}{}`)],
    ["claims in a prototype", forge(`{"__proto__":${JSON.stringify(claims())}}`)],
    ["sub twice, the last one empty", forge(`{"sub":"${OWNER}","exp":${now() + 60},"sub":""}`)],
    // sub
    ...[undefined, "", null, 5, true, [OWNER], { id: OWNER }].map((sub): [string, string] => [
      `sub ${JSON.stringify(sub)}`,
      forge(claims({ sub })),
    ]),
    ["an e-mail-verification token", forge({ email: `${OWNER}@example.com`, iat: now(), exp: now() + 600 })],
    ["id in place of sub", forge({ id: OWNER, iat: now(), exp: now() + 600 })],
    // Times
    ...numericDates.map((exp): [string, string] => [`exp ${JSON.stringify(exp)}`, forge(claims({ exp }))]),
    ["no exp", forge({ sub: OWNER, iat: now() })],
    ["exp 1e999", forge(`{"sub":"${OWNER}","exp":1e999}`)],
    ["exp 0", forge(claims({ exp: 0 }))],
    ["exp -1", forge(claims({ exp: -1 }))],
    ["expired beyond the leeway", forge(claims({ exp: now() - 35 }))],
    ["expiring too far ahead", forge(claims({ exp: now() + 604_800 + 60 }))],
    ["exp in milliseconds", forge(claims({ exp: Date.now() + 600_000 }))],
    ["iat in the future", forge(claims({ iat: now() + 60 }))],
    ["nbf in the future", forge(claims({ nbf: now() + 60 }))],
    ...numericDates.map((iat): [string, string] => [`iat ${JSON.stringify(iat)}`, forge(claims({ iat }))]),
    ...numericDates.map((nbf): [string, string] => [`nbf ${JSON.stringify(nbf)}`, forge(claims({ nbf }))]),
  ])("with %s", async (_, token) => {
    const answer = await list(`Bearer ${token}`);
    expect(answer.status).toBe(401);
    expect(answer.headers.get("www-authenticate")).toBe("Bearer");
    expect(answer.headers.get("content-type")).toBe("application/json");
    // Why is for the log: a caller who guesses learns nothing.
    expect(await answer.json()).toMatchObject({ detail: "Sign in: a valid bearer token is required" });
  });

  test.each([
    ["no header", undefined],
    ["no scheme", forge(claims())],
    ["no token", "Bearer"],
    ["a blank token", "Bearer  "],
    ["another scheme", `Token ${forge(claims())}`],
    ["Basic", `Basic ${base64url(`${OWNER}:x`)}`],
    ["two tokens", `Bearer ${forge(claims())}, Bearer ${forge(claims())}`],
    ["a token and more", `Bearer ${forge(claims())} x`],
    ["quotes", `Bearer "${forge(claims())}"`],
  ])("in a header with %s", async (_, authorization) => {
    expect((await list(authorization)).status).toBe(401);
  });

  test("anywhere else than in the header", async () => {
    const token = forge(claims());
    const path = `${service.url}/api/${OWNER}/tasks`;
    expect((await fetch(`${path}?access_token=${token}&token=${token}`)).status).toBe(401);
    expect((await fetch(path, { headers: { cookie: `token=${token}` } })).status).toBe(401);
  });
});

describe("a token is taken", () => {
  test.each<[string, string]>([
    ["as Better Auth signs it", forge(claims({ iss: "x", aud: ["y"], email: "a@b.c" }))],
    ["without iat", forge({ sub: OWNER, exp: now() + 60 })],
    ["without typ", forge(claims(), { alg: "HS256" })],
    ["expired within the leeway", forge(claims({ exp: now() - 25 }))],
    ["iat and nbf within the leeway", forge(claims({ iat: now() + 25, nbf: now() + 25 }))],
    ["as long-lived as may be", forge(claims({ exp: now() + 604_800 }))],
    ["with members twice: the last counts", forge(`{"sub":"eve","exp":1,"exp":${now() + 60},"sub":"${OWNER}"}`)],
    ["with a header's member twice", forge(claims(), '{"alg":"none","alg":"HS256"}')],
    [
      "with claims nested 4,000 deep",
      forge(JSON.stringify(claims()).replace("}", `,"x":${"[".repeat(4000)}${"]".repeat(4000)}}`)),
    ],
    ["of 12 KB", forge(claims({ roles: "x".repeat(8_900) }))],
    ["with a b64 that no crit makes count", forge(claims(), { alg: "HS256", b64: false })],
    ...[5, null, {}, "at+jwt", "JWE"].map((typ): [string, string] => [
      `typ ${JSON.stringify(typ)}`,
      forge(claims(), { alg: "HS256", typ }),
    ]),
    ...[5, null, {}, ["a"], "", "/dev/null", "x".repeat(5_000)].map((kid): [string, string] => [
      `kid ${JSON.stringify(kid).slice(0, 20)}`,
      forge(claims(), { alg: "HS256", kid }),
    ]),
    ["with times that have fractions", forge(claims({ iat: now() - 0.5, exp: now() + 60.5 }))],
  ])("%s", async (_, token) => {
    expect(await statusOf(token)).toBe(200);
    // And once more, when it is known.
    expect(await statusOf(token)).toBe(200);
  });

  test.each(["bearer", "BEARER", "bEaReR", "Bearer  "])("after the scheme %p", async (scheme) => {
    expect((await list(`${scheme} ${forge(claims())}`)).status).toBe(200);
  });
});

describe("the user of the path", () => {
  test.each([
    "auth0|1",
    "a/b",
    "用户",
    "a b",
    "a+b",
    "%",
    "%2F",
    "__proto__",
    "constructor",
    "?",
    "#",
    "x".repeat(255),
    "😀".repeat(255),
    "tasks",
    "00000000-0000-0000-0000-000000000000",
    "0",
  ])("may be %p", async (id) => {
    const user = await service.newcomer(id);
    expect((await user.task({ title: "mine" })).user_id).toBe(id);
  });

  test.each([
    ["Owner", "owner"],
    ["owner", "owner "],
    ["é", "e\u0301"],
    ["a%2Fb", "a/b"],
    ["a", "ab"],
    ["1", "01"],
    ["user", "%75ser"],
    ["ﬁ", "fi"],
    ["K", "\u212a"],
    ["ß", "ss"],
    ["I", "ı"],
    ["a", "а"],
    ["\ufeffa", "a"],
    ["a\u200d", "a"],
    ["a", "a\0"],
    ["\ud800", "\ufffd"],
    ["\ud800\ud800", "\ufffd\ufffd"],
  ])("%p is not %p", async (sub, id) => {
    expect(await statusOf(forge(claims({ sub })), id)).toBe(403);
  });

  test.each(["ff", "zz", "c3%28", "c0%af", "e7%94", "ed%a0%80", "f4%90%80%80", "2", "u0041", "ff%ef%bf%bd"])(
    "that can't be decoded, with %%%s in it, is nobody's",
    async (digits) => {
      const subs = ["\ufffd", "\ufffd\ufffd", "\ufffd\ufffd\ufffd", "\ufffd(", "\ufffd2", "\ufffd041"];
      const statuses = await Promise.all(
        subs.flatMap((sub) =>
          ["", "?x=%ef%bf%bd", "/%ef%bf%bd"].map(async (rest) => {
            const headers = { authorization: `Bearer ${forge(claims({ sub }))}` };
            return (await fetch(`${service.url}/api/%${digits}/tasks${rest}`, { headers })).status;
          }),
        ),
      );
      expect(new Set(statuses)).toEqual(new Set([403]));
    },
  );

  test.each([
    ["auth0%7C1", "auth0|1"],
    ["auth0|1", "auth0|1"],
    ["a%2Fb", "a/b"],
    ["a%2fb", "a/b"],
    ["%E7%94%A8%e6%88%b7", "用户"],
    ["%61da", "ada"],
    ["%2561da", "%61da"],
    ["a+b", "a+b"],
    ["%ef%bf%bd", "\ufffd"],
    ["a%EF%BF%BDb%ef%bf%bd", "a\ufffdb\ufffd"],
  ])("written %s is %s", async (segment, sub) => {
    const headers = { authorization: `Bearer ${forge(claims({ sub }))}` };
    expect((await fetch(`${service.url}/api/${segment}/tasks`, { headers })).status).toBe(200);
  });

  test("is not one who has a shorter name of 5,000 characters", async () => {
    const token = forge(claims({ sub: "x".repeat(5_000) }));
    expect([await statusOf(token, "x".repeat(4_999)), await statusOf(token, "x")]).toEqual([403, 403]);
  });

  test("that is longer than an id can be is 422, for its own owner", async () => {
    const id = "x".repeat(256);
    expect(await statusOf(forge(claims({ sub: id })), id)).toBe(422);
  });

  test("that holds a NUL is 422, for its own owner", async () => {
    expect(await statusOf(forge(claims({ sub: "\0" })), "\0")).toBe(422);
  });
});

const operations = (id: number | string): [string, string][] => [
  ["GET", ""],
  ["POST", ""],
  ["GET", `/${id}`],
  ["PUT", `/${id}`],
  ["DELETE", `/${id}`],
  ["PATCH", `/${id}/complete`],
];

/** Checked by the compiler: it complains here as soon as any string will do. */
export const unadmitted = (tasksOf: ReturnType<typeof taskStore>) =>
  // @ts-expect-error
  tasksOf("somebody");

describe("another user", () => {
  test.each(operations("ID"))("is answered 403 by %s %s, whatever else is in the request", async (method, rest) => {
    const [owner, stranger] = [await service.newcomer(), await service.newcomer()];
    const { id } = await owner.task();
    const intruder = new User(service.url, owner.id, stranger.token);
    const bodies = method === "GET" ? [undefined] : [undefined, "{not json", { title: "mine now" }, "x".repeat(70_000)];
    const answers = await Promise.all(
      [String(id), "999999999", "not-an-id"].flatMap((task) =>
        bodies.map(async (body) => {
          const answer = await intruder.send(method, rest.replace("ID", task), body);
          const { request_id, ...problem } = (await answer.json()) as { request_id: string };
          return JSON.stringify([answer.status, problem]);
        }),
      ),
    );
    expect(new Set(answers).size).toBe(1);
    expect(answers[0]).toStartWith("[403,");
  });

  test("finds nothing of the owner's under their own path", async () => {
    const [owner, other] = [await service.newcomer(), await service.newcomer()];
    const { id } = await owner.task();
    const answers = [
      await other.get(`/${id}`),
      await other.put(id, { title: "mine now" }),
      await other.complete(id),
      await other.delete(id),
    ];
    expect(answers.map(({ status }) => status)).toEqual([404, 404, 404, 404]);
    const missing = await other.get("/999999999");
    const [{ request_id: _1, ...theirs }, { request_id: _2, ...nobodys }] = [
      (await answers[0]?.json()) as { request_id: string },
      (await missing.json()) as { request_id: string },
    ];
    expect(theirs).toEqual(nobodys);
    expect(await (await owner.get(`/${id}`)).json()).toMatchObject({ title: "Buy milk", completed: false });
  });
});

describe("the order of refusals", () => {
  const big = "x".repeat(65_537);
  const text = { "content-type": "text/plain" };
  const json = { "content-type": "application/json" };
  const bodied = operations("999999999").filter(([method]) => /POST|PUT|PATCH/.test(method));

  test.each(operations("not-an-id"))("401 comes first: %s %s", async (method, rest) => {
    const user = new User(service.url, "somebody", "no-token");
    const body = method === "GET" ? undefined : big;
    expect((await user.send(method, rest, body, text)).status).toBe(401);
  });

  test.each(bodied)("413, 415, 400, 422, 404: %s %s", async (method, rest) => {
    const user = await service.newcomer();
    const send = async (body: string, headers: object) => (await user.send(method, rest, body, { ...headers })).status;
    const statuses = [
      await send(big, text),
      await send("{", text),
      await send("{", json),
      await send('{"title":5,"completed":5}', json),
      await send('{"title":"x","completed":true}', json),
    ];
    expect(statuses).toEqual([413, 415, 400, 422, method === "POST" ? 201 : 404]);
  });

  test("a path without a token is 404 or 405 all the same", async () => {
    expect((await fetch(`${service.url}/api/somebody`)).status).toBe(404);
    expect((await fetch(`${service.url}/api/somebody/tasks`, { method: "PUT" })).status).toBe(405);
  });
});

describe("other settings", () => {
  test("HS512 takes HS512 and nothing else", async () => {
    const secret = SECRET.repeat(2);
    const other = await start({ JWT_ALGORITHM: "HS512", BETTER_AUTH_SECRET: secret });
    const hs512 = forge(claims(), { alg: "HS512" }, { secret, hash: "sha512" });
    const hs256 = forge(claims(), { alg: "HS256" }, { secret });
    expect([await statusOf(hs512, OWNER, other.url), await statusOf(hs256, OWNER, other.url)]).toEqual([200, 401]);
    await other.stop();
  });

  test("issuer and audience are checked when they are set", async () => {
    const other = await start({ JWT_ISSUER: "https://a.example", JWT_AUDIENCE: "tasks" });
    const right = { iss: "https://a.example", aud: ["x", "tasks"] };
    const statuses = await Promise.all(
      [right, { ...right, iss: "https://b.example" }, { ...right, aud: "x" }, { iss: right.iss }, {}].map((named) =>
        statusOf(forge(claims(named)), OWNER, other.url),
      ),
    );
    expect(statuses).toEqual([200, 401, 401, 401, 401]);
    await other.stop();
  });

  test("a token may live as long as JWT_EXPIRATION_DELTA says", async () => {
    const other = await start({ JWT_EXPIRATION_DELTA: "60" });
    expect(await statusOf(forge(claims({ exp: now() + 60 })), OWNER, other.url)).toBe(200);
    expect(await statusOf(forge(claims({ exp: now() + 120 })), OWNER, other.url)).toBe(401);
    await other.stop();
  });
});
