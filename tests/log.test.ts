import { expect, test } from "bun:test";
import { createLogger, sparingly } from "../src/log.ts";

test("a person at a terminal reads one coloured line a request", async () => {
  const script = `
    const { createLogger } = await import("./src/log.ts");
    const log = createLogger("INFO", true);
    log.info({ method: "GET", path: "/health", status: 200, duration_ms: 1.5, request_id: "r1" }, "request");
    log.debug("not at this level");
    log.fatal("the end");
  `;
  const { stdout } = Bun.spawn(["bun", "-e", script], { stdout: "pipe" });
  const lines = (await stdout.text()).trim().split("\n").map(Bun.stripANSI);
  expect(lines).toEqual([
    expect.stringMatching(/^\[\d\d:\d\d:\d\d\.\d{3}\] INFO: GET \/health 200 1\.5 ms \{"request_id":"r1"\}$/),
    expect.stringMatching(/CRITICAL: the end$/),
  ]);
});

test("the levels have Python's names, in both ways of writing", () => {
  for (const terminal of [true, false]) {
    const log = createLogger("WARNING", terminal);
    expect([log.isLevelEnabled("warn"), log.isLevelEnabled("info")]).toEqual([true, false]);
  }
});

test("what is repeated is written once", () => {
  const lines: string[] = [];
  const write = sparingly((_, message) => lines.push(message));
  for (const kind of ["a", "a", "b", "a"]) write(kind, {}, `kind ${kind}`);
  expect(lines).toEqual(["kind a", "kind b"]);
});
