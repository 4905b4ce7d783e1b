import { type Context, Elysia } from "elysia";
import type { Metrics } from "../metrics.ts";
import { problem } from "./problem.ts";
import { longAnswers } from "./unread.ts";

/** A user may send at once what they may send in this time. */
const WINDOW_S = 10;

/**
 * The most requests of one user that may be under way. More would be served no sooner, since they wait for each other.
 */
const MAX_OF_ONE = 256;

/** The most in all: a process answers 800 of the longest lists a second, so more could take over 10 s. */
const MAX_OF_ALL = 8192;

/**
 * How many users each of the two generations remembers: together some 10 MiB. One who is forgotten early has the full
 * quota again.
 */
const MAX_REMEMBERED = 50_000;

const REFUSALS = {
  starting: [503, "The service is starting"],
  overload: [503, "The service has too much to do"],
  under_way: [429, "Too many of your requests are under way"],
  rate: [429, "You have sent too many requests"],
} as const;

/** What a user has left, as it was at a moment (in milliseconds), and how many of their requests are under way. */
interface Share {
  left: number;
  at: number;
  underWay: number;
}

/**
 * Admits a request of a known user, or refuses it at once: 503 until the service has started and while too much is
 * under way, 429 to a user who has too much under way, or sends more than `rate` a second (0: no limit) and the burst.
 * Registered after what sets `userId`, since only what users sent themselves may count against them; what is refused
 * here counts for nobody. The headers are those of draft-ietf-httpapi-ratelimit-headers.
 */
export function limits(rate: number, started: () => boolean, metrics?: Metrics) {
  const quota = rate * WINDOW_S;
  const policy = `"default";q=${quota};w=${WINDOW_S}`;
  const shareOf = shares(quota);
  let underWay = 0;
  const refuse = (set: Context["set"], reason: keyof typeof REFUSALS, retryAfter = 5) => {
    metrics?.refused(reason);
    const [code, sentence] = REFUSALS[reason];
    return problem({ set }, code, `${sentence}: try again in ${retryAfter} s`, { retryAfter });
  };

  return new Elysia({ name: "limits" })
    .decorate("userId", undefined as string | undefined)
    .derive({ as: "scoped" }, ({ userId, set }) => {
      if (userId === undefined) throw new Error("The limits must be registered after the authentication");
      if (!started()) return refuse(set, "starting");
      if (underWay >= MAX_OF_ALL) return refuse(set, "overload");
      const time = performance.now();
      const share = shareOf(userId, time);
      if (share.underWay >= MAX_OF_ONE) return refuse(set, "under_way", 1);
      if (rate > 0) {
        share.left = Math.min(quota, share.left + ((time - share.at) / 1000) * rate);
        share.at = time;
        const retryAfter = Math.ceil((1 - share.left) / rate);
        if (retryAfter <= 0) share.left--;
        set.headers["ratelimit-policy"] = policy;
        set.headers.ratelimit = `"default";r=${Math.floor(share.left)};t=${Math.ceil((quota - share.left) / rate)}`;
        if (retryAfter > 0) return refuse(set, "rate", retryAfter);
      }
      underWay++;
      share.underWay++;
      return { share };
    })
    .onAfterHandle(
      { as: "scoped" },
      longAnswers(() => metrics?.refused("unread")),
    )
    .onAfterResponse({ as: "scoped" }, ({ share }: { share?: Share }) => {
      if (share === undefined) return;
      underWay--;
      share.underWay--;
    });
}

/**
 * Everybody's share, in two generations that are exchanged every ten seconds. A user who has not asked for that long
 * has the full quota, so the older generation is forgotten whole, but for those with a request under way.
 */
function shares(quota: number) {
  let recent = new Map<string, Share>();
  let older = recent;
  let since = 0;
  return (userId: string, time: number): Share => {
    if (time - since > WINDOW_S * 1000 || recent.size >= MAX_REMEMBERED) {
      const busy = [...older].filter(([, { underWay }]) => underWay > 0);
      older = recent;
      recent = new Map(busy);
      since = time;
    }
    const share = recent.get(userId) ?? older.get(userId) ?? { left: quota, at: time, underWay: 0 };
    if (!recent.has(userId)) recent.set(userId, share);
    return share;
  };
}
