import { afterAll, beforeAll, expect, test } from "bun:test";
import type { LogLevel } from "../src/config.ts";
import { createLogger, throttled } from "../src/log.ts";

/** What three lines come out as at this level, to a terminal or not. */
function printed(level: LogLevel, terminal: boolean) {
  const sink = new Bun.ArrayBufferSink();
  const log = createLogger(level, terminal, sink);
  const request = { method: "GET", path: "/health", status: 200, duration_ms: 1.5 };
  log.info({ ...request, request_id: "r1", user_id: undefined }, "request");
  log.warning({}, "careful: \u{1f600} \ud800 \n");
  log.error({ code: "57P01" }, "the end");
  log.flush();
  return new TextDecoder().decode(sink.end()).split("\n").slice(0, -1);
}

beforeAll(() => {
  process.env.FORCE_COLOR = "1";
});
afterAll(() => {
  delete process.env.FORCE_COLOR;
});

test("a person at a terminal reads one coloured line a request", () => {
  const lines = printed("INFO", true);
  expect(lines[0]).toContain("\u001b[32mINFO\u001b[39m");
  expect(lines.map(Bun.stripANSI)[0]).toMatch(
    /^\[\d\d:\d\d:\d\d\.\d{3}\] INFO: GET \/health 200 1\.5 ms \{"request_id":"r1"\}$/,
  );
  expect(lines.map(Bun.stripANSI).at(-1)).toMatch(/ERROR: the end \{"code":"57P01"\}$/);
});

test("a machine reads one JSON object a line", () => {
  const time = expect.stringMatching(/^\d{4}-.*Z$/);
  expect(printed("INFO", false).map((line) => JSON.parse(line))).toEqual([
    {
      level: "INFO",
      time,
      message: "request",
      method: "GET",
      path: "/health",
      status: 200,
      duration_ms: 1.5,
      request_id: "r1",
    },
    { level: "WARNING", time, message: "careful: \u{1f600} \ud800 \n" },
    { level: "ERROR", time, message: "the end", code: "57P01" },
  ]);
});

test.each<[LogLevel, number]>([
  ["DEBUG", 3],
  ["WARNING", 2],
  ["CRITICAL", 0],
])("at %s, %d of them are written", (level, number) => {
  expect(printed(level, false)).toHaveLength(number);
});

test.each([
  [
    "is closed",
    () => {
      throw new Error("EPIPE");
    },
  ],
  ["fills up", () => Promise.reject(new Error("ENOSPC"))],
])("a log that %s stops nothing", async (_, flush) => {
  const log = createLogger("INFO", false, { write: () => {}, flush });
  log.info({}, "x".repeat(20_000));
  await Bun.sleep(0);
});

test("what is repeated is written once", () => {
  const lines: string[] = [];
  const write = throttled((_, message) => lines.push(message));
  for (const kind of ["a", "a", "b", "a"]) write(kind, {}, `kind ${kind}`);
  expect(lines).toEqual(["kind a", "kind b"]);
});
