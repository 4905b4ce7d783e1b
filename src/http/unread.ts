import type { Context } from "elysia";
import { problem } from "./problem.ts";

/**
 * From how many bytes on an answer counts until it has been read. Shorter ones wait in the kernel. (Over a network it
 * held 54 KB for a client that read nothing, and of 486 KB next to nothing. On one machine it holds megabytes.)
 */
const LONG = 64 * 1024;

/** How much one user may leave unread, and how much all may: beyond that, every user who leaves any is refused. */
const MAX_UNREAD_OF_ONE = 8 * 1024 * 1024;
const MAX_UNREAD_OF_ALL = 64 * 1024 * 1024;

/** What is given to the kernel at once. */
const PIECE = 64 * 1024;

interface Handled {
  request: Request;
  set: Context["set"];
  userId: string | undefined;
  response: unknown;
}

/**
 * For `onAfterHandle`: sends a long answer as fast as it is read, and refuses one to a user who leaves others unread,
 * since each of them takes memory until then. Calls `refused` then.
 */
export function longAnswers(refused: () => void) {
  /** Bytes, by user. Holds only those who have any. */
  const unread = new Map<string, number>();
  let total = 0;
  const add = (userId: string, bytes: number) => {
    total += bytes;
    const sum = (unread.get(userId) ?? 0) + bytes;
    if (sum > 0) unread.set(userId, sum);
    else unread.delete(userId);
  };

  return async ({ request, set, userId = "", response }: Handled): Promise<undefined> => {
    if (request.method === "HEAD") return;
    // What is gzipped comes as a `Response`.
    const body = response instanceof Response ? await response.bytes() : response;
    if (!(typeof body === "string" || body instanceof Uint8Array)) return;
    const size = typeof body === "string" ? Buffer.byteLength(body) : body.length;
    if (size < LONG) return body === response ? undefined : unseen(new Response(body));
    if ((unread.get(userId) ?? 0) > (total > MAX_UNREAD_OF_ALL ? 0 : MAX_UNREAD_OF_ONE)) {
      for (const name of ["content-encoding", "etag", "link", "x-total-count"]) delete set.headers[name];
      set.headers["cache-control"] = "no-store";
      refused();
      return unseen(problem({ set }, 429, "You leave answers unread: take them first", { retryAfter: 5 }));
    }
    add(userId, size);
    const bytes = typeof body === "string" ? Buffer.from(body) : body;
    return unseen(new Response(piecewise(bytes, () => add(userId, -size))));
  };
}

/** The client's types say what a route answers, and need not know in which form it is sent. */
const unseen = (answer: unknown) => answer as undefined;

/** These bytes, as fast as they are read. Calls `done` once: when they have been, or when the client has hung up. */
function piecewise(bytes: Uint8Array, done: () => void) {
  let at = 0;
  const pull = (pieces: ReadableStreamDefaultController) => {
    if (at < bytes.length) {
      // A copy: a view would keep the whole in memory.
      pieces.enqueue(bytes.slice(at, at + PIECE));
      at += PIECE;
      return;
    }
    pieces.close();
    done();
  };
  // A piece is made only when the one before has been taken.
  return new ReadableStream({ pull, cancel: done }, { highWaterMark: 0 });
}
