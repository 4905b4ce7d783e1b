import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { betterAuth } from "better-auth";
import { memoryAdapter } from "better-auth/adapters/memory";
import { jwt } from "better-auth/plugins";
import { SignJWT } from "jose";
import { SETTINGS, start } from "./harness.ts";

// Processes and databases take their time on a machine that does other things too.
setDefaultTimeout(60_000);

const stops: (() => unknown)[] = [];
afterAll(() => Promise.all(stops.map((stop) => stop())));

type Algorithm = "EdDSA" | "ES256" | "ES512" | "RS256" | "PS256";

/** A real Better Auth server, and the number of times that its JWKS was asked for. */
function betterAuthServer(alg: Algorithm) {
  let fetches = 0;
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    async fetch(request): Promise<Response> {
      if (request.url.endsWith("/jwks")) fetches++;
      return handler(request);
    },
  });
  stops.push(() => server.stop(true));
  const url: string = `http://127.0.0.1:${server.port}`;
  const { handler } = betterAuth({
    baseURL: url,
    secret: SETTINGS.BETTER_AUTH_SECRET,
    database: memoryAdapter({ user: [], session: [], account: [], verification: [], jwks: [] }),
    emailAndPassword: { enabled: true },
    rateLimit: { enabled: false },
    telemetry: { enabled: false },
    plugins: [jwt({ jwks: { keyPairConfig: { alg } } })],
  });
  return {
    url,
    fetches: () => fetches,
    stop: () => server.stop(true),
    async signUp() {
      const answer = await fetch(`${url}/api/auth/sign-up/email`, {
        method: "POST",
        headers: { "content-type": "application/json", origin: url },
        body: JSON.stringify({
          name: "Ada",
          email: `${crypto.randomUUID()}@example.com`,
          password: "correct horse",
        }),
      });
      const { user } = (await answer.json()) as { user: { id: string } };
      const cookie = answer.headers
        .getSetCookie()
        .map((line) => line.split(";")[0])
        .join("; ");
      const { token } = (await (await fetch(`${url}/api/auth/token`, { headers: { cookie } })).json()) as {
        token: string;
      };
      return { id: user.id, token };
    },
  };
}

async function serviceFor(server: { url: string }, settings: Record<string, string> = {}) {
  const service = await start({ BETTER_AUTH_JWKS_URL: `${server.url}/api/auth/jwks`, ...settings });
  stops.push(service.stop);
  return (id: string, token: string) =>
    fetch(`${service.url}/api/${id}/tasks`, { headers: { authorization: `Bearer ${token}` } });
}

test.each(["EdDSA", "ES256", "ES512", "RS256", "PS256"] as const)(
  "a token signed %s is taken",
  async (alg) => {
    const server = betterAuthServer(alg);
    const list = await serviceFor(server);
    const { id, token } = await server.signUp();
    expect((await list(id, token)).status).toBe(200);
  },
  20_000,
);

test("warm keys outlive an outage, and without any the answer is 503", async () => {
  const server = betterAuthServer("EdDSA");
  const warm = await serviceFor(server);
  const cold = await serviceFor(server);
  const [first, second] = [await server.signUp(), await server.signUp()];
  expect((await warm(first.id, first.token)).status).toBe(200);
  await server.stop();
  expect((await warm(second.id, second.token)).status).toBe(200);
  const answer = await cold(first.id, first.token);
  expect(answer.status).toBe(503);
  expect(answer.headers.get("retry-after")).toBe("5");
  expect(answer.headers.get("content-type")).toContain("application/problem+json");
}, 20_000);

test("a token of another issuer is refused", async () => {
  const server = betterAuthServer("EdDSA");
  const list = await serviceFor(server, { JWT_ISSUER: "https://elsewhere.example.com" });
  const { id, token } = await server.signUp();
  expect((await list(id, token)).status).toBe(401);
}, 20_000);

test("thirty unknown keys cause at most four requests, and HS256 by the public keys is refused", async () => {
  const server = betterAuthServer("EdDSA");
  const list = await serviceFor(server);
  const { id, token } = await server.signUp();
  expect((await list(id, token)).status).toBe(200);
  const claims = { sub: id, iss: server.url, aud: server.url };
  const { privateKey } = (await crypto.subtle.generateKey("Ed25519", true, [
    "sign",
    "verify",
  ])) as CryptoKeyPair;
  const sign = (kid: string) =>
    new SignJWT(claims).setProtectedHeader({ alg: "EdDSA", kid }).setExpirationTime("5m").sign(privateKey);
  const answers = await Promise.all(
    Array.from({ length: 30 }, async (_, n) => list(id, await sign(`k${n}`))),
  );
  expect(answers.map(({ status }) => status)).toEqual(Array(30).fill(401));
  expect(server.fetches()).toBeLessThanOrEqual(4);
  const jwks = new Uint8Array(await (await fetch(`${server.url}/api/auth/jwks`)).arrayBuffer());
  const forged = await new SignJWT(claims)
    .setProtectedHeader({ alg: "HS256" })
    .setExpirationTime("5m")
    .sign(jwks);
  expect((await list(id, forged)).status).toBe(401);
}, 20_000);
