import { cors as corsPlugin } from "@elysiajs/cors";
import { type Context, Elysia } from "elysia";

/**
 * Lets the pages of the listed origins read the answers, errors included, with credentials. Preflights are
 * answered here, before anything else looks at them.
 *
 * The plugin sends most of its headers to every origin. Here an origin that is not listed gets none of them.
 */
export function cors(origins: string[]) {
  const anyOrigin = origins.includes("*");
  const listed = new Set(origins);
  const isListed = (request: Request) => anyOrigin || listed.has(request.headers.get("origin") ?? "");

  return new Elysia({ name: "cors", seed: origins })
    .onRequest(({ request, set }) => {
      if (request.method !== "OPTIONS" || isListed(request)) return;
      dropHeaders(set);
      set.headers.vary = "Origin";
      return new Response(null, { status: 204 });
    })
    .use(
      corsPlugin({
        // A function, for the plugin's own list also lets in `constructor` and `__proto__`.
        origin: isListed,
        methods: ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
        allowedHeaders: ["Authorization", "Content-Type", "X-Request-Id"],
        exposeHeaders: ["Link", "Location", "X-Total-Count", "X-Request-Id", "Retry-After"],
        // Together with "*" (development only), every site could act for the signed-in user.
        credentials: !anyOrigin,
        maxAge: 600,
      }),
    )
    .onRequest(({ set }) => {
      if (!("access-control-allow-origin" in set.headers)) dropHeaders(set);
    });
}

function dropHeaders({ headers }: Context["set"]) {
  delete headers["access-control-allow-headers"];
  delete headers["access-control-allow-methods"];
  delete headers["access-control-allow-credentials"];
  delete headers["access-control-expose-headers"];
}
