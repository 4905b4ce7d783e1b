import { afterAll, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { betterAuth } from "better-auth";
import { memoryAdapter } from "better-auth/adapters/memory";
import { jwt } from "better-auth/plugins";
import { chromium } from "playwright-core";
import { CHROMIUM, FLAGS } from "../chromium.ts";
import { SETTINGS, start } from "../harness.ts";

const stops: (() => unknown)[] = [];
afterAll(async () => {
  for (const stop of stops.reverse()) await stop();
});

/** The front end with Better Auth beside it, and a service that lists its origin by number but not by name. */
async function frontEnd() {
  const page = Bun.file(new URL("browser/page.html", import.meta.url));
  const server = Bun.serve({
    port: 0,
    fetch: (request): Response | Promise<Response> =>
      new URL(request.url).pathname === "/" ? new Response(page) : auth.handler(request),
  });
  stops.push(() => void server.stop(true));
  const listed: string = `http://127.0.0.1:${server.port}`;
  const unlisted: string = `http://localhost:${server.port}`;
  const auth = betterAuth({
    baseURL: listed,
    trustedOrigins: [unlisted],
    secret: SETTINGS.BETTER_AUTH_SECRET,
    database: memoryAdapter({ user: [], session: [], account: [], verification: [], jwks: [] }),
    emailAndPassword: { enabled: true },
    telemetry: { enabled: false },
    plugins: [jwt()],
  });
  const service = await start({
    BETTER_AUTH_JWKS_URL: `${listed}/api/auth/jwks`,
    CORS_ALLOWED_ORIGINS: listed,
  });
  stops.push(service.stop);
  const at = (origin: string) => `${origin}/?service=${encodeURIComponent(service.url)}`;
  return { listed: at(listed), unlisted: at(unlisted) };
}

/** What the page shows when it is done. */
async function visit(url: string) {
  const profile = await mkdtemp(join(tmpdir(), "tasks-browser-"));
  stops.push(() => rm(profile, { recursive: true, force: true }));
  const context = await chromium.launchPersistentContext(profile, { executablePath: CHROMIUM, args: FLAGS });
  try {
    const page = await context.newPage();
    await page.goto(url);
    await page.waitForSelector("body[data-done]", { timeout: 20_000 });
    return {
      steps: await page.locator("#steps li").allTextContents(),
      error: await page.locator("#error").textContent(),
    };
  } finally {
    await context.close();
  }
}

test.skipIf(!existsSync(CHROMIUM))(
  "a page on a listed origin signs up and works with tasks, and shows the service's own words",
  async () => {
    const { listed } = await frontEnd();
    expect(await visit(listed)).toEqual({
      steps: [
        "signed up",
        "created 201, Location seen",
        "listed Buy milk, X-Total-Count 1",
        "edited Buy oat milk",
        "completed true",
        "refused 422",
        'deleted 204 ""',
      ],
      error: expect.stringMatching(/title/i),
    });
  },
  60_000,
);

test.skipIf(!existsSync(CHROMIUM))(
  "on an origin that isn't listed the browser itself refuses",
  async () => {
    const { unlisted } = await frontEnd();
    expect((await visit(unlisted)).steps).toEqual(["signed up", "TypeError"]);
  },
  60_000,
);
