import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { type Browser, type BrowserContextOptions, chromium } from "playwright-core";
import type { OpenApi } from "../../src/docs/document.ts";
import { CHROMIUM, FLAGS } from "../chromium.ts";
import { service } from "../harness.ts";

setDefaultTimeout(120_000);

let browser: Browser | undefined;
afterAll(() => browser?.close(), 60_000);

/** The page, with all its operations. */
async function visit(options: BrowserContextOptions = {}) {
  browser ??= await chromium.launch({ executablePath: CHROMIUM, args: FLAGS });
  const context = await browser.newContext(options);
  context.setDefaultTimeout(30_000);
  const page = await context.newPage();
  const complaints: string[] = [];
  page.on("pageerror", ({ message }) => void complaints.push(message));
  await page.goto(`${service.url}/docs`);
  await page.locator(".opblock").first().waitFor();
  const document = (await (await fetch(`${service.url}/openapi.json`)).json()) as OpenApi;
  const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods as Record<string, { operationId: string; requestBody?: object }>).map(
      ([method, { operationId }]) => ({
        operationId,
        deletes: method === "delete",
        block: page.locator(`.opblock[id$="-${operationId}"]`),
        named: path.includes("{id}"),
      }),
    ),
  );
  return { page, operations, complaints };
}

interface Finding {
  id: string;
  impact: string;
  nodes: { target: string[] }[];
}

describe.skipIf(!existsSync(CHROMIUM))(`the page of the docs (needs ${CHROMIUM})`, () => {
  test.each([
    ["light", 1280],
    ["dark", 375],
  ] as const)("is readable in %s, %d wide, with every operation open", async (colorScheme, width) => {
    const { page, operations } = await visit({
      colorScheme,
      viewport: { width, height: 900 },
      // The page lets in no script but its own; this one looks at it.
      bypassCSP: true,
    });
    for (const { block } of operations) await block.locator(".opblock-summary-control").click();
    await page
      .locator(".opblock.is-open .responses-table")
      .nth(operations.length - 1)
      .waitFor();
    expect(await page.evaluate<number>("document.documentElement.scrollWidth")).toBe(width);

    await page.evaluate(await readFile(require.resolve("axe-core/axe.min.js"), "utf8"));
    const { violations } = await page.evaluate<{ violations: Finding[] }>("axe.run()");
    const grave = violations.filter(({ impact }) => impact === "serious" || impact === "critical");
    expect(
      grave.map(({ id, nodes }) => [id, ...new Set(nodes.map(({ target }) => target.join(" ").replace(/^#\S+/, "…")))]),
    ).toEqual([
      // Swagger UI's own: the head of an operation is a button, and holds the one that copies its path.
      ["nested-interactive", "… > .opblock-summary > .opblock-summary-control"],
    ]);
  });

  test("is worked by keyboard: the first operation opens and closes", async () => {
    const { page } = await visit();
    const first = page.locator(".opblock").first();
    await first.locator(".opblock-summary-control").focus();
    await page.keyboard.press("Enter");
    await first.locator(".execute").waitFor();
    await first.locator(".opblock-summary-control").focus();
    await page.keyboard.press("Enter");
    await first.locator(".execute").waitFor({ state: "detached" });
  });

  test("tries every operation with success at the first go, for whoever has signed in", async () => {
    const user = await service.newcomer("auth0|ünï/code");
    await user.task();
    const { page, operations, complaints } = await visit();
    await page.locator(".btn.authorize").click();
    await page.locator(".auth-container input").fill(user.token);
    await page.locator(".auth-container .authorize").click();
    await page.locator(".btn-done").click();

    const statuses: unknown[] = [];
    for (const { operationId, deletes, named, block } of operations) {
      await block.locator(".opblock-summary-control").click();
      // What is to be deleted is for a person to say.
      const { id } = await user.task();
      const blank = named
        ? block.locator('tr[data-param-name="id"] input')
        : block.locator("tr[data-param-name=nothing]");
      for (const field of deletes ? await blank.all() : []) await field.fill(String(id));
      for (const field of deletes ? await block.locator('tr[data-param-name="status"] select').all() : [])
        await field.selectOption("completed");
      await block.locator(".execute").click();
      const status = block.locator(".live-responses-table .response .response-col_status").first();
      statuses.push([operationId, Number.parseInt((await status.textContent()) ?? "", 10)]);
    }
    const right = new Map([
      ["createTask", 201],
      ["deleteTask", 204],
    ]);
    expect(statuses).toEqual(operations.map(({ operationId }) => [operationId, right.get(operationId) ?? 200]));
    expect(complaints).toEqual([]);
  });
});
