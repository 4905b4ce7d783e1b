import { cors as corsPlugin } from "@elysiajs/cors";
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
 * Preflights are the plugin's. On all other answers it would compute the same headers again (0.9 µs a request) and send
 * most of them to every origin. Here they are computed once.
 */
export function cors(origins: string[], log: Logger) {
  const matches = originMatcher(origins);
  const isListed = (origin: string | null): origin is string => origin !== null && matches(origin);
  const noteStranger = strangers(log);
  const preflights = new Elysia().use(
    corsPlugin({
      // A function, for the plugin's own list also lets in `constructor` and `__proto__`.
      origin: ({ headers }) => isListed(headers.get("origin")),
      methods: ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
      allowedHeaders: true,
      exposeHeaders: EXPOSED,
      credentials: !origins.includes("*"),
      maxAge: 600,
    }),
  );
  const shared = {
    "access-control-expose-headers": EXPOSED,
    // Together with "*" (development only), every site could act for the signed-in user.
    ...(!origins.includes("*") && { "access-control-allow-credentials": "true" }),
  };

  return new Elysia({ name: "cors" })
    .onRequest(({ request, set }) => {
      const origin = request.headers.get("origin");
      if (isListed(origin)) Object.assign(set.headers, shared, { "access-control-allow-origin": origin });
      else if (origin !== null) noteStranger(origin, request.headers);
    })
    .options("/*", async ({ request, set }) => {
      set.status = 204;
      if (!isListed(request.headers.get("origin"))) return;
      const answer = await preflights.handle(request);
      // Where none is asked for, the plugin allows a header named `undefined`.
      if (!request.headers.has("access-control-request-headers")) answer.headers.delete("access-control-allow-headers");
      return answer;
    });
}

/**
 * Warns of pages that can't read the answers, since the browser tells them next to nothing. Leaves out our own pages.
 */
function strangers(log: Logger) {
  const warn = throttled(log.warning);
  const known = new Set<string>();
  return (origin: string, headers: Headers) => {
    const own = origin.replace(/^https?:\/\//, "") === headers.get("host");
    if (own || headers.get("sec-fetch-site") === "same-origin") return;
    const name = origin.slice(0, 100).replace(/[^\x21-\x7e]/g, "?");
    if (known.size < MAX_STRANGERS) known.add(name);
    const kind = known.has(name) ? name : "any other";
    warn(kind, { origin: name }, `a page on ${name} can't read the answers: CORS_ALLOWED_ORIGINS doesn't list it`);
  };
}
