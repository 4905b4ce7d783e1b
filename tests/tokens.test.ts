import { afterEach, describe, expect, setSystemTime, test } from "bun:test";
import { exportJWK, generateKeyPair, type JWTPayload, jwtVerify, SignJWT } from "jose";
import { tokenVerifier } from "../src/auth/tokens.ts";
import { loadConfig } from "../src/config.ts";
import { SETTINGS } from "./harness.ts";

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
const sign = (claims: JWTPayload = {}, key: Uint8Array = SECRET) =>
  new SignJWT({ sub: "ada", exp: now() + 300, ...claims }).setProtectedHeader({ alg: "HS256" }).sign(key);

/** A JWKS on a port of its own, whose keys can be replaced while it runs. */
async function published() {
  const pair = await generateKeyPair("EdDSA");
  const jwk = { ...(await exportJWK(pair.publicKey)), kid: "first", alg: "EdDSA" };
  const state = { body: JSON.stringify({ keys: [jwk] }), status: 200, fetches: 0 };
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch() {
      state.fetches++;
      return new Response(state.body, { status: state.status, headers: { location: "/elsewhere" } });
    },
  });
  const origin = `http://127.0.0.1:${server.port}`;
  return {
    state,
    settings: { BETTER_AUTH_JWKS_URL: `${origin}/jwks` },
    sign: (claims: JWTPayload = {}) =>
      new SignJWT({ sub: "ada", iss: origin, aud: origin, exp: now() + 3600, ...claims })
        .setProtectedHeader({ alg: "EdDSA", kid: "first" })
        .sign(pair.privateKey),
    [Symbol.dispose]: () => void server.stop(true),
  };
}

describe("a token seen before", () => {
  test("is not checked again", async () => {
    const { decide, checks } = verifier();
    const token = await sign();
    expect(await decide(token)).toMatchObject({ userId: "ada" });
    expect(await decide(token)).toMatchObject({ userId: "ada" });
    expect(checks()).toBe(1);
  });

  test("is refused once it has expired", async () => {
    const { decide } = verifier();
    const token = await sign({ exp: now() + 60 });
    expect(await decide(token)).toMatchObject({ userId: "ada" });
    later(95);
    expect(await decide(token)).toMatchObject({ reason: "the token has expired" });
  });

  test("does not admit a tampered copy", async () => {
    const { decide } = verifier();
    const [header, , signature] = (await sign()).split(".");
    expect(await decide(await sign())).toMatchObject({ userId: "ada" });
    const claims = Buffer.from(JSON.stringify({ sub: "eve", exp: now() + 300 })).toString("base64url");
    expect(await decide(`${header}.${claims}.${signature}`)).toEqual({
      reason: "the token's signature does not match BETTER_AUTH_SECRET",
    });
  });

  test("is refused ten minutes after its key was withdrawn", async () => {
    using jwks = await published();
    const { decide } = verifier(jwks.settings);
    const token = await jwks.sign();
    expect(await decide(token)).toMatchObject({ userId: "ada" });
    const { publicKey } = await generateKeyPair("EdDSA");
    jwks.state.body = JSON.stringify({ keys: [{ ...(await exportJWK(publicKey)), kid: "second" }] });
    later(601);
    expect(await decide(token)).toEqual({ reason: "the token's key is not at BETTER_AUTH_JWKS_URL" });
  });

  test("is refused when every key was withdrawn", async () => {
    using jwks = await published();
    const { decide } = verifier(jwks.settings);
    const token = await jwks.sign();
    expect(await decide(token)).toMatchObject({ userId: "ada" });
    jwks.state.body = JSON.stringify({ keys: [] });
    later(601);
    expect(await decide(token)).toEqual({ reason: "the token's key is not at BETTER_AUTH_JWKS_URL" });
  });

  test("costs under a microsecond", async () => {
    const { decide } = verifier();
    const token = await sign();
    await decide(token);
    const measure = async () => {
      const began = Bun.nanoseconds();
      for (let n = 0; n < 20_000; n++) await decide(token);
      return (Bun.nanoseconds() - began) / 20_000;
    };
    // The best of several: other work on the machine only ever adds.
    const rounds = [];
    for (let n = 0; n < 10; n++) rounds.push(await measure());
    expect(Math.min(...rounds)).toBeLessThan(1000);
  });
});

describe("published keys", () => {
  test("outlive an outage longer than their life", async () => {
    using jwks = await published();
    const { decide } = verifier(jwks.settings);
    expect(await decide(await jwks.sign())).toMatchObject({ userId: "ada" });
    jwks.state.status = 500;
    later(1200);
    expect(await decide(await jwks.sign())).toMatchObject({ userId: "ada" });
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
  ])(
    "that were never had, with %s in their place, are out of reach, and asked for once",
    async (_, answer) => {
      using jwks = await published();
      const { decide } = verifier(jwks.settings);
      Object.assign(jwks.state, answer);
      expect(await decide(await jwks.sign())).toMatchObject({ unreachable: true });
      expect(await decide(await jwks.sign({ jti: "2" }))).toMatchObject({ unreachable: true });
      expect(jwks.state.fetches).toBe(1);
    },
  );

  test("are had as soon as they can be", async () => {
    using jwks = await published();
    const { decide } = verifier(jwks.settings);
    jwks.state.status = 500;
    expect(await decide(await jwks.sign())).toMatchObject({ unreachable: true });
    jwks.state.status = 200;
    later(2);
    expect(await decide(await jwks.sign())).toMatchObject({ userId: "ada" });
  });
});

describe("the log", () => {
  test("tells how long ago a token expired, and counts all such together", async () => {
    setSystemTime(new Date("2026-01-01T00:00:00Z"));
    const { decide } = verifier();
    expect(await decide(await sign({ exp: now() - 35 }))).toEqual({
      reason: "the token has expired",
      detail: "35 s ago",
    });
    expect(await decide(await sign({ exp: now() - 90 }))).toEqual({
      reason: "the token has expired",
      detail: "90 s ago",
    });
  });

  test("names the setting that a published key needs", async () => {
    using jwks = await published();
    expect(await verifier().decide(await jwks.sign())).toEqual({
      reason: "the token is signed EdDSA, and BETTER_AUTH_JWKS_URL is not set",
    });
  });

  test("names the setting that a secret needs, where there is only a JWKS", async () => {
    using jwks = await published();
    const { decide } = verifier({ ...jwks.settings, BETTER_AUTH_SECRET: "" });
    expect(await decide(await sign())).toEqual({
      reason: "the token is signed HS256, and BETTER_AUTH_SECRET is not set",
    });
  });

  test.each([
    ["iss", { aud: "api" }],
    ["aud", { iss: "us" }],
  ])("names `%s` when a token signed with the secret lacks it", async (claim, claims) => {
    const { decide } = verifier({ JWT_ISSUER: "us", JWT_AUDIENCE: "api" });
    expect(await decide(await sign(claims))).toMatchObject({
      reason: expect.stringContaining(`\`${claim}\``),
    });
  });

  test("takes a token with one of several audiences", async () => {
    const { decide } = verifier({ JWT_ISSUER: "us", JWT_AUDIENCE: "api" });
    expect(await decide(await sign({ iss: "us", aud: ["web", "api"] }))).toMatchObject({ userId: "ada" });
  });
});
