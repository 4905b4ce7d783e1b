import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { type BetterAuthOptions, betterAuth } from "better-auth";
import { memoryAdapter } from "better-auth/adapters/memory";
import { jwt } from "better-auth/plugins";
import { decodeProtectedHeader, SignJWT } from "jose";
import { SETTINGS, service as shared, start } from "../harness.ts";

// Processes and databases take their time on a machine that does other things too.
setDefaultTimeout(60_000);

const stops: (() => unknown)[] = [];
afterAll(() => Promise.all(stops.map((stop) => stop())));

type Algorithm = "EdDSA" | "ES256" | "ES512" | "RS256" | "PS256";

type Auth = { handler(request: Request): Promise<Response> };

/** A server on a port of its own for what is made for its address, and the number of requests for its JWKS. */
async function serve(make: (url: string) => Auth | Promise<Auth>) {
  let fetches = 0;
  let auth: Auth;
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    async fetch(request): Promise<Response> {
      if (request.url.endsWith("/jwks")) fetches++;
      return auth.handler(request);
    },
  });
  // Not waited for: Bun's promise waits for connections that another process keeps.
  stops.push(() => void server.stop(true));
  const url: string = `http://127.0.0.1:${server.port}`;
  auth = await make(url);
  const tokenFor = async (cookie: string) => {
    const answer = await fetch(`${url}/api/auth/token`, { headers: { cookie } });
    return ((await answer.json()) as { token: string }).token;
  };
  return {
    url,
    fetches: () => fetches,
    stop: () => void server.stop(true),
    tokenFor,
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
      const cookies = answer.headers.getSetCookie().map((line) => line.split(";")[0] ?? "");
      const cookie = cookies.join("; ");
      return { id: user.id, cookies, cookie, token: await tokenFor(cookie) };
    },
  };
}

const emptyDatabase = () => ({ user: [], session: [], account: [], verification: [], jwks: [] as object[] });

/** Better Auth with its `jwt` plugin as it comes, but for the algorithm. */
const betterAuthServer = (alg: Algorithm, database = emptyDatabase(), options: Partial<BetterAuthOptions> = {}) =>
  serve((baseURL) =>
    betterAuth({
      baseURL,
      secret: SETTINGS.BETTER_AUTH_SECRET,
      database: memoryAdapter(database),
      emailAndPassword: { enabled: true },
      rateLimit: { enabled: false },
      telemetry: { enabled: false },
      plugins: [jwt({ jwks: { keyPairConfig: { alg } } })],
      ...options,
    }),
  );

/** The example's `lib/auth.ts` as it stands, which the README shows, with a `database.ts` beside it. */
async function recipe(url: string): Promise<Auth> {
  const block = await Bun.file(new URL("../../examples/nextjs/lib/auth.ts", import.meta.url)).text();
  // Where its imports are found, and nothing is under version control.
  const directory = join(import.meta.dir, "../../node_modules", `.recipe-${crypto.randomUUID()}`);
  stops.push(() => rm(directory, { recursive: true, force: true }));
  await Bun.write(join(directory, "auth.ts"), block);
  await Bun.write(
    join(directory, "database.ts"),
    `import { memoryAdapter } from "better-auth/adapters/memory";
     export const database = memoryAdapter(${JSON.stringify(emptyDatabase())});`,
  );
  const { BETTER_AUTH_URL, BETTER_AUTH_SECRET } = process.env;
  Object.assign(process.env, { BETTER_AUTH_URL: url, BETTER_AUTH_SECRET: SETTINGS.BETTER_AUTH_SECRET });
  try {
    return ((await import(join(directory, "auth.ts"))) as { auth: Auth }).auth;
  } finally {
    restore("BETTER_AUTH_URL", BETTER_AUTH_URL);
    restore("BETTER_AUTH_SECRET", BETTER_AUTH_SECRET);
  }
}

function restore(name: string, value: string | undefined) {
  if (value === undefined) delete process.env[name];
  else process.env[name] = value;
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
    const server = await betterAuthServer(alg);
    const list = await serviceFor(server);
    const { id, token } = await server.signUp();
    expect((await list(id, token)).status).toBe(200);
  },
  20_000,
);

test("warm keys outlive an outage, and without any the answer is 503", async () => {
  const server = await betterAuthServer("EdDSA");
  const warm = await serviceFor(server);
  const cold = await serviceFor(server);
  const [first, second] = [await server.signUp(), await server.signUp()];
  expect((await warm(first.id, first.token)).status).toBe(200);
  server.stop();
  expect((await warm(second.id, second.token)).status).toBe(200);
  const answer = await cold(first.id, first.token);
  expect(answer.status).toBe(503);
  expect(answer.headers.get("retry-after")).toBe("5");
  // To sign in again would not help.
  expect(answer.headers.get("www-authenticate")).toBeNull();
  expect(await answer.json()).toMatchObject({ status: 503, title: "Service Unavailable" });
});

