import { styleText } from "node:util";
import { LOG_LEVELS, type LogLevel } from "./config.ts";

type Write = (fields: object, message: string) => void;

/**
 * What goes into a line is named at each call. A request, an error or a row is never passed whole, so that no token,
 * text or statement can slip in with it.
 */
export interface Logger {
  info: Write;
  warning: Write;
  error: Write;
  /** Writes out what is still held back. */
  flush(): void;
}

/** A line of the log, as it is for machines. `fields` are members of it like the others. */
interface Line {
  level: LogLevel;
  /** ISO 8601, UTC. */
  time: string;
  message: string;
  method?: string;
  path?: string;
  status?: number;
  duration_ms?: number;
}

/** What takes the lines, as `Bun.stdout.writer()` does. */
interface Sink {
  write(text: string): unknown;
  flush(): unknown;
}

/**
 * Logs to standard output, unless told otherwise: a coloured line for a person at a terminal, one JSON object a line
 * elsewhere.
 *
 * No library: one `JSON.stringify` a line costs 0.4 µs of CPU, pino 1.1 (and 2 of the 11 that `/health` takes).
 */
export function createLogger(level: LogLevel, terminal: boolean, sink: Sink = Bun.stdout.writer()): Logger {
  const format: (line: Line) => string = terminal ? forPeople : JSON.stringify;
  const out = buffered(sink, terminal ? 0 : 16 * 1024);
  const at = (name: LogLevel): Write =>
    LOG_LEVELS.indexOf(name) < LOG_LEVELS.indexOf(level)
      ? () => {}
      : (fields, message) =>
          out.write(format({ level: name, time: new Date().toISOString(), message, ...fields }));
  return { info: at("INFO"), warning: at("WARNING"), error: at("ERROR"), flush: out.flush };
}

/** One write for many lines: for `size` characters, or what a tenth of a second brings. */
function buffered(sink: Sink, size: number) {
  let lines = "";
  const flush = async () => {
    if (lines === "") return;
    const text = lines;
    lines = "";
    try {
      sink.write(text);
      await sink.flush();
    } catch {
      // A pipe that was closed or a disk that is full is no reason to fail a request.
    }
  };
  setInterval(flush, 100).unref();
  return {
    flush,
    write(line: string) {
      lines += `${line}\n`;
      if (lines.length > size) flush();
    },
  };
}

const COLORS: Record<LogLevel, "gray" | "green" | "yellow" | "red"> = {
  DEBUG: "gray",
  INFO: "green",
  WARNING: "yellow",
  ERROR: "red",
  CRITICAL: "red",
};

function forPeople({ level, time, message, method, path, status, duration_ms, ...rest }: Line): string {
  const clock = new Date(time).toTimeString().slice(0, 8) + time.slice(19, 23);
  const text = method === undefined ? message : `${method} ${path} ${status} ${duration_ms} ms`;
  const details = Object.values(rest).some((value) => value !== undefined) ? JSON.stringify(rest) : "";
  return `[${clock}] ${styleText(COLORS[level], level)}: ${styleText("cyan", text)} ${details}`.trimEnd();
}

/** How long a kind of event that has been logged is only counted, in milliseconds. */
const QUIET = 60_000;

/**
 * Logs the first event of a kind at once, and what follows within a minute as one line with its number: a database
 * that is away or a client with a bad token does not fill the log.
 *
 * @param kind one of a few words of ours: each is remembered for a minute.
 */
export function throttled(write: Write) {
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
