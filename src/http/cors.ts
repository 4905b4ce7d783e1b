import { Elysia } from "elysia";
import { type Logger, throttled } from "../log.ts";
import { originMatcher } from "./origins.ts";

/** What a page may read of an answer beside its body. */
const EXPOSED =
  "Link, Location, X-Total-Count, X-Request-Id, Retry-After, ETag, Idempotency-Replayed, RateLimit, RateLimit-Policy";

/** How many origins that are not listed are told apart in the log. */
const MAX_STRANGERS = 20;

/**
 * Lets the pages of the listed origins read the answers, errors included, with credentials, and send whatever headers
 * they like: none of them grants anything here. An origin that is not listed is told nothing; the log has its name.
 *
 * Not by `@elysiajs/cors`: it takes `constructor` for a listed origin, allows a header named `undefined` where none is
 * asked for, and works out the same headers for each answer anew.
 */
export function cors(origins: string[], log: Logger) {
  const matches = originMatcher(origins);
  const isListed = (origin: string | null): origin is string => origin !== null && matches(origin);
  const noteStranger = strangers(log);
  const shared = {
    "access-control-expose-headers": EXPOSED,
    // Together with "*" (development only), every site could act for the signed-in user.
    ...(!origins.includes("*") && { "access-control-allow-credentials": "true" }),
  };

  return new Elysia({ name: "cors", seed: origins })
    .onRequest(({ request, set }) => {
      const origin = request.headers.get("origin");
      if (isListed(origin)) Object.assign(set.headers, shared, { "access-control-allow-origin": origin });
      else if (origin !== null) noteStranger(origin, request.headers);
    })
    .options("/*", ({ request: { headers }, set }) => {
      set.status = 204;
      if (!isListed(headers.get("origin"))) return;
      set.headers["access-control-allow-methods"] = "GET, HEAD, POST, PUT, PATCH, DELETE";
      set.headers["access-control-max-age"] = "600";
      const asked = headers.get("access-control-request-headers");
      if (asked !== null) set.headers["access-control-allow-headers"] = asked;
    });
}

/** Warns of pages that can't read the answers, but for the service's own: to them the browser says next to nothing. */
function strangers(log: Logger) {
  const warn = throttled(log.warning);
  const known = new Set<string>();
  return (origin: string, headers: Headers) => {
    const own = origin.replace(/^https?:\/\//, "") === headers.get("host");
    if (own || headers.get("sec-fetch-site") === "same-origin") return;
    const name = origin.slice(0, 100).replace(/[^\x21-\x7e]/g, "?");
    if (known.size < MAX_STRANGERS) known.add(name);
    const kind = known.has(name) ? name : "any other";
    warn(
      kind,
      { origin: name },
      `a page on ${name} can't read the answers: CORS_ALLOWED_ORIGINS doesn't list it`,
    );
  };
}
