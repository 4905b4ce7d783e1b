import { DrizzleQueryError } from "drizzle-orm/errors";

/** No answer came in time: the peer is frozen, or the server doesn't end its statements. */
export class DatabaseTimeout extends Error {
  override readonly name = "DatabaseTimeout";
  readonly code = "DATABASE_TIMEOUT";
}

/** The statement was not sent, since it could not have been answered in time. */
export class Overloaded extends Error {
  override readonly name = "Overloaded";
  readonly code = "OVERLOADED";
}

/** The statement was not sent, since its owner has too many waiting. */
export class TooManyWaiting extends Error {}

/** The client hung up. Nobody waits for an answer. */
export class HungUp extends Error {}

/** The connection was lost while something was changed: it may have been done. `cause` has the loss. */
export class OutcomeUnknown extends Error {}

/**
 * What a failure of the database may be told by. The code is SQLSTATE's, or the driver's or the system's own. Only
 * `sentence` holds words of the server, and only for failures whose words hold no value of a row.
 */
interface Cause {
  name: string;
  code: string | undefined;
  /** The database's absence (503), and not a bug of ours (500). */
  outage: boolean;
  /** A write that may have been done. */
  outcomeUnknown: boolean;
  sentence: string | undefined;
}

export function causeOf(error: unknown): Cause {
  const cause = driverError(error);
  const code = codeOf(cause);
  return {
    name: cause instanceof Error ? cause.name : typeof cause,
    code,
    outage: error instanceof OutcomeUnknown || isOutage(code, cause),
    outcomeUnknown: error instanceof OutcomeUnknown,
    sentence: SAYS_WHY.test(code ?? "") && cause instanceof Error ? cause.message : undefined,
  };
}

/**
 * Classes 08 (connection), 28 (login refused), 53 (resources), 58 (system); 57P0x (shutdown, crash, starting up), 57014
 * (statement timeout), 55P03 (lock timeout), 40 (lost to another transaction, again and again), 3D000 (no such
 * database), 3F000 (no such schema), 25006 (read-only), 42501 (no privilege), 42P01 and 42703 (no such table or column:
 * not migrated).
 */
const OUTAGE =
  /^(08|28|40|53|58|57P0|57014|55P03|3D000|3F000|25006|42501|42P01|42703)|^(DATABASE_TIMEOUT|OVERLOADED)$|^ERR_POSTGRES_.*(CONNECTION|TIMEOUT|TLS|CHANNEL|AUTHENTICATION|CANCELLED)|^E(CONN|PIPE|HOST|NET|NOTFOUND|TIMEDOUT|AI_)/;

/**
 * Of these the log has the server's own sentence: a wrong password, an absent table, a full disk. None holds a value.
 */
const SAYS_WHY = /^(08P01|25006|28|3D000|3F000|42501|42P01|42703|53100|58030)/;

const WITHOUT_CODE = /connection terminated|timeout exceeded when trying to connect|query read timeout|websocket/i;

const isOutage = (code: string | undefined, cause: unknown) =>
  code === undefined
    ? // Neon's driver fails to connect with an event, which is no `Error` and has no code.
      (typeof ErrorEvent === "function" && cause instanceof ErrorEvent) ||
      (cause instanceof Error && WITHOUT_CODE.test(cause.message))
    : OUTAGE.test(code);

/** Refused for what other transactions did at the same time (serializable, deadlock): nothing was done. */
export const isConflict = (error: unknown) => /^(40001|40P01)$/.test(codeOf(error) ?? "");

/**
 * Refused since the connection's prepared statements are not what they were: a column's type has changed (0A000), or
 * a pooler has given the connection another server (26000, 42P05, 08P01 for a wrong number of values), or stands where
 * there was none (08P01 for a start-up parameter). Nothing was done.
 */
export const isStale = (error: unknown) => {
  const code = codeOf(error) ?? "";
  return /^(0A000|26000|42P05)$/.test(code) || (code === "08P01" && !isPoolersEnd(error));
};

/**
 * PgBouncer reports 08P01 whenever it ends a connection, also for "server conn crashed?", when the statement may have
 * been done. The messages that it gives before it has sent anything are known.
 */
const isPoolersEnd = (error: unknown) =>
  error instanceof Error &&
  "severity" in error &&
  error.severity === "FATAL" &&
  !/startup parameter|connect to server|login|wait_timeout|no more connections/.test(error.message);

/** The connection was lost with the statement under way. */
export const isLost = (error: unknown) => {
  const code = codeOf(error) ?? "";
  return (
    (code === "08P01" && isPoolersEnd(error)) ||
    /^(08(?!P01)|57P01|57P02|ERR_POSTGRES_CONNECTION_CLOSED|ECONNRESET|EPIPE|DATABASE_TIMEOUT)/.test(code) ||
    (error instanceof Error && /connection terminated|query read timeout/i.test(error.message))
  );
};

/** The server refused the statement as a whole, so nothing was done. */
export const isRefused = (error: unknown) => /^[0-9A-Z]{5}$/.test(codeOf(error) ?? "") && !isLost(error);

/** What the driver threw: Drizzle wraps the failure of a query, but not that of a BEGIN, a COMMIT or a connection. */
export const driverError = (error: unknown) =>
  error instanceof DrizzleQueryError || error instanceof OutcomeUnknown ? error.cause : error;

/** Bun.SQL keeps the SQLSTATE in `errno` and a name of its own in `code`; the others keep it in `code`. */
export function codeOf(error: unknown): string | undefined {
  if (typeof error !== "object" || error === null) return undefined;
  if ("errno" in error && typeof error.errno === "string") return error.errno;
  if ("code" in error && typeof error.code === "string") return error.code;
  return undefined;
}
