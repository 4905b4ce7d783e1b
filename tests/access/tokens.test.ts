import { heapStats } from "bun:jsc";
import { afterEach, describe, expect, setDefaultTimeout, setSystemTime, test } from "bun:test";
import { Elysia } from "elysia";
import { exportJWK, generateKeyPair, type JWTPayload, jwtVerify, SignJWT } from "jose";
import { auth } from "../../src/auth/index.ts";
import { tokenVerifier } from "../../src/auth/tokens.ts";
import { loadConfig } from "../../src/config.ts";
import { SETTINGS, until } from "../harness.ts";

// A JWKS that hangs is waited for, on a machine that does other things too.
setDefaultTimeout(60_000);

afterEach(() => {
  setSystemTime();
});

const SECRET = new TextEncoder().encode(SETTINGS.BETTER_AUTH_SECRET);

/** The verifier, the check that the plugin makes for it, and how many times it was asked to make it. */
function verifier(settings: Record<string, string> = {}) {
  const decide = tokenVerifier(loadConfig({ ...SETTINGS, ...settings }).jwt);
  let checks = 0;
  return {
    checks: () => checks,
    decide: (token: string) =>
      decide(token, async (text, options) => {
        checks++;
        return jwtVerify(text, SECRET, options).then(
          ({ payload }) => payload,
          () => false as const,
        );
      }),
  };
}

const now = () => Math.floor(Date.now() / 1000);
const later = (seconds: number) => setSystemTime(new Date(Date.now() + seconds * 1000));
const sign = (claims: JWTPayload = {}, { key = SECRET, header = {} } = {}) =>
  new SignJWT({ sub: "ada", exp: now() + 300, ...claims }).setProtectedHeader({ alg: "HS256", ...header }).sign(key);
const base64url = (text: string | Uint8Array) => Buffer.from(text).toString("base64url");

/** A JWKS on a port of its own, whose keys can be replaced while it runs. */
async function published() {
  const keys = new Map<string, CryptoKey>();
  const jwks: object[] = [];
  const state = {
    body: "",
    status: 200,
    fetches: 0,
    /** What an answer waits for: before it begins, or after its first byte. */
    beginsAfter: Promise.resolve() as Promise<unknown>,
    goesOnAfter: Promise.resolve() as Promise<unknown>,
  };
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    idleTimeout: 0,
    async fetch() {
      state.fetches++;
      await state.beginsAfter;
      const { body, status, goesOnAfter } = state;
      const answer = async function* () {
        yield body.slice(0, 1);
        await goesOnAfter;
        yield body.slice(1);
      };
      return new Response(answer(), { status, headers: { location: "/elsewhere" } });
    },
  });
  const origin = `http://127.0.0.1:${server.port}`;
  const published = {
    state,
    settings: { BETTER_AUTH_JWKS_URL: `${origin}/jwks` },
    async add(kid: string) {
      const pair = await generateKeyPair("EdDSA");
      keys.set(kid, pair.privateKey);
      jwks.push({ ...(await exportJWK(pair.publicKey)), kid, alg: "EdDSA" });
      state.body = JSON.stringify({ keys: jwks });
    },
    /** With a key that isn't published, unless one of that name is. */
    async sign(claims: JWTPayload = {}, kid = "first") {
      const key = keys.get(kid) ?? (await generateKeyPair("EdDSA")).privateKey;
      return new SignJWT({ sub: "ada", iss: origin, aud: origin, exp: now() + 3600, ...claims })
        .setProtectedHeader({ alg: "EdDSA", kid })
        .sign(key);
    },
    [Symbol.dispose]: () => void server.stop(true),
  };
  await published.add("first");
  return published;
}

const ADA = { userId: "ada" };
const NO_SUCH_KEY = { reason: "the token's key is not at BETTER_AUTH_JWKS_URL" };
const UNREACHABLE = { unreachable: true };
const never = () => new Promise<never>(() => {});

