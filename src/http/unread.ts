import type { Context } from "elysia";
import { problem } from "./problem.ts";

/** From how many bytes on an answer counts until it has been read. Shorter ones wait in the kernel. */
const LONG = 512 * 1024;

/** How much one user may leave unread, and how much all may: beyond that, every user who leaves any is refused. */
const MAX_OF_ONE = 8 * 1024 * 1024;
const MAX_OF_ALL = 64 * 1024 * 1024;

const PIECE = 64 * 1024;

interface Handled {
  request: Request;
  set: Context["set"];
  userId: string | undefined;
  response: unknown;
}

/**
 * For `onAfterHandle`: sends a long answer as fast as it is read, and refuses one to a user who leaves others unread,
 * since each of them takes memory until then.
 */
export function longAnswers() {
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
    const size = typeof response === "string" ? response.length : response instanceof Blob ? response.size : 0;
    if (size < LONG || request.method === "HEAD") return;
    if ((unread.get(userId) ?? 0) > (total > MAX_OF_ALL ? 0 : MAX_OF_ONE)) {
      for (const name of ["content-encoding", "etag", "link", "x-total-count"]) delete set.headers[name];
      return unseen(problem({ set }, 429, "You leave answers unread: take them first", { retryAfter: 5 }));
    }
    const bytes = typeof response === "string" ? Buffer.from(response) : await (response as Blob).bytes();
    add(userId, bytes.length);
    const done = () => add(userId, -bytes.length);
    return unseen(new Response(piecewise(bytes, done)));
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
  // Nothing is asked for before the last piece has been taken.
  return new ReadableStream({ pull, cancel: done }, { highWaterMark: 0 });
}
