import { DrizzleQueryError } from "drizzle-orm/errors";
import { DatabaseTimeout } from "./database.ts";

/**
 * What a failure of the database may be told by: a code (SQLSTATE, or the driver's or the system's own), and for
 * failures without one the kind of error. Never a message: Drizzle's holds the statement and its values.
 */
export interface Cause {
  name: string;
  code: string | undefined;
  outage: boolean;
}

/** Names the cause of a failure, and whether it is the database's absence (503) or a bug of ours (500). */
export function causeOf(error: unknown): Cause {
  const cause = unwrapped(error);
  const name = cause instanceof Error ? cause.name : typeof cause;
  const code = codeOf(cause);
  return { name, code, outage: isOutage(code, cause) };
}

/**
 * Does what only reads, and does it again if its connection turns out to have died: one that was idle may have,
 * a moment before it was used. A write is never repeated, since it may have been done.
 */
export async function retryRead<T>(read: () => Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (error) {
    if (!isLostConnection(error)) throw error;
    return read();
  }
}

function isLostConnection(error: unknown): boolean {
  const cause = unwrapped(error);
  return (
    /^(08|57P01|57P02|ERR_POSTGRES_CONNECTION_CLOSED)/.test(codeOf(cause) ?? "") ||
    (cause instanceof Error && /connection terminated/i.test(cause.message))
  );
}

/**
 * SQLSTATE classes 08 (connection), 53 (resources), 57P0x (shutdown, crash, starting up), 57014 (statement
 * timeout), 58 (system), 28 (login refused), 3D000 (no such database), 25006 (read-only: a replica after failover).
 */
const OUTAGE =
  /^(08|53|57P0|57014|58|28|3D000|25006)|^ERR_POSTGRES_.*(CONNECTION|TIMEOUT|TLS|CHANNEL|AUTHENTICATION|CANCELLED)|^E(CONN|PIPE|HOST|NET|NOTFOUND|TIMEDOUT|AI_)/;

const WITHOUT_CODE =
  /connection terminated|timeout exceeded when trying to connect|query read timeout|websocket/i;

const isOutage = (code: string | undefined, cause: unknown) =>
  code === undefined
    ? // Neon's driver fails to connect with an event, which is no `Error` and has no code.
      cause instanceof DatabaseTimeout ||
      (typeof ErrorEvent === "function" && cause instanceof ErrorEvent) ||
      (cause instanceof Error && WITHOUT_CODE.test(cause.message))
    : OUTAGE.test(code);

/** What the driver threw: Drizzle wraps the failure of a query, but not that of a BEGIN, a COMMIT or a connection. */
const unwrapped = (error: unknown) => (error instanceof DrizzleQueryError ? error.cause : error);

/** Bun.SQL keeps the SQLSTATE in `errno` and a name of its own in `code`; the others keep it in `code`. */
function codeOf(cause: unknown): string | undefined {
  if (typeof cause !== "object" || cause === null) return undefined;
  if ("errno" in cause && typeof cause.errno === "string") return cause.errno;
  if ("code" in cause && typeof cause.code === "string") return cause.code;
  return undefined;
}