describe("a token seen before", () => {
  test("is not checked again", async () => {
    const { decide, checks } = verifier();
    const token = await sign();
    expect(await decide(token)).toMatchObject(ADA);
    expect(await decide(token)).toMatchObject(ADA);
    expect(checks()).toBe(1);
  });

  test("is not checked again in its last seconds either", async () => {
    const { decide, checks } = verifier();
    const token = await sign({ exp: now() - 10 });
    expect(await decide(token)).toMatchObject(ADA);
    expect(await decide(token)).toMatchObject(ADA);
    expect(checks()).toBe(1);
  });

  test("is refused once it has expired", async () => {
    const { decide } = verifier();
    const token = await sign({ exp: now() + 60 });
    expect(await decide(token)).toMatchObject(ADA);
    later(95);
    expect(await decide(token)).toMatchObject({ reason: "the token has expired" });
  });

  test("does not admit a tampered copy", async () => {
    const { decide } = verifier();
    const [header, , signature] = (await sign()).split(".");
    expect(await decide(await sign())).toMatchObject(ADA);
    const claims = base64url(JSON.stringify({ sub: "eve", exp: now() + 300 }));
    expect(await decide(`${header}.${claims}.${signature}`)).toMatchObject({
      reason: "the token's signature does not match BETTER_AUTH_SECRET",
    });
  });

  test("costs a fifth of its first time at most", async () => {
    const { decide } = verifier();
    const measure = async (tokens: string[]) => {
      const began = Bun.nanoseconds();
      for (const token of tokens) await decide(token);
      return Bun.nanoseconds() - began;
    };
    // The best of several: other work on the machine only ever adds.
    const [first, again] = [[] as number[], [] as number[]];
    for (let round = 0; round < 5; round++) {
      const tokens = await Promise.all(Array.from({ length: 500 }, (_, n) => sign({ jti: `${round} ${n}` })));
      first.push(await measure(tokens));
      again.push(await measure(tokens));
    }
    expect(Math.min(...again)).toBeLessThan(Math.min(...first) / 5);
  });
});

describe("the memory for tokens seen before", () => {
  test("holds 10,000, and forgets the oldest for one more", async () => {
    const { decide, checks } = verifier();
    const tokens = await Promise.all(Array.from({ length: 10_001 }, (_, n) => sign({ jti: `${n}` })));
    for (const token of tokens.slice(0, 10_000)) await decide(token);
    for (const token of tokens.slice(0, 10_000).reverse()) await decide(token);
    expect(checks()).toBe(10_000);
    await decide(tokens[10_000] ?? "");
    await decide(tokens[0] ?? "");
    expect(checks()).toBe(10_002);
  });

  test("does not grow with their length", async () => {
    const { decide, checks } = verifier();
    const held = () => {
      Bun.gc(true);
      return heapStats().heapSize;
    };
    const before = held();
    for (let n = 0; n < 3_000; n++) await decide(await sign({ jti: `${n}`, pad: "x".repeat(8_900) }));
    // Their text is 36 MB.
    expect(held() - before).toBeLessThan(12_000_000);
    expect(checks()).toBe(3_000);
  });

  test("keeps one in use, while any number of others pass by", async () => {
    const { decide, checks } = verifier();
    const mine = await sign();
    await decide(mine);
    for (let n = 0; n < 10_500; n++) {
      await decide(await sign({ jti: `${n}` }));
      await decide(mine);
    }
    expect(checks()).toBe(1 + 10_500);
  });
});

describe("thirty seconds of leeway", () => {
  const at = (seconds: number) => Math.floor(Date.now() / 1000) + seconds;

  const times: [string, Record<string, number>, object][] = [
    ["expired 29 s ago", { exp: -29 }, ADA],
    ["expired 30 s ago", { exp: -30 }, { reason: "the token has expired" }],
    ["expired 31 s ago", { exp: -31 }, { reason: "the token has expired", detail: "31 s ago" }],
    ["not valid for 29 s yet", { nbf: 29 }, ADA],
    ["not valid for 30 s yet", { nbf: 30 }, ADA],
    ["not valid for 31 s yet", { nbf: 31 }, { detail: "by its nbf" }],
    ["issued in 29 s", { iat: 29 }, ADA],
    ["issued in 31 s", { iat: 31 }, { detail: "by its iat" }],
    ["29 s too long-lived", { exp: 604_800 + 29 }, ADA],
    ["30 s too long-lived", { exp: 604_800 + 30 }, ADA],
    ["31 s too long-lived", { exp: 604_800 + 31 }, { reason: expect.stringContaining("further ahead") }],
  ];
  const claims = (times: Record<string, number>) =>
    Object.fromEntries(Object.entries(times).map(([name, seconds]) => [name, at(seconds)]));

  test.each(times)("a token %s", async (_, times, outcome) => {
    setSystemTime(new Date("2026-01-01T00:00:00Z"));
    expect(await verifier().decide(await sign(claims(times)))).toMatchObject(outcome);
  });

  test.each(times)("a published key's token %s", async (_, times, outcome) => {
    using jwks = await published();
    setSystemTime(new Date("2026-01-01T00:00:00Z"));
    expect(await verifier(jwks.settings).decide(await jwks.sign(claims(times)))).toMatchObject(outcome);
  });

  test.each([
    [29, ADA],
    [31, { reason: "the token has expired" }],
  ])("hold for a known token, which expired %d s ago", async (seconds, outcome) => {
    setSystemTime(new Date("2026-01-01T00:00:00Z"));
    const { decide } = verifier();
    const token = await sign({ exp: at(60) });
    expect(await decide(token)).toMatchObject(ADA);
    later(60 + seconds);
    expect(await decide(token)).toMatchObject(outcome);
  });
});

