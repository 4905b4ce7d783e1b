import { afterAll, beforeAll, expect, jest, test } from "bun:test";
import type { LogLevel } from "../../src/config.ts";
import { createLogger, throttled } from "../../src/log.ts";

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

test("a log whose reader stalls holds 8 MiB, counts what it drops, and says so once it is read again", async () => {
  const taken: string[] = [];
  const reader = Promise.withResolvers<void>();
  const log = createLogger("INFO", false, {
    write: (text) => taken.push(text),
    flush: () => reader.promise,
  });
  for (let n = 0; n < 20_000; n++) log.info({ n, padding: "x".repeat(900) }, "request");
  expect(taken.join("").length).toBeLessThan(32 * 1024);
  reader.resolve();
  await log.flush();
  await log.flush();
  const text = taken.join("");
  const lines = text
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  const kept = lines.filter(({ message }) => message === "request");
  expect(kept.map(({ n }) => n)).toEqual(kept.map((_, n) => n));
  expect(text.length).toBeGreaterThan(8 * 1024 * 1024 - 1024);
  expect(text.length).toBeLessThan(8 * 1024 * 1024 + 64 * 1024);
  expect(lines.filter(({ level }) => level === "WARNING")).toMatchObject([{ dropped: 20_000 - kept.length }]);
});

test("what is repeated within a minute is written once, then counted, and a minute later written anew", () => {
  jest.useFakeTimers();
  const lines: [object, string][] = [];
  const write = throttled((fields, message) => lines.push([fields, message]));
  for (const kind of ["a", "a", "b", "a"]) write(kind, { kind }, `kind ${kind}`);
  expect(lines.splice(0)).toEqual([
    [{ kind: "a" }, "kind a"],
    [{ kind: "b" }, "kind b"],
  ]);
  jest.advanceTimersByTime(59_000);
  expect(lines).toEqual([]);
  jest.advanceTimersByTime(1_000);
  expect(lines.splice(0)).toEqual([[{ kind: "a", repeated: 2 }, "kind a (2 more times in the last minute)"]]);
  for (const kind of ["a", "b"]) write(kind, { kind }, `kind ${kind}`);
  expect(lines).toEqual([
    [{ kind: "a" }, "kind a"],
    [{ kind: "b" }, "kind b"],
  ]);
  jest.useRealTimers();
});
