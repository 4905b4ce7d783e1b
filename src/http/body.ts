import { type Context, Elysia } from "elysia";
import { problem } from "./problem.ts";

/** The largest body that is read. */
const MAX_BYTES = 64 * 1024;

/** How long a body may take to arrive. */
const ARRIVAL_TIMEOUT_MS = 30_000;

/** How long an answer waits for the rest of a body that nobody reads. */
const REST_TIMEOUT_MS = 5_000;

/**
 * Reads the body of the routes behind it as JSON: 413 over 64 KiB, 415 if its headers don't say plain JSON, 400 if it
 * is malformed, 408 if it takes more than 30 s to arrive. `store.arriving` is the number of those that are on their
 * way.
 *
 * A `derive`, like `auth`, and registered after it, so that the caller is known before the body is touched.
 * (Elysia's own parsers run before any `derive`, take forms for JSON and mend broken UTF-8.)
 */
export const jsonBody = new Elysia({ name: "json-body" })
  .state({ arriving: 0, stopping: false })
  .onParse({ as: "scoped" }, () => null)
  .derive({ as: "scoped" }, ({ request, set, store }) => readJson(request, set, store));

async function readJson(request: Request, set: Context["set"], store: { arriving: number; stopping: boolean }) {
  const { headers, method } = request;
  store.arriving++;
  const bytes = await within(ARRIVAL_TIMEOUT_MS, read(request)).finally(() => {
    store.arriving--;
  });
  if (bytes === "late" || store.stopping) set.headers.connection = "close";
  if (bytes === "late") return problem({ set }, 408, "The body took more than 30 s to arrive");
  if (bytes === undefined) return problem({ set }, 413, "The body must be at most 64 KiB");
  const empty = bytes.length === 0;
  // A PATCH may come without a body, whatever its headers say of one: axios calls an absent body a form.
  const optional = method === "PATCH";
  if (empty && optional) return { body: {} };
  if (!isJson(headers.get("content-type"), empty))
    return problem({ set }, 415, "The body must be JSON, with Content-Type: application/json");
  if (!/^(identity)?$/i.test(headers.get("content-encoding") ?? ""))
    return problem({ set }, 415, "The body must not be compressed");
  if (empty) return problem({ set }, 400, "The body is empty: it must be a JSON object");
  if (isTooDeep(bytes)) return problem({ set }, 400, `The body must not be nested over ${MAX_DEPTH} deep`);
  try {
    const body = flattened(JSON.parse(utf8.decode(bytes)));
    return { body: body === null && optional ? {} : body };
  } catch {
    return problem({ set }, 400, "The body must be valid JSON, in UTF-8");
  }
}

/**
 * The value with every list or object inside it emptied. No field takes one, so nothing is lost: it is refused, or
 * ignored, all the same.
 *
 * Elysia's `ValidationError` pretty-prints the value that it refuses, in its constructor, before any hook of ours
 * runs (elysia#768). Indentation makes that quadratic in the nesting: 40 KB of brackets took 11 s and 2 GB.
 */
function flattened(value: unknown): unknown {
  if (Array.isArray(value)) return [];
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([name, member]) => [
      name,
      typeof member === "object" && member !== null ? (Array.isArray(member) ? [] : {}) : member,
    ]),
  );
}

/** How deep lists and objects may be nested. 64 KiB of `[` take 3.6 ms and 12 MiB to parse, flat text 0.04 ms. */
const MAX_DEPTH = 100;

function isTooDeep(json: Uint8Array): boolean {
  let depth = 0;
  let quoted = false;
  for (let i = 0; i < json.length; i++) {
    const byte = json[i];
    if (byte === QUOTE) quoted = !quoted;
    else if (quoted && byte === BACKSLASH) i++;
    // `[` and `{` differ in a bit of their codes, and so do `]` and `}`.
    else if (!quoted && byte !== undefined && (byte | 0x20) === 0x7b && ++depth > MAX_DEPTH) return true;
    else if (!quoted && byte !== undefined && (byte | 0x20) === 0x7d) depth--;
  }
  return false;
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;

const utf8 = new TextDecoder("utf-8", { fatal: true });

const isJson = (contentType: string | null, empty: boolean) =>
  contentType === null ? empty : /^application\/([\w.-]+\+)?json *(;|$)/i.test(contentType);

/**
 * Waits until the body has arrived, however little of it was read. Bun closes a connection of HTTP/1.0, or one whose
 * request asks for that, as soon as it has answered. What arrives then makes the kernel reset it, which loses the answer
 * (RFC 9112, section 9.6): nginx, as it is by itself, answered 502 to every second long POST without a token.
 */
export async function received({ body }: Request): Promise<void> {
  if (body === null || body.locked) return;
  const reader = body.getReader();
  const rest = async () => {
    while (!(await reader.read()).done);
  };
  // It fails if the client hangs up, and then nobody waits for the answer.
  await within(REST_TIMEOUT_MS, rest()).catch(() => {});
}

/** What the promise gives, or "late" after so many milliseconds. */
function within<Result>(milliseconds: number, result: Promise<Result>): Promise<Result | "late"> {
  const late = Promise.withResolvers<"late">();
  const timer = setTimeout(late.resolve, milliseconds, "late");
  return Promise.race([result, late.promise]).finally(() => clearTimeout(timer));
}

/** The bytes of the body, or undefined if there are too many. Nothing is read if the announced length is too large. */
async function read(request: Request): Promise<Uint8Array | undefined> {
  const announced = request.headers.get("content-length");
  if (announced !== null) return Number(announced) > MAX_BYTES ? undefined : await request.bytes();
  const chunks: Uint8Array[] = [];
  let length = 0;
  // What is left unread is for `received`.
  for await (const chunk of request.body?.values({ preventCancel: true }) ?? []) {
    length += chunk.length;
    if (length > MAX_BYTES) return undefined;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
