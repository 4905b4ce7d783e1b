import type { Context } from "elysia";

/**
 * An entity tag (RFC 9110, section 8.8.3), and a list of them, which may have empty places (section 5.6.1). Each
 * separator matches in one way only. Where it matched in two, a header with some twenty of them took seconds.
 */
const TAG = /(?:W\/)?"[\x21\x23-\x7e\x80-\xff]*"/g;
const LIST = /^[ \t,]*(?:(?:W\/)?"[\x21\x23-\x7e\x80-\xff]*"[ \t]*(?:,[ \t,]*|$))+$/;

/**
 * The strong tags that `If-Match` names, without their quotes: a weak one never matches (RFC 9110, section 13.1.1).
 * Undefined without the header, or with `*`, which asks for no more than that the resource is there. "malformed" if it
 * is neither.
 */
export function ifMatch(header: string | null): string[] | "malformed" | undefined {
  if (header === null || header.trim() === "*") return undefined;
  if (!LIST.test(header)) return "malformed";
  return (header.match(TAG) ?? []).filter((tag) => tag.startsWith('"')).map((tag) => tag.slice(1, -1));
}

/** Gives the answer its tag, and lets the client keep it and ask whether it still holds. */
export function setTag({ set }: Pick<Context, "set">, etag: string) {
  set.headers.etag = etag;
  set.headers["cache-control"] = "private, no-cache";
}

/**
 * Whether the client has what bears this tag, by `If-None-Match` (weak comparison: RFC 9110, section 13.1.2). A
 * malformed header is no condition.
 */
export function isKnown({ headers }: Request, etag: string): boolean {
  const header = headers.get("if-none-match");
  if (header === null) return false;
  const opaque = (tag: string) => tag.replace(/^W\//, "");
  return header.trim() === "*" || (LIST.test(header) && (header.match(TAG) ?? []).map(opaque).includes(opaque(etag)));
}