test("a token of another issuer is refused", async () => {
  const server = await betterAuthServer("EdDSA");
  const list = await serviceFor(server, { JWT_ISSUER: "https://elsewhere.example.com" });
  const { id, token } = await server.signUp();
  expect((await list(id, token)).status).toBe(401);
});

test("thirty unknown keys cause at most four requests, and HS256 by the public keys is refused", async () => {
  const server = await betterAuthServer("EdDSA");
  const list = await serviceFor(server);
  const { id, token } = await server.signUp();
  expect((await list(id, token)).status).toBe(200);
  const claims = { sub: id, iss: server.url, aud: server.url };
  const { privateKey } = (await crypto.subtle.generateKey("Ed25519", true, ["sign", "verify"])) as CryptoKeyPair;
  const sign = (kid: string) =>
    new SignJWT(claims).setProtectedHeader({ alg: "EdDSA", kid }).setExpirationTime("5m").sign(privateKey);
  const answers = await Promise.all(Array.from({ length: 30 }, async (_, n) => list(id, await sign(`k${n}`))));
  expect(answers.map(({ status }) => status)).toEqual(Array(30).fill(401));
  expect(server.fetches()).toBeLessThanOrEqual(4);
  const jwks = new Uint8Array(await (await fetch(`${server.url}/api/auth/jwks`)).arrayBuffer());
  const forged = await new SignJWT(claims).setProtectedHeader({ alg: "HS256" }).setExpirationTime("5m").sign(jwks);
  expect((await list(id, forged)).status).toBe(401);
});

test("the README's recipe issues HS256 tokens that a service with the same secret takes", async () => {
  const server = await serve(recipe);
  const { id, token } = await server.signUp();
  expect(decodeProtectedHeader(token).alg).toBe("HS256");
  const answer = await fetch(`${shared.url}/api/${id}/tasks`, {
    headers: { authorization: `Bearer ${token}` },
  });
  expect(answer.status).toBe(200);
});

test("with both configured, a token of either kind is taken", async () => {
  const published = await betterAuthServer("EdDSA");
  const secret = await serve(recipe);
  const service = await start({
    BETTER_AUTH_JWKS_URL: `${published.url}/api/auth/jwks`,
  });
  stops.push(service.stop);
  const users = [await published.signUp(), await secret.signUp()];
  const answers = await Promise.all(
    users.map(({ id, token }) =>
      fetch(`${service.url}/api/${id}/tasks`, { headers: { authorization: `Bearer ${token}` } }),
    ),
  );
  expect(answers.map(({ status }) => status)).toEqual([200, 200]);
});

test("a key made while the service runs is found at its first use", async () => {
  const database = emptyDatabase();
  const server = await betterAuthServer("EdDSA", database);
  const list = await serviceFor(server);
  const { id, cookie, token } = await server.signUp();
  expect((await list(id, token)).status).toBe(200);
  database.jwks.length = 0;
  const rotated = await server.tokenFor(cookie);
  expect(decodeProtectedHeader(rotated).kid).not.toBe(decodeProtectedHeader(token).kid);
  expect((await list(id, rotated)).status).toBe(200);
});

test("a token from an e-mail-verification link is refused", async () => {
  const sent: string[] = [];
  const server = await betterAuthServer("EdDSA", emptyDatabase(), {
    emailVerification: {
      sendOnSignUp: true,
      sendVerificationEmail: async ({ token }) => void sent.push(token),
    },
  });
  const list = await serviceFor(server);
  const { id } = await server.signUp();
  expect(decodeProtectedHeader(sent[0] ?? "").alg).toBe("HS256");
  expect((await list(id, sent[0] ?? "")).status).toBe(401);
});

test("the token of a cookie cache is refused", async () => {
  const server = await betterAuthServer("EdDSA", emptyDatabase(), {
    session: { cookieCache: { enabled: true, strategy: "jwt" } },
  });
  const list = await serviceFor(server);
  const { id, cookies } = await server.signUp();
  const cached = cookies.find((cookie) => cookie.includes("session_data="))?.split("=")[1] ?? "";
  expect(decodeProtectedHeader(cached).alg).toBe("HS256");
  expect((await list(id, cached)).status).toBe(401);
});
