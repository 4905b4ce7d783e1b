import { Elysia } from "elysia";
import type { Logger } from "../log.ts";

/**
 * Gives each request an id, and its answer the headers that every answer has; logs a line when it is done. While the
 * process is stopping, an answer is the last one on its connection.
 */
export const requests = (log: Logger, stopping: () => boolean) =>
  new Elysia({ name: "requests", seed: log })
    .decorate("startedAt", 0)
    // The caller, once admitted: see auth.ts.
    .decorate("userId", undefined as string | undefined)
    .onRequest((context) => {
      const { request, set } = context;
      context.startedAt = performance.now();
      // One literal: headers set one by one cost 0.3 µs more.
      set.headers = {
        "x-request-id": requestId(request.headers.get("x-request-id")),
        "x-content-type-options": "nosniff",
        "cache-control": "no-store",
        vary: "Origin",
      };
    })
    // Not `mapResponse`, in which Elysia loses the body of an error.
    .onAfterHandle({ as: "global" }, ({ set }) => {
      if (stopping()) set.headers.connection = "close";
    })
    .onAfterResponse({ as: "global" }, ({ request, path, set, startedAt, userId }) => {
      log.info(
        {
          method: request.method,
          path: path.length > MAX_PATH ? `${path.slice(0, MAX_PATH)}…` : path,
          status: set.status,
          duration_ms: Math.round((performance.now() - startedAt) * 100) / 100,
          request_id: set.headers["x-request-id"],
          user_id: userId,
        },
        "request",
      );
    });

/** How much of a path goes into the log, in characters: enough for every path that there is here. */
const MAX_PATH = 200;

const requestId = (given: string | null) =>
  given !== null && /^[A-Za-z0-9._-]{1,64}$/.test(given) ? given : crypto.randomUUID();
