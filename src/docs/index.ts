import { type AnyElysia, type Context, Elysia } from "elysia";
import styles from "swagger-ui-dist/swagger-ui.css" with { type: "file" };
import bundle from "swagger-ui-dist/swagger-ui-bundle.js" with { type: "file" };
import { acceptsGzip, jsonSender } from "../http/accept.ts";
import html from "./page.html" with { type: "text" };

/** Bun's types know HTML only as something to bundle; imported as text it is a string. */
const page = html as unknown as string;
const script = /<script>(.*)<\/script>/s.exec(page)?.[1] ?? "";

/** The page runs what this server sends, and talks to this server only. Swagger UI styles its elements in place. */
const POLICY = [
  "default-src 'none'",
  `script-src 'self' 'sha256-${Bun.CryptoHasher.hash("sha256", script, "base64")}'`,
  "style-src 'self' 'unsafe-inline'",
  "img-src 'self' data:",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join("; ");

/**
 * The Swagger page and the OpenAPI document of `routes`, at FastAPI's own addresses. Made once, when first asked for.
 */
export function docs(routes: () => AnyElysia, compression: boolean) {
  const document = lazy(async () => (await import("./document.ts")).describe(routes()));
  const sendJson = jsonSender(compression);
  const asset = (path: string, type: string) => {
    const gzipped = lazy(async () => new Blob([Bun.gzipSync(await Bun.file(path).bytes())]));
    return ({ request, set }: Pick<Context, "request" | "set">) => {
      set.headers["content-type"] = type;
      set.headers["cache-control"] = "public, max-age=3600";
      set.headers.vary = `${set.headers.vary}, Accept-Encoding`;
      if (!compression || !acceptsGzip(request)) return Bun.file(path);
      set.headers["content-encoding"] = "gzip";
      return gzipped();
    };
  };
  return new Elysia({ name: "docs", detail: { hide: true } })
    .get("/", ({ redirect }) => redirect("/docs", 307))
    .get("/openapi.json", async ({ request, set }) => sendJson({ request, set }, await document()))
    .get("/docs", ({ set }) => {
      set.headers["content-type"] = "text/html; charset=utf-8";
      set.headers["content-security-policy"] = POLICY;
      set.headers["referrer-policy"] = "no-referrer";
      return page;
    })
    .get("/docs/swagger-ui.css", asset(styles, "text/css; charset=utf-8"))
    .get("/docs/swagger-ui.js", asset(bundle, "text/javascript; charset=utf-8"));
}

function lazy<T>(make: () => T): () => T {
  let made: T | undefined;
  return () => (made ??= make());
}
