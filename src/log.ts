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
  /** Hands over what is still held back. Resolves when the reader has taken it. */
  flush(): Promise<void> | undefined;
}

/** A line of the log, as it is for machines. `fields` are members of it like the others. */
interface Line {
  level: keyof typeof COLORS;
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
  const at = (name: Line["level"]): Write =>
    LOG_LEVELS.indexOf(name) < LOG_LEVELS.indexOf(level)
      ? () => {}
      : (fields, message) => out.write(format({ level: name, time: new Date().toISOString(), message, ...fields }));
  const warning = at("WARNING");
  const out = buffered(sink, terminal ? 0 : 16 * 1024, (dropped) =>
    warning({ dropped }, `${dropped} lines were dropped: the log was not read`),
  );
  return { info: at("INFO"), warning, error: at("ERROR"), flush: out.flush };
}

/** The most that is held for a reader that has stalled, in characters. What comes then is dropped. */
const MAX_HELD = 8 * 1024 * 1024;

/**
 * One write for many lines: for `size` characters, or what a tenth of a second brings. The next one waits until the
 * reader has taken it, since Bun's writer blocks nobody and holds whatever it is given.
 */
function buffered(sink: Sink, size: number, onDropped: (count: number) => void) {
  let lines = "";
  let dropped = 0;
  /** Until the reader has taken what was written. A reader that keeps up needs no waiting for. */
  let stalled: Promise<void> | undefined;

  /** Writes at once, so that what is left when the process exits gets out. */
  function send() {
    const text = lines;
    const missing = dropped;
    lines = "";
    dropped = 0;
    if (missing > 0) onDropped(missing);
    try {
      sink.write(text);
      const taken = sink.flush();
      if (taken instanceof Promise) stalled = taken.catch(() => {}).then(goOn);
    } catch {
      // A pipe that was closed or a disk that is full is no reason to fail a request.
    }
  }
  function goOn(): Promise<void> | undefined {
    stalled = undefined;
    return flush();
  }
  const flush = () => {
    if (stalled === undefined && lines !== "") send();
    return stalled;
  };
  setInterval(flush, 100).unref();
  return {
    flush,
    write(line: string) {
      if (lines.length + line.length > MAX_HELD) dropped++;
      else lines += `${line}\n`;
      if (lines.length > size) flush();
    },
  };
}

const COLORS = { INFO: "green", WARNING: "yellow", ERROR: "red" } as const;

function forPeople({ level, time, message, method, path, status, duration_ms, ...rest }: Line): string {
  const clock = new Date(time).toTimeString().slice(0, 8) + time.slice(19, 23);
  const text = method === undefined ? message : `${method} ${path} ${status} ${duration_ms} ms`;
  const details = Object.values(rest).some((value) => value !== undefined) ? JSON.stringify(rest) : "";
  return `[${clock}] ${styleText(COLORS[level], level)}: ${styleText("cyan", text)} ${details}`.trimEnd();
}

/** How long a kind of event that has been logged is only counted. */
const QUIET_MS = 60_000;

/**
 * Logs the first event of a kind at once, and what follows within a minute as one line with its number: a database
 * that is away or a client with a bad token does not fill the log.
 *
 * @param kind what counts as the same event. Each is remembered for a minute, so there must be few.
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
    }, QUIET_MS).unref();
  };
}