describe("published keys", () => {
  test("outlive an outage longer than their life", async () => {
    using jwks = await published();
    const { decide } = verifier(jwks.settings);
    expect(await decide(await jwks.sign())).toMatchObject(ADA);
    jwks.state.status = 500;
    later(1200);
    expect(await decide(await jwks.sign())).toMatchObject(ADA);
    expect(await decide(await jwks.sign({}, "other"))).toMatchObject(NO_SUCH_KEY);
    expect(await decide(await jwks.sign())).toMatchObject(ADA);
  });

  test("that can't be renewed, since the server hangs, delay nobody whose key is known", async () => {
    using jwks = await published();
    const { decide } = verifier(jwks.settings);
    const seen = await jwks.sign();
    expect(await decide(seen)).toMatchObject(ADA);
    jwks.state.beginsAfter = never();
    for (let minutes = 0; minutes < 30; minutes += 10) {
      later(600);
      const unknown = decide(await jwks.sign({}, "other"));
      const began = performance.now();
      expect(await decide(seen)).toMatchObject(ADA);
      expect(await decide(await jwks.sign({ jti: `${minutes}` }))).toMatchObject(ADA);
      // The wait for the server is 3,000 long (jose's own 5,000).
      expect(performance.now() - began).toBeLessThan(2900);
      expect(await unknown).toMatchObject(NO_SUCH_KEY);
      expect(await decide(await jwks.sign({}, "another"))).toMatchObject(NO_SUCH_KEY);
      expect(performance.now() - began).toBeLessThan(4900);
    }
  });

  test("are renewed beside the requests once they are five minutes old", async () => {
    using jwks = await published();
    const { decide } = verifier(jwks.settings);
    const seen = await jwks.sign();
    await decide(seen);
    later(299);
    await decide(seen);
    await decide(await jwks.sign({ jti: "2" }));
    expect(jwks.state.fetches).toBe(1);
    later(2);
    expect(await decide(seen)).toMatchObject(ADA);
    await until(() => jwks.state.fetches === 2);
  });

  test("are asked for again 30 s after a renewal failed, and not before", async () => {
    using jwks = await published();
    const { decide } = verifier(jwks.settings);
    const seen = await jwks.sign();
    await decide(seen);
    jwks.state.status = 500;
    later(301);
    expect(await decide(seen)).toMatchObject(ADA);
    await until(() => jwks.state.fetches === 2);
    for (const seconds of [0, 14, 14]) {
      await Bun.sleep(100);
      later(seconds);
      expect(await decide(seen)).toMatchObject(ADA);
      expect(await decide(await jwks.sign())).toMatchObject(ADA);
    }
    await Bun.sleep(100);
    expect(jwks.state.fetches).toBe(2);
    later(3);
    expect(await decide(seen)).toMatchObject(ADA);
    await until(() => jwks.state.fetches === 3);
  });

  test("are asked for again for an unknown one, once in 30 s", async () => {
    using jwks = await published();
    const { decide } = verifier(jwks.settings);
    await decide(await jwks.sign());
    const fetches = [];
    for (const seconds of [0, 1, 28, 2, 1]) {
      later(seconds);
      expect(await decide(await jwks.sign({}, `unknown ${seconds}`))).toMatchObject(NO_SUCH_KEY);
      fetches.push(jwks.state.fetches);
    }
    expect(fetches).toEqual([2, 2, 2, 3, 3]);
  });

  test("made since are found by all who bring one at the same time", async () => {
    using jwks = await published();
    const { decide } = verifier(jwks.settings);
    await decide(await jwks.sign());
    await jwks.add("second");
    const answers = await Promise.all(
      Array.from({ length: 20 }, async (_, n) => decide(await jwks.sign({ jti: `${n}` }, "second"))),
    );
    expect(answers).toEqual(Array(20).fill(expect.objectContaining(ADA)));
    expect(jwks.state.fetches).toBe(2);
  });

  test.each([
    ["another took its place", "second"],
    ["none is left", undefined],
  ])("are refused after a renewal, once they are withdrawn and %s", async (_, other) => {
    using jwks = await published();
    const { decide } = verifier(jwks.settings);
    const token = await jwks.sign();
    expect(await decide(token)).toMatchObject(ADA);
    jwks.state.body = JSON.stringify({
      keys: [{ ...(await exportJWK((await generateKeyPair("EdDSA")).publicKey)), kid: other }].slice(
        other === undefined ? 1 : 0,
      ),
    });
    later(301);
    // It is this request that starts the renewal.
    await decide(token);
    await until(async () => "reason" in (await decide(token)));
    expect(await decide(token)).toMatchObject(NO_SUCH_KEY);
  });

  test("that are replaced while a token is checked by them do not make it known", async () => {
    using jwks = await published();
    const { decide } = verifier(jwks.settings);
    expect(await decide(await jwks.sign())).toMatchObject(ADA);
    jwks.state.body = '{"keys":[]}';
    later(301);
    const tokens = await Promise.all(Array.from({ length: 300 }, (_, n) => jwks.sign({ jti: `${n}` })));
    for (const token of tokens) await decide(token);
    for (const token of tokens) expect(await decide(token)).toMatchObject(NO_SUCH_KEY);
  });

  test("are asked for once by many at a time", async () => {
    using jwks = await published();
    const { decide } = verifier(jwks.settings);
    await Promise.all(Array.from({ length: 20 }, async (_, n) => decide(await jwks.sign({ jti: `${n}` }))));
    expect(jwks.state.fetches).toBe(1);
  });

  test.each([
    ["an error", { status: 500 }],
    ["a redirect", { status: 302 }],
    ["text", { body: "<html>" }],
    ["another document", { body: '{"keys":5}' }],
    ["too much", { body: `{"keys":[${" ".repeat(70_000)}]}` }],
    ["silence", { beginsAfter: never() }],
    ["silence after the first byte", { goesOnAfter: never() }],
  ])("that were never had, with %s in their place, are out of reach, and asked for once", async (_, answer) => {
    using jwks = await published();
    const { decide } = verifier(jwks.settings);
    Object.assign(jwks.state, answer);
    const began = performance.now();
    expect(await decide(await jwks.sign())).toMatchObject(UNREACHABLE);
    expect(await decide(await jwks.sign({ jti: "2" }))).toMatchObject(UNREACHABLE);
    expect(jwks.state.fetches).toBe(1);
    expect(performance.now() - began).toBeLessThan(4900);
  });

  test("that have no end are given up as soon as they are too many", async () => {
    const spaces = new Uint8Array(16 * 1024).fill(0x20);
    using endless = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      fetch: () =>
        new Response(
          new ReadableStream({
            async pull(body) {
              await Bun.sleep(20);
              body.enqueue(spaces);
            },
          }),
        ),
    });
    using jwks = await published();
    const { decide } = verifier({ BETTER_AUTH_JWKS_URL: endless.url.href, JWT_ISSUER: "us", JWT_AUDIENCE: "us" });
    const began = performance.now();
    expect(await decide(await jwks.sign({ iss: "us", aud: "us" }))).toMatchObject(UNREACHABLE);
    // What says nothing is waited for for 3 s.
    expect(performance.now() - began).toBeLessThan(2900);
  });

  test("of almost the size that is read are had", async () => {
    using jwks = await published();
    jwks.state.body = jwks.state.body.replace("[", `[${" ".repeat(65_000)}`);
    expect(await verifier(jwks.settings).decide(await jwks.sign())).toMatchObject(ADA);
  });

  test("are had as soon as they can be", async () => {
    using jwks = await published();
    const { decide } = verifier(jwks.settings);
    jwks.state.status = 500;
    expect(await decide(await jwks.sign())).toMatchObject(UNREACHABLE);
    jwks.state.status = 200;
    later(2);
    expect(await decide(await jwks.sign())).toMatchObject(ADA);
  });

  test.each([[5], [null], [["first"]], [{ kid: "first" }], [""], ["FIRST"], ["first "], ["__proto__"]])(
    "are not chosen by the kid %j",
    async (kid) => {
      using jwks = await published();
      const { decide } = verifier(jwks.settings);
      const [, claims, signature] = (await jwks.sign()).split(".");
      const header = base64url(JSON.stringify({ alg: "EdDSA", kid }));
      expect(await decide(`${header}.${claims}.${signature}`)).toMatchObject(NO_SUCH_KEY);
    },
  );

  test.each(["ES256", "RS256", "PS256", "ES512"])("of Ed25519 are not used for %s", async (alg) => {
    using jwks = await published();
    const [, claims, signature] = (await jwks.sign()).split(".");
    const header = base64url(JSON.stringify({ alg, kid: "first" }));
    expect(await verifier(jwks.settings).decide(`${header}.${claims}.${signature}`)).toMatchObject(NO_SUCH_KEY);
  });

  test("are no secrets: none of their spellings signs an HS256 token", async () => {
    using jwks = await published();
    const { decide } = verifier(jwks.settings);
    const { x } = JSON.parse(jwks.state.body).keys[0];
    const der = Buffer.concat([Buffer.from("302a300506032b6570032100", "hex"), Buffer.from(x, "base64url")]);
    const pem = `-----BEGIN PUBLIC KEY-----\n${der.toString("base64")}\n-----END PUBLIC KEY-----`;
    for (const key of [x, Buffer.from(x, "base64url"), der, pem, `${pem}\n`, jwks.state.body])
      expect(await decide(await sign({}, { key: Buffer.from(key), header: { kid: "first" } }))).toMatchObject({
        reason: "the token's signature does not match BETTER_AUTH_SECRET",
      });
  });
});

