import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { connect } from "node:net";
import { loadConfig } from "../../src/config.ts";
import { createLogger } from "../../src/log.ts";
import { listening, outOfReach, SETTINGS, service, start } from "../harness.ts";

// Processes and databases take their time on a machine that does other things too.
setDefaultTimeout(60_000);

const ORIGIN = "http://localhost:3000";
const EXPOSED =
  "Link, Location, X-Total-Count, X-Request-Id, Retry-After, ETag, Idempotency-Replayed, RateLimit, RateLimit-Policy";
const cors = (answer: Response) => [...answer.headers.keys()].filter((name) => name.startsWith("access-control-"));
const preflight = (origin: string, url = service.url, headers = "authorization") =>
  fetch(`${url}/api/x/tasks/1`, {
    method: "OPTIONS",
    headers: {
      origin,
      "access-control-request-method": "PUT",
      "access-control-request-headers": headers,
    },
  });

describe("a listed origin", () => {
  test("is answered its preflight without a token", async () => {
    const answer = await preflight(ORIGIN);
    expect(answer.status).toBe(204);
    expect(Object.fromEntries(answer.headers)).toMatchObject({
      "access-control-allow-origin": ORIGIN,
      "access-control-allow-credentials": "true",
      "access-control-allow-methods": "GET, HEAD, POST, PUT, PATCH, DELETE",
      "access-control-allow-headers": "authorization",
      "access-control-max-age": "600",
    });
    expect(await answer.text()).toBe("");
  });

  test.each([
    "authorization,cache-control,content-type",
    "sentry-trace,baggage,traceparent,x-requested-with",
    "if-match,if-none-match,idempotency-key",
    "x-whatever-comes-next",
  ])("may send the headers %s", async (headers) => {
    expect((await preflight(ORIGIN, service.url, headers)).headers.get("access-control-allow-headers")).toBe(headers);
  });

  test("need not ask for a header", async () => {
    const answer = await fetch(`${service.url}/api/x/tasks`, {
      method: "OPTIONS",
      headers: { origin: ORIGIN, "access-control-request-method": "GET" },
    });
    expect([answer.status, answer.headers.get("access-control-allow-origin")]).toEqual([204, ORIGIN]);
    expect(answer.headers.get("access-control-allow-headers")).toBeNull();
  });

  test("may read every answer, errors too", async () => {
    const user = await service.newcomer();
    const origin = { origin: ORIGIN };
    for (const answer of [
      await user.get("", origin),
      await user.post({}, origin),
      await fetch(user.path(), { headers: origin }),
      await fetch(`${service.url}/nope`, { headers: origin }),
      await fetch(`${service.url}/health`, { method: "PUT", headers: origin }),
    ]) {
      expect(answer.headers.get("access-control-allow-origin")).toBe(ORIGIN);
      expect(answer.headers.get("access-control-allow-credentials")).toBe("true");
      expect(answer.headers.get("access-control-expose-headers")).toBe(EXPOSED);
      expect(answer.headers.get("vary")).toStartWith("Origin");
    }
  });

  test.each([
    "null",
    "constructor",
    "__proto__",
    "toString",
    "http://localhost:3001",
    "https://localhost:3000",
    "http://localhost:3000.evil.example",
    "http://evil.example/http://localhost:3000",
    "http://localhost:3000/",
    "HTTP://LOCALHOST:3000",
    "localhost:3000",
    "*",
  ])("is not %s", async (origin) => {
    const user = await service.newcomer();
    for (const answer of [await preflight(origin), await user.get("", { origin }), await user.post({}, { origin })]) {
      expect(cors(answer)).toEqual([]);
      expect(answer.headers.get("vary")).toStartWith("Origin");
    }
  });

  test("is needed: without one there are no such headers", async () => {
    expect(cors(await (await service.newcomer()).get())).toEqual([]);
  });

  test("may be any, in development only, and then without credentials", async () => {
    const open = await start({ CORS_ALLOWED_ORIGINS: "*" });
    const answer = await preflight("http://anywhere.example", open.url);
    expect(answer.headers.get("access-control-allow-origin")).toBe("http://anywhere.example");
    expect(answer.headers.get("access-control-allow-credentials")).toBeNull();
    await open.stop();
  });
});

