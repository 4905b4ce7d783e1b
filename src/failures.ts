import { Elysia } from "elysia";
import { causeOf } from "./db/outage.ts";
import { type Logger, sparingly } from "./log.ts";
import { fail } from "./problem.ts";

/**
 * Turns whatever was not answered into a problem: a path that isn't there, a database that is out of reach; the
 * rest is a bug of ours. The log has the cause, the caller never has.
 */
export const failures = (log: Logger, methodsOf: (path: string) => string[]) => {
  const logOutage = sparingly(log.error);
  return new Elysia({ name: "failures", seed: log }).onError(
    { as: "global" },
    ({ code, error, set, path }) => {
      if (code === "NOT_FOUND") {
        const methods = methodsOf(path).join(", ");
        if (methods === "") return fail({ set }, 404, "There is nothing at this address");
        set.headers.allow = methods;
        return fail({ set }, 405, `This address answers to ${methods} only`);
      }
      // The routes answer these themselves (see `checked`); a wrong response is a bug of ours.
      if (code === "VALIDATION" && error.type !== "response") return;
      const { name, code: errorCode, outage } = causeOf(error);
      const line = { error: name, code: errorCode, request_id: set.headers["x-request-id"] };
      if (outage) {
        logOutage(`${name} ${errorCode}`, line, "the database did not answer");
        return fail(
          { set },
          503,
          "The service can't reach its database just now: try again in a few seconds",
        );
      }
      log.error({ ...line, stack: placesOf(error) }, "a request failed");
      return fail({ set }, 500, "Something went wrong on our side");
    },
  );
};

/** Where it happened, without the message: that of a database error holds the statement and its values. */
const placesOf = (error: unknown) =>
  error instanceof Error ? error.stack?.split("\n").filter((line) => /^\s+at /.test(line)) : undefined;