test("a token with one of several audiences is taken", async () => {
  const { decide } = verifier({ JWT_ISSUER: "us", JWT_AUDIENCE: "api" });
  expect(await decide(await sign({ iss: "us", aud: ["web", "api"] }))).toMatchObject(ADA);
});

describe("the log", () => {
  /** What the service logs of a request with this header, and the status of its answer. */
  /** What sends requests with these headers, and what is logged of them. */
  function logged(settings: Record<string, string> = {}) {
    const lines: string[] = [];
    const write = (_: object, message: string) => void lines.push(message);
    const log = { info: write, warning: write, error: write, flush: async () => {} };
    const app = new Elysia()
      .use(auth(loadConfig({ ...SETTINGS, ...settings }).jwt, log))
      .get("/api/:user_id/tasks", ({ userId }) => userId);
    const send = (headers: Record<string, string>) =>
      app.handle(new Request("http://localhost/api/ada/tasks", { headers }));
    return { lines, send };
  }

  async function refusal(authorization: string | undefined, settings: Record<string, string> = {}) {
    const { lines, send } = logged(settings);
    const { status } = await send(authorization === undefined ? {} : { authorization });
    return { lines, status };
  }

  const other = new Uint8Array(32);
  const parts = async (claims: string | Uint8Array) => (await sign()).replace(/\..*\./, `.${base64url(claims)}.`);
  const refused: [line: string, token: () => Promise<string> | string, settings?: Record<string, string>][] = [
    ["the token is not a JWT: is it Better Auth's session token?", () => "vT4nQ8sLw2ZrXk7mB9dYc3hJf6gPa1eU"],
    ["the token is not strict base64url", async () => `${await sign()}=`],
    ["the token is not JSON in UTF-8", () => parts("{")],
    ["the token needs BETTER_AUTH_SECRET, which is not set (it is signed HS256)", sign, { BETTER_AUTH_SECRET: "" }],
    [
      "the token is not signed with JWT_ALGORITHM (it is signed HS512, not HS256)",
      () => sign({}, { key: new Uint8Array(64), header: { alg: "HS512" } }),
    ],
    [
      "the token is not signed with JWT_ALGORITHM (it is signed strangely, not HS256)",
      () => `${base64url('{"alg":"HS256\\n"}')}.${base64url("{}")}.`,
    ],
    [
      "the token is not signed with JWT_ALGORITHM (it is signed strangely, not HS256)",
      () => `${base64url(`{"alg":"${"private".repeat(500)}"}`)}.${base64url("{}")}.`,
    ],
    [
      "the token's crit demands an extension, and there is none here",
      () => `${base64url('{"alg":"HS256","crit":["x"]}')}.${base64url("{}")}.`,
    ],
    ["the token has no sub: is it from an e-mail-verification link?", () => sign({ sub: "" })],
    ["the token has no exp", () => parts('{"sub":"ada"}')],
    ["the token has expired (90 s ago)", () => sign({ exp: now() - 90 })],
    ["the token expires further ahead than JWT_EXPIRATION_DELTA", () => sign({ exp: now() + 1e6 })],
    ["the token is not valid yet: are the clocks right? (by its nbf)", () => sign({ nbf: now() + 60 })],
    ["the token is not valid yet: are the clocks right? (by its iat)", () => sign({ iat: now() + 60 })],
    ["the token's iss is not JWT_ISSUER", sign, { JWT_ISSUER: "us" }],
    ["the token's aud is not JWT_AUDIENCE", sign, { JWT_AUDIENCE: "us" }],
    ["the token's signature does not match BETTER_AUTH_SECRET", () => sign({}, { key: other })],
  ];
  const refusedByKey: [
    line: string,
    token: (jwks: Awaited<ReturnType<typeof published>>) => Promise<string>,
    settings?: Record<string, string>,
  ][] = [
    [
      "the token needs BETTER_AUTH_JWKS_URL, which is not set (it is signed EdDSA)",
      (jwks) => jwks.sign(),
      { BETTER_AUTH_JWKS_URL: "" },
    ],
    [
      "the token's iss is not JWT_ISSUER (by default the origin of BETTER_AUTH_JWKS_URL)",
      (jwks) => jwks.sign({ iss: "us" }),
    ],
    [
      "the token's aud is not JWT_AUDIENCE (by default the origin of BETTER_AUTH_JWKS_URL)",
      (jwks) => jwks.sign({ aud: "us" }),
    ],
    [
      "the token's signature does not match its key at BETTER_AUTH_JWKS_URL",
      async (jwks) => (await jwks.sign()).replace(/[^.]+$/, base64url(new Uint8Array(64))),
    ],
    ["the token's key is not at BETTER_AUTH_JWKS_URL", (jwks) => jwks.sign({}, "other")],
  ];

  test.each(refused)("says: %s", async (...[line, token, settings]) => {
    setSystemTime(new Date("2026-01-01T00:00:00Z"));
    expect(await refusal(`Bearer ${await token()}`, settings)).toEqual({
      lines: [`refused: ${line}`],
      status: 401,
    });
  });

  test.each(refusedByKey)("says of a published key's token: %s", async (...[line, token, settings]) => {
    using jwks = await published();
    expect(await refusal(`Bearer ${await token(jwks)}`, { ...jwks.settings, ...settings })).toEqual({
      lines: [`refused: ${line}`],
      status: 401,
    });
  });

  test("counts refusals for the same reason together, whatever varies from token to token", async () => {
    setSystemTime(new Date("2026-01-01T00:00:00Z"));
    const { lines, send } = logged();
    for (const seconds of [40, 50, 60]) await send({ authorization: `Bearer ${await sign({ exp: now() - seconds })}` });
    expect(lines).toEqual(["refused: the token has expired (40 s ago)"]);
  });

  test("says when there is no token", async () => {
    const lines = ["refused: there is no bearer token"];
    expect(await refusal(undefined)).toEqual({ lines, status: 401 });
  });

  test("says when there are no keys to check by", async () => {
    using jwks = await published();
    jwks.state.status = 500;
    const lines = ["refused: BETTER_AUTH_JWKS_URL can't be reached, or is no JWKS"];
    expect(await refusal(`Bearer ${await jwks.sign()}`, jwks.settings)).toEqual({ lines, status: 503 });
  });

  test("says what the example's README has word for word, and nothing else", async () => {
    const readme = await Bun.file(new URL("../../examples/nextjs/README.md", import.meta.url)).text();
    const section = /## Why a 401\n(.*?)\n## /s.exec(readme)?.[1] ?? "";
    const documented = Array.from(section.matchAll(/`(refused: [^`]+)`/g), ([, line = ""]) => line);
    const said = [...refused, ...refusedByKey].map(([line]) => `refused: ${line.replace(/ \(.*\)$/, "")}`);
    said.push("refused: there is no bearer token");
    said.push("refused: BETTER_AUTH_JWKS_URL can't be reached, or is no JWKS");
    expect(new Set(documented)).toEqual(new Set(said));
    const source = await Bun.file(new URL("../../src/auth/tokens.ts", import.meta.url)).text();
    const reasons = Array.from(source.matchAll(/refuse\(\s*"([^"]+)"/g), ([, reason]) => `refused: ${reason}`);
    expect(new Set(documented)).toEqual(new Set(reasons));
  });
});