describe("a listed pattern", async () => {
  const LISTED = [
    "https://my-app-*-my-team.vercel.app",
    "https://*.example.com",
    "https://pr-*.dev.example.org:8443",
    "capacitor://localhost",
    "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
  ];
  const there = await start({ CORS_ALLOWED_ORIGINS: JSON.stringify(LISTED) });

  test.each([
    "https://my-app-a-my-team.vercel.app",
    "https://my-app-git-main-2-my-team.vercel.app",
    "https://www.example.com",
    "https://x-1.example.com",
    "https://pr-17.dev.example.org:8443",
    "capacitor://localhost",
    "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
  ])("lets in %s", async (origin) => {
    const answers = [await preflight(origin, there.url), await fetch(`${there.url}/nope`, { headers: { origin } })];
    for (const answer of answers) {
      expect(answer.headers.get("access-control-allow-origin")).toBe(origin);
      expect(answer.headers.get("access-control-allow-credentials")).toBe("true");
    }
  });

  test.each([
    ORIGIN,
    "https://my-app--my-team.vercel.app",
    "https://my-app-my-team.vercel.app",
    "https://x.my-app-a-my-team.vercel.app",
    "https://my-app-a.b-my-team.vercel.app",
    "https://my-app-a-my-team.vercel.app.evil.io",
    "https://my-app-a-my-team.vercel.app:8443",
    "https://my-app-a-my-team.vercel.app:443",
    "https://my-app-a-my-team.vercel.app/",
    "https://my-app-a-my-team.vercel.app.",
    "http://my-app-a-my-team.vercel.app",
    "https://MY-APP-A-MY-TEAM.VERCEL.APP",
    "HTTPS://my-app-a-my-team.vercel.app",
    "https://my-app-A-my-team.vercel.app",
    "https://my-app-a@evil.io/-my-team.vercel.app",
    "https://user@my-app-a-my-team.vercel.app",
    "https://my-app-a%2eevil-my-team.vercel.app",
    "https://my-app-a_b-my-team.vercel.app",
    "https://my-app-a/-my-team.vercel.app",
    "https://my-app-a?-my-team.vercel.app",
    "https://my-app-*-my-team.vercel.app",
    "https://my-app-a-my-teamxvercel.app",
    "https://my-app-a-my-team.vercel.app https://evil.io",
    "https://my-app-a-my-team.vercel.app,https://evil.io",
    `https://my-app-${"a".repeat(64)}-my-team.vercel.app`,
    "https://example.com",
    "https://.example.com",
    "https://a.b.example.com",
    "https://evilexample.com",
    "https://www.example.com.evil.io",
    "https://xn--bcher-kva.example.com",
    "https://pr-1.dev.example.org",
    "capacitor://localhost:80",
    "capacitor://localhost.evil.io",
    "Capacitor://localhost",
    "chrome-extension://abcdefghijklmnopabcdefghijklmnoq",
    "null",
  ])("does not let in %s", async (origin) => {
    const answers = [await preflight(origin, there.url), await fetch(`${there.url}/nope`, { headers: { origin } })];
    for (const answer of answers) {
      expect(cors(answer)).toEqual([]);
      expect(answer.headers.get("vary")).toStartWith("Origin");
    }
  });
});

describe("a page on an origin that is not listed", () => {
  /** The real app, with its warnings. */
  function warned(origins = ORIGIN) {
    const warnings: { origin: string; message: string }[] = [];
    const log = {
      ...createLogger("CRITICAL", false),
      warning: (fields: object, message: string) => warnings.push({ ...(fields as { origin: string }), message }),
    };
    const config = loadConfig({ ...SETTINGS, CORS_ALLOWED_ORIGINS: origins });
    const { url, stop } = listening({ config, db: outOfReach(), log });
    return { port: Number(new URL(url).port), warnings, stop };
  }
  const send = (port: number, headers: Record<string, string>) => fetch(`http://localhost:${port}/health`, { headers });

  test("leaves one warning, which names it and the setting", async () => {
    const app = warned();
    for (let i = 0; i < 5; i++) await send(app.port, { origin: "https://app.example.com" });
    await preflight("https://app.example.com", `http://localhost:${app.port}`);
    await send(app.port, { origin: "null" });
    await app.stop();
    expect(app.warnings.map(({ origin }) => origin)).toEqual(["https://app.example.com", "null"]);
    expect(app.warnings[0]?.message).toContain("https://app.example.com");
    expect(app.warnings[0]?.message).toContain("CORS_ALLOWED_ORIGINS");
  });

  test("leaves none if it is listed, or the service's own, or there is no page", async () => {
    const app = warned(`${ORIGIN},https://*.example.com`);
    for (const headers of [
      { origin: ORIGIN },
      { origin: "https://a.example.com" },
      { origin: `http://localhost:${app.port}` },
      { origin: "https://tasks.example.net", host: "tasks.example.net" },
      { origin: "https://tasks.example.net", "sec-fetch-site": "same-origin" },
      {},
    ])
      expect((await send(app.port, headers as Record<string, string>)).status).toBe(200);
    await app.stop();
    expect(app.warnings).toEqual([]);
  });

  test("takes no memory and no lines beyond a few, however many there are", async () => {
    const app = warned();
    for (let i = 0; i < 200; i++) await send(app.port, { origin: `https://${i}.example.com` });
    await app.stop();
    expect(app.warnings.length).toBe(21);
  });

  test("can't write into the log what it likes", async () => {
    const app = warned();
    await send(app.port, { origin: `https://${"x".repeat(10_000)}` });
    await new Promise<void>((resolve, reject) => {
      const socket = connect(app.port, "127.0.0.1", () =>
        socket.write(
          "GET /health HTTP/1.1\r\nHost: x\r\nOrigin: https://a\tb\x80\xff\r\nConnection: close\r\n\r\n",
          "latin1",
        ),
      );
      socket
        .on("data", () => {})
        .on("close", () => resolve())
        .on("error", reject);
    });
    await app.stop();
    expect(app.warnings.length).toBe(2);
    for (const { origin, message } of app.warnings) {
      expect(origin).toMatch(/^[\x21-\x7e]{1,100}$/);
      expect(message.length).toBeLessThan(250);
    }
  });
});
