import { STATUS_CODES } from "node:http";
import { Type } from "@sinclair/typebox";
import { type Context, Elysia, NotFoundError, status } from "elysia";
import { causeOf, Overloaded, TooManyWaiting } from "../db/errors.ts";
import { type Logger, throttled } from "../log.ts";
import type { Metrics } from "../metrics.ts";
import { weightOf } from "./accept.ts";

/**
 * One thing that is wrong with a request, in FastAPI's shape. `loc` says where (`["body", "title"]`), `type` is
 * Pydantic's name of the mistake, `msg` is for a person. The value itself is never in it.
 */
export interface Violation {
  loc: string[];
  msg: string;
  type: string;
}

/** The one shape of failure (RFC 9457). */
export const Problem = Type.Object(
  {
    type: Type.Literal("about:blank"),
    title: Type.String({ description: "The status in words.", examples: ["Not Found"] }),
    status: Type.Integer({ description: "The HTTP status.", examples: [404] }),
    detail: Type.String({
      description: "What is wrong, in a sentence that can be shown to a person.",
      examples: ["Task not found"],
    }),
    request_id: Type.String({
      description: "Also in the `X-Request-Id` header and in the log.",
      examples: ["0b8f6a2e-6a2b-4d55-9c53-6f5d1c0f7a10"],
    }),
    errors: Type.Optional(
      Type.Array(
        Type.Object({
          loc: Type.Array(Type.String(), { examples: [["body", "title"]] }),
          msg: Type.String({ examples: ["String should have at most 200 characters"] }),
          type: Type.String({ examples: ["string_too_long"] }),
        }),
        { description: "With 422: every value that is wrong, where it stands, never the value itself." },
      ),
    ),
  },
  { $id: "Problem", noValidate: true, description: "A problem detail (RFC 9457)." },
);

type Failure = 400 | 401 | 403 | 404 | 405 | 408 | 412 | 413 | 415 | 422 | 429 | 500 | 503;
type Answer = Pick<Context, "set">;

interface More {
  errors?: Violation[];
  /** After how many seconds to try again: 5 for a 503 unless it says otherwise; null if it may have been done. */
  retryAfter?: number | null;
}

const MEDIA_TYPE = "application/problem+json";
/**
 * The answers to requests that name the media type of problems. All others get plain JSON: front ends look for that.
 */
const wantProblemJson = new WeakSet<Context["set"]>();

/** Makes the answer a problem: `detail` is for a person, `errors` for a form's fields. Returns the body. */
function problemBody({ set }: Answer, code: Failure, detail: string, more: More = {}) {
  const { errors, retryAfter = code === 503 ? 5 : null } = more;
  set.status = code;
  set.headers["content-type"] = wantProblemJson.has(set) ? MEDIA_TYPE : "application/json";
  set.headers.vary = `${set.headers.vary}, Accept`;
  if (retryAfter !== null) set.headers["retry-after"] = String(retryAfter);
  return {
    type: "about:blank" as const,
    title: STATUS_CODES[code] ?? "Error",
    status: code,
    detail,
    request_id: String(set.headers["x-request-id"]),
    ...(errors && { errors }),
  };
}

/** A problem for a handler to return. */
export const problem = <S extends Failure>(answer: Answer, code: S, detail: string, more?: More) =>
  status(code, problemBody(answer, code, detail, more));

/** What a rule of our own forbids, beyond the type of a value. */
export const invalid = (loc: string[], msg: string): Violation => ({ loc, msg, type: "value_error" });

/** 422, with these violations; and with all of them in one sentence, for a front end to show. */
export const validationProblem = (answer: Answer, errors: Violation[]) =>
  problem(answer, 422, errors.map(({ loc, msg }) => `${loc.slice(1).join(".") || loc[0]}: ${msg}`).join("; "), {
    errors,
  });

/**
 * Turns whatever was not answered into a problem: a path that isn't there, a database that is out of reach; the
 * rest is a bug of ours. The log has the cause, the caller never has.
 */
export const failures = (log: Logger, methodsOf: (path: string) => string[], metrics?: Metrics) => {
  const logOutage = throttled(log.error);
  return new Elysia({ name: "failures" })
    .onRequest(({ request, set }) => {
      if (weightOf(MEDIA_TYPE, request.headers.get("accept"))) wantProblemJson.add(set);
      // Without a usable `Host` the address is a bare path. Elysia looks for the path behind a host, and would take
      // `/anything/health` for `/health`.
      const { url, method } = request;
      if (url.startsWith("/") && !methodsOf(pathOf(url)).includes(method)) throw new NotFoundError();
    })
    .onError({ as: "global" }, ({ code, error, set, request }) => {
      if (code === "NOT_FOUND") {
        const methods = methodsOf(pathOf(request.url)).join(", ");
        if (methods === "") return problemBody({ set }, 404, "There is nothing at this address");
        set.headers.allow = methods;
        return problemBody({ set }, 405, `This address answers to ${methods} only`);
      }
      // The routes answer these themselves (see `validated`).
      if (code === "VALIDATION") return;
      if (error instanceof TooManyWaiting) {
        metrics?.refused("waiting");
        return problemBody({ set }, 429, "Too many of your requests are under way: wait for some of them", {
          retryAfter: 1,
        });
      }
      if (error instanceof Overloaded) metrics?.refused("overload");
      const { name, code: errorCode, outage, outcomeUnknown, sentence } = causeOf(error);
      const line = { error: name, code: errorCode, request_id: set.headers["x-request-id"] };
      if (outage) {
        const reason = error instanceof Overloaded ? "there is more to do than can be done in time" : NO_DATABASE;
        logOutage(`${name} ${errorCode} ${sentence}`, line, sentence === undefined ? reason : `${reason}: ${sentence}`);
        return outcomeUnknown
          ? problemBody({ set }, 503, MAYBE_DONE, { retryAfter: null })
          : problemBody({ set }, 503, error instanceof Overloaded ? OVERLOADED : NO_ANSWER);
      }
      log.error({ ...line, stack: placesOf(error) }, "a request failed");
      return problemBody({ set }, 500, "Something went wrong on our side");
    });
};

const pathOf = (url: string) => /^(?:https?:\/\/[^/?]*)?([^?]*)/.exec(url)?.[1] ?? "";

const NO_DATABASE = "the database did not answer";
const NO_ANSWER = "The service can't reach its database just now: try again in a few seconds";
const OVERLOADED = "The service has too much to do: try again in a few seconds";
const MAYBE_DONE = "The service lost its database while it did this: look whether it was done before you send it again";

/** Where it happened, without the message: that of a database error holds the statement and its values. */
const placesOf = (error: unknown) =>
  error instanceof Error ? error.stack?.split("\n").filter((line) => /^\s+at /.test(line)) : undefined;
