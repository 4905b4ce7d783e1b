import { promisify } from "node:util";
import { gzip } from "node:zlib";
import type { Context } from "elysia";

/**
 * The weight (RFC 9110, section 12.4.2) that an `Accept…` header gives to `name`: 0 is "not that". Undefined if the
 * header doesn't name it.
 */
export function weightOf(name: string, header: string | null): number | undefined {
  if (!header?.toLowerCase().includes(name)) return undefined;
  for (const item of header.toLowerCase().split(",")) {
    const [named, ...parameters] = item.split(";").map((part) => part.trim());
    if (named === name) return Number(parameters.find((part) => /^q=/.test(part))?.slice(2) ?? 1);
  }
}

/** Whether gzip is accepted, and preferred at least as much as no compression. */
export function acceptsGzip({ headers }: Request): boolean {
  const accepted = headers.get("accept-encoding");
  const others = weightOf("*", accepted);
  const weight = weightOf("gzip", accepted) ?? others ?? 0;
  return weight > 0 && weight >= (weightOf("identity", accepted) ?? others ?? 0);
}

/** In bytes. A shorter answer is hardly worth the work. */
const COMPRESSED_FROM = 8 * 1024;

export type SendJson = ReturnType<typeof jsonSender>;

/**
 * Sends a value as JSON, gzipped if it is long and the client accepts that. `text` is the value's JSON, if the caller
 * has it already. An ETag must be weak: both forms share it. With `known`, the client has the value: the answer is a
 * 304, without the value but with the same `Vary`.
 */
export const jsonSender =
  (compression: boolean) =>
  async <T>(
    { request, set }: Pick<Context, "request" | "set">,
    value: T,
    text = JSON.stringify(value),
    known = false,
  ): Promise<T> => {
    // Elysia sends these as they are. The cast keeps the value's type for the route and the client.
    const sent = (body?: string | Response) => body as unknown as T;
    const long = compression && Buffer.byteLength(text) > COMPRESSED_FROM;
    if (long) set.headers.vary = `${set.headers.vary}, Accept-Encoding`;
    if (known) {
      set.status = 304;
      return sent();
    }
    set.headers["content-type"] = "application/json;charset=utf-8";
    if (!long || !acceptsGzip(request)) return sent(text);
    set.headers["content-encoding"] = "gzip";
    // Not a `Blob`: Bun takes that for a file, and answers `Range`.
    return sent(new Response(await compress(text, { level: 4 })));
  };

/** On another thread: of 1,000 tasks, 200 KB, it makes 22 KB for 0.7 ms of CPU. */
const compress = promisify(gzip);
