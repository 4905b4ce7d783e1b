import { beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync } from "node:fs";
import { cp, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { SQL } from "bun";
import { SignJWT } from "jose";
import { type BrowserContext, chromium, type Page } from "playwright-core";
import { dependencies, devDependencies } from "../../examples/nextjs/package.json";
import service from "../../package.json";
import { CHROMIUM, FLAGS } from "../chromium.ts";
import { databaseSettings, hasServer } from "../database.ts";
import { atEnd, emptyFolder, start } from "../harness.ts";
import { background, freePort, outside, run } from "../outside.ts";

// Packages are installed and Next.js builds.
setDefaultTimeout(300_000);

const EXAMPLE = join(import.meta.dir, "../../examples/nextjs");
const readme = await readFile(join(import.meta.dir, "../../README.md"), "utf8");
const recipe = /## Next\.js and Better Auth(.*?)\n## /s.exec(readme)?.[1] ?? "";
const ownReadme = await readFile(join(EXAMPLE, "README.md"), "utf8");

test("what the READMEs show of the recipe is what its files hold", async () => {
  const dedented = (code: string) => code.replace(/^ +/gm, "");
  const blockOf = (text: string) => dedented(/```ts\n(.*?)```/s.exec(text)?.[1] ?? "nothing");
  expect(dedented(await readFile(join(EXAMPLE, "lib/auth.ts"), "utf8"))).toContain(blockOf(recipe));
  expect(dedented(await readFile(join(EXAMPLE, "lib/tasks.ts"), "utf8"))).toContain(blockOf(ownReadme));
  const { "better-auth": betterAuth, jose, pg } = dependencies;
  expect(ownReadme).toContain(`npm install -E better-auth@${betterAuth} jose@${jose} pg@${pg}`);
  expect(ownReadme).toContain(`npm install -ED tsx@${devDependencies.tsx} @types/pg@${devDependencies["@types/pg"]}`);
});

test("the recipe's README names each of its files that an app of one's own needs", async () => {
  const files = Array.from(new Bun.Glob("{app,lib,scripts}/**/*.ts").scanSync(EXAMPLE));
  const named = Array.from(ownReadme.matchAll(/^\| `([^`]+)`/gm), ([, path]) => path);
  expect(named.toSorted()).toEqual(files.toSorted());
});

const missing = [
  [outside, "TEST_OUTSIDE=1"],
  [hasServer, "TEST_DATABASE_URL"],
  [existsSync(CHROMIUM), CHROMIUM],
].flatMap(([there, name]) => (there ? [] : [name]));

describe.skipIf(missing.length > 0)(`the recipe in a real Next.js (needs ${missing.join(", ") || "nothing"})`, () => {
  let app: string;
  let origin: string;
  let database: string;
  let secret: Uint8Array;
  let gateway: Awaited<ReturnType<typeof startGateway>>;

  beforeAll(async () => {
    const port = freePort();
    origin = `http://localhost:${port}`;
    const folder = await emptyFolder();
    await cp(EXAMPLE, join(folder, "service/examples/nextjs"), { recursive: true });
    gateway = await startGateway();
    database = (await databaseSettings()).DATABASE_URL ?? "";
    const environment = {
      DATABASE_URL: database,
      BETTER_AUTH_URL: origin,
      NEXT_PUBLIC_API_URL: gateway.url,
    };
    const steps = /```sh\n(.*?)npm run dev\n```/s.exec(recipe)?.[1] ?? "";
    await run(join(folder, "service"), ["bash", "-euc", steps], environment);
    const [, key = ""] = /^BETTER_AUTH_SECRET=(.*)$/m.exec(await readFile(join(folder, "service/.env"), "utf8")) ?? [];
    secret = new TextEncoder().encode(key);
    const { url, stop } = await start({ BETTER_AUTH_SECRET: key, CORS_ALLOWED_ORIGINS: origin });
    atEnd(stop);
    gateway.target = url;
    app = join(folder, "tasks-web");
    const next = join(app, "node_modules/.bin/next");
    await run(app, [next, "build"], environment);
    await background(app, [next, "start", "-p", String(port)], /Ready/, environment);
  });

  /** A browser of its own, with nobody signed in. */
  async function browser() {
    const context = await chromium.launchPersistentContext(await emptyFolder(), {
      executablePath: CHROMIUM,
      args: FLAGS,
    });
    context.setDefaultTimeout(30_000);
    // Each from an address of its own: Better Auth counts what comes from one.
    const address = `10.${crypto.getRandomValues(new Uint8Array(3)).join(".")}`;
    await context.route("**/api/auth/**", (route, request) =>
      route.continue({ headers: { ...request.headers(), "x-forwarded-for": address } }),
    );
    atEnd(() => context.close());
    return context;
  }

  const open = async (context: BrowserContext) => {
    const page = await context.newPage();
    await page.goto(origin);
    return page;
  };

  async function signUp(page: Page, email = `${crypto.randomUUID()}@example.com`) {
    await page.getByLabel("E-mail").fill(email);
    await page.getByLabel("Password").fill("correct horse");
    await page.getByRole("button", { name: "Sign up" }).click();
    await page.getByText(`Signed in as ${email}`).waitFor();
    return email;
  }

  async function add(page: Page, title: string) {
    await page.getByLabel("What is to be done?").fill(title);
    await page.getByRole("button", { name: "Add" }).click();
  }

  const shown = (page: Page, title: string) => page.getByRole("listitem").filter({ hasText: title }).waitFor();
  const titles = async (page: Page) => (await page.locator("li label").allTextContents()).map((title) => title.trim());
  /** What the page says to the person before it, once it says something of this kind. */
  const said = async (page: Page, words: RegExp) => {
    await page.getByRole("alert").filter({ hasText: words }).first().waitFor();
    return (await page.locator("p[role=alert]").textContent())?.trim();
  };

  test("somebody signs up, adds, completes and deletes, signs out and in again", async () => {
    const page = await open(await browser());
    const email = await signUp(page);
    await add(page, "Buy milk");
    await shown(page, "Buy milk");
    await add(page, "Buy bread");
    await shown(page, "Buy bread");
    await page.getByRole("checkbox", { name: "Buy milk" }).click();
    await page.getByRole("checkbox", { name: "Buy milk", checked: true }).waitFor();
    await page.getByRole("button", { name: "Delete Buy bread" }).click();
    await page.getByRole("button", { name: "Delete Buy bread" }).waitFor({ state: "detached" });
    await page.getByRole("button", { name: "Sign out" }).click();
    await page.getByLabel("E-mail").fill(email);
    await page.getByLabel("Password").fill("correct horse");
    await page.getByRole("button", { name: "Sign in" }).click();
    await shown(page, "Buy milk");
    expect(await titles(page)).toEqual(["Buy milk"]);
    // The server renders the list before any script has run.
    expect(await (await page.request.get(origin)).text()).toContain("Buy milk");
  });

  test("in two tabs, who signs in in one is who the other works for", async () => {
    const context = await browser();
    const first = await open(context);
    const answered: number[] = [];
    first.on("response", (answer) => void answered.push(answer.status()));
    await signUp(first);
    await add(first, "of the first");
    await shown(first, "of the first");
    const second = await open(context);
    await shown(second, "of the first");
    await second.getByRole("button", { name: "Sign out" }).click();
    await first.getByRole("button", { name: "Sign in" }).waitFor();
    const email = await signUp(second);
    // What a tab hears when it is looked at again.
    await first.evaluate('document.dispatchEvent(new Event("visibilitychange"))');
    await first.getByText(`Signed in as ${email}`).waitFor();
    await add(first, "of the second");
    await shown(first, "of the second");
    await second.reload();
    await shown(second, "of the second");
    expect([await titles(first), await titles(second)]).toEqual([["of the second"], ["of the second"]]);
    // It never tried the token of one on the tasks of the other.
    expect(answered).not.toContain(403);
  });

  test("a page that hasn't noticed yet is told so by its first request, and keeps nobody's token", async () => {
    const context = await browser();
    const first = await open(context);
    await signUp(first);
    // As on a machine that sleeps: the page hears nothing of what other tabs do.
    await first.route("**/api/auth/get-session", (route) => route.abort());
    const second = await open(context);
    await second.getByRole("button", { name: "Sign out" }).click();
    await signUp(second);
    await add(first, "whose?");
    expect(await said(first, /signed in meanwhile/)).toBe("Somebody else has signed in meanwhile: reload this page.");
    await add(second, "mine");
    await shown(second, "mine");
    await first.unroute("**/api/auth/get-session");
    await first.reload();
    await shown(first, "mine");
    expect(await titles(first)).toEqual(["mine"]);
  });

  test("an expired token is replaced without a word", async () => {
    const page = await open(await browser());
    await signUp(page);
    let handedOut = 0;
    await page.route("**/api/auth/token", async (route) => {
      const answer = await route.fetch();
      const { token } = (await answer.json()) as { token: string };
      const claims = JSON.parse(Buffer.from(token.split(".")[1] ?? "", "base64url").toString());
      const expired = await new SignJWT({ ...claims, exp: claims.iat - 60, iat: claims.iat - 120 })
        .setProtectedHeader({ alg: "HS256" })
        .sign(secret);
      await route.fulfill({ json: { token: handedOut++ === 0 ? expired : token } });
    });
    await add(page, "Buy milk");
    await shown(page, "Buy milk");
    expect([handedOut, await page.locator("p[role=alert]").textContent()]).toEqual([2, ""]);
  });

  test("a session that has ended is said in words", async () => {
    const page = await open(await browser());
    const email = await signUp(page);
    const client = new SQL({ url: database, max: 1 });
    await client`delete from session where "userId" = (select id from "user" where email = ${email})`;
    await client.close();
    await add(page, "Buy milk");
    expect(await said(page, /not signed in/)).toBe("You are not signed in any more: reload this page and sign in.");
    await page.reload();
    await page.getByRole("button", { name: "Sign in" }).waitFor();
  });

  test("a service that is down is said in words, on a page that opens all the same", async () => {
    const page = await open(await browser());
    await signUp(page);
    gateway.stop();
    await add(page, "Buy milk");
    const words = "The service can't be reached: check your connection and try again.";
    expect(await said(page, /reached/)).toBe(words);
    await page.reload();
    expect(await said(page, /reached/)).toBe(words);
    gateway.listen();
    await add(page, "Buy bread");
    await shown(page, "Buy bread");
    expect(await page.locator("p[role=alert]").textContent()).toBe("");
  });

  test("a browser without a network is told to look at its connection", async () => {
    const context = await browser();
    const page = await open(context);
    await signUp(page);
    await context.setOffline(true);
    await add(page, "Buy milk");
    expect(await said(page, /reached/)).toBe("The service can't be reached: check your connection and try again.");
  });

  test("Eden's client, by its README, compiles in it", async () => {
    const { dependencies, devDependencies } = service;
    const eden = `@elysiajs/eden@${devDependencies["@elysiajs/eden"]}`;
    const install = ["npm", "install", "-E", "--no-audit", "--no-fund"];
    await run(app, [...install, eden, `elysia@${dependencies.elysia}`]);
    const root = join(import.meta.dir, "../..");
    await run(root, ["bun", "run", "build:client"]);
    await cp(join(root, "dist/client.d.ts"), join(app, "lib/tasks-api.d.ts"));
    await writeFile(
      join(app, "lib/eden.ts"),
      `import { treaty } from "@elysiajs/eden";
        import type { App, Task } from "./tasks-api";
        const api = treaty<App>("http://localhost:8000", { parseDate: false });
        export const titles = async (user_id: string): Promise<Task["title"][] | undefined> =>
          (await api.api({ user_id }).tasks.get({ query: { limit: 20 } })).data?.map(({ title }) => title);
        // @ts-expect-error a title is needed
        export const wrong = () => api.api({ user_id: "" }).tasks.post({});`,
    );
    expect(await run(app, ["npx", "tsc", "--noEmit"])).toBe("");
  });

  test.each([
    [502, {}, "<html><h1>502 Bad Gateway</h1></html>", "The service is not quite there: try again in a moment."],
    [429, { "retry-after": "7" }, "{}", "That was a lot at once: try again in 7 seconds."],
    [503, { "retry-after": "5" }, "{}", "The service is busy: try again in 5 seconds."],
    [503, {}, '{"detail":"It may have been done."}', "It may have been done."],
    [412, {}, "{}", "This task has been changed elsewhere: reload this page to see it."],
  ])("a %d is said in words (%p, %s)", async (status, headers, body, words) => {
    const page = await open(await browser());
    await signUp(page);
    gateway.answer = () => new Response(body, { status, headers });
    await add(page, "Buy milk");
    const heard = await said(page, /./);
    gateway.answer = undefined;
    expect(heard).toBe(words);
  });
});

/** A proxy before the service, as in production: it can be down, or answer in the service's stead. */
async function startGateway() {
  const port = freePort();
  const gateway = {
    url: `http://localhost:${port}`,
    target: "",
    answer: undefined as (() => Response) | undefined,
    listen() {
      const server = Bun.serve({
        hostname: "127.0.0.1",
        port,
        async fetch(request): Promise<Response> {
          const { pathname, search } = new URL(request.url);
          const { method, headers } = request;
          const body = await request.text();
          const passed = await fetch(gateway.target + pathname + search, {
            method,
            headers,
            ...(body && { body }),
            decompress: false,
          });
          const instead = method === "OPTIONS" ? undefined : gateway.answer?.();
          if (instead === undefined) return passed;
          for (const [name, value] of passed.headers)
            if (name.startsWith("access-control") || name === "vary") instead.headers.set(name, value);
          return instead;
        },
      });
      gateway.stop = () => void server.stop(true);
    },
    stop() {},
  };
  gateway.listen();
  atEnd(() => gateway.stop());
  return gateway;
}
