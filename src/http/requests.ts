import { Elysia } from "elysia";
import type { Logger } from "../log.ts";
import type { Metrics } from "../metrics.ts";
import { received } from "./body.ts";

/**
 * Gives each request an id, and its answer the headers that every answer has; logs a line when it is done. Once
 * `store.stopping` is set, an answer is the last one on its connection.
 *
 * `request.signal` aborts when the client hangs up. Bun makes it at its first use (0.3 µs), aborted already if the
 * client has hung up before.
 */
export const requests = (log: Logger, metrics?: Metrics) =>
  new Elysia({ name: "requests" })
    .state("stopping", false)
    .decorate("startedAt", 0)
    // The caller, once admitted: see auth/index.ts.
    .decorate("userId", undefined as string | undefined)
    .onRequest((context) => {
      const { request, set, store } = context;
      context.startedAt = performance.now();
      // One literal: headers set one by one cost 0.3 µs more.
      set.headers = {
        "x-request-id": requestId(request.headers.get("x-request-id")),
        "x-content-type-options": "nosniff",
        "cache-control": "no-store",
        vary: "Origin",
      };
      // Bun closes a connection whose request says so, but doesn't say it: a proxy that keeps connections would send
      // the next request over one that is about to go, and answer 502.
      if (store.stopping || CLOSE.test(request.headers.get("connection") ?? "")) set.headers.connection = "close";
    })
    // Again, for those that were under way at the signal. (Not `mapResponse`, in which Elysia loses the body of an
    // error.)
    .onAfterHandle({ as: "global" }, ({ set, store }) => {
      if (store.stopping) set.headers.connection = "close";
    })
    // What fails because its client has gone is nobody's error: a body that was cut short, a statement not sent.
    .onError({ as: "global" }, ({ request, set, store }) => {
      if (store.stopping) set.headers.connection = "close";
      if (!request.signal.aborted) return;
      set.status = CLIENT_CLOSED_REQUEST;
      return "";
    })
    // Around everything, since an answer of a `derive` meets no other hook. Elysia's type of what it wraps is wrong.
    .wrap((handle, request) => (request.method === "GET" ? handle : answeringWhole(handle as unknown as Handle)))
    .onAfterResponse({ as: "global" }, ({ request, path, route, set, startedAt, userId }) => {
      const status = request.signal.aborted ? CLIENT_CLOSED_REQUEST : (set.status ?? 200);
      const duration = performance.now() - startedAt;
      metrics?.request(request.method, route ?? "none", status, duration);
      log.info(
        {
          method: request.method,
          path: path.length > MAX_PATH ? `${path.slice(0, MAX_PATH)}…` : path,
          status,
          duration_ms: Math.round(duration * 100) / 100,
          request_id: set.headers["x-request-id"],
          trace_id: traceId(request.headers.get("traceparent")),
          user_id: userId,
        },
        "request",
      );
    });

type Handle = (request: Request) => Response | Promise<Response>;

/** Answers when the request has come in whole. */
const answeringWhole = (handle: Handle) => async (request: Request) => {
  const answer = await handle(request);
  await received(request);
  return answer;
};

/** The members of `Connection` are a list (RFC 9110, section 7.6.1): LWP sends `TE, close`. */
const CLOSE = /(^|,)\s*close\s*(,|$)/i;

/** nginx's status for a request whose client didn't wait for the answer. Only the log ever sees it. */
const CLIENT_CLOSED_REQUEST = 499;

/** How much of a path goes into the log, in characters: enough for every path that there is here. */
const MAX_PATH = 200;

const requestId = (given: string | null) =>
  given !== null && /^[A-Za-z0-9._-]{1,64}$/.test(given) ? given : crypto.randomUUID();

/** W3C Trace Context: version, trace, parent and flags, not all zeros. Only versions after 00 may be longer. */
const TRACEPARENT = /^(?!ff|00.{54})[\da-f]{2}-(?!0{32})([\da-f]{32})-(?!0{16})[\da-f]{16}-[\da-f]{2}(-|$)/;

const traceId = (traceparent: string | null) => (traceparent === null ? undefined : TRACEPARENT.exec(traceparent)?.[1]);
