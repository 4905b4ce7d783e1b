import { pino } from "pino";
import type { LogLevel } from "./config.ts";

export type Logger = pino.Logger;

/** Python's names of the levels, as `LOG_LEVEL` has them, and pino's. */
const LEVELS = {
  DEBUG: "debug",
  INFO: "info",
  WARNING: "warn",
  ERROR: "error",
  CRITICAL: "fatal",
} satisfies Record<LogLevel, pino.Level>;

const NAMES = Object.fromEntries(Object.entries(LEVELS).map(([name, level]) => [level, name]));

/**
 * Logs to standard output: a coloured line for a person at a terminal, one JSON object a line elsewhere.
 *
 * What goes into a line is named at each call. A request, an error or a row is never passed whole, so that no
 * token, text or statement can slip in with it.
 */
export const createLogger = (level: LogLevel, terminal: boolean): Logger =>
  terminal ? forPeople(LEVELS[level]) : forMachines(LEVELS[level]);

const forMachines = (level: pino.Level) =>
  pino(
    {
      level,
      base: null,
      messageKey: "message",
      timestamp: () => `,"time":"${new Date().toISOString()}"`,
      formatters: { level: (label) => ({ level: NAMES[label] }) },
    },
    buffered(),
  );

/**
 * One write for many lines, and none waits longer than a tenth of a second. (pino's own destination measures what
 * it holds anew at each line: 4.7 µs a line, against 2.1 so.)
 */
function buffered() {
  const sink = Bun.stdout.writer({ highWaterMark: 16 * 1024 });
  setInterval(() => sink.flush(), 100).unref();
  return { write: (line: string) => void sink.write(line), flushSync: () => void sink.flush() };
}

function forPeople(level: pino.Level) {
  // Loaded here: a service without a terminal starts sooner and smaller without it.
  const pretty: typeof import("pino-pretty") = require("pino-pretty");
  return pino(
    { level, base: null },
    pretty({
      sync: true,
      singleLine: true,
      translateTime: "SYS:HH:MM:ss.l",
      customPrettifiers: {
        level: (_level, _key, _line, { label, labelColorized }) =>
          labelColorized.replace(label, NAMES[label.toLowerCase()] ?? label),
      },
      ignore: "method,path,status,duration_ms",
      messageFormat: (line) =>
        line.method ? `${line.method} ${line.path} ${line.status} ${line.duration_ms} ms` : String(line.msg),
    }),
  );
}

/** How long a kind of event that has been logged is only counted, in milliseconds. */
const QUIET = 60_000;

/**
 * Logs the first event of a kind at once, and what follows within a minute as one line with its number: a database
 * that is away or a client with a bad token does not fill the log.
 *
 * @param kind one of a few words of ours: each is remembered for a minute.
 */
export function sparingly(write: (fields: object, message: string) => void) {
  const counts = new Map<string, number>();
  return (kind: string, fields: object, message: string) => {
    const count = counts.get(kind);
    counts.set(kind, count === undefined ? 0 : count + 1);
    if (count !== undefined) return;
    write(fields, message);
    setTimeout(() => {
      const repeated = counts.get(kind);
      counts.delete(kind);
      if (repeated) write({ ...fields, repeated }, `${message} (${repeated} more times in the last minute)`);
    }, QUIET).unref();
  };
}
