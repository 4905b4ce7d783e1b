import type { Caller } from "./database.ts";
import { isRefused, Overloaded } from "./errors.ts";
import { refusedUnsent } from "./turns.ts";

/** The most members of one statement. */
const MAX_BATCH = 64;
/**
 * At most four statements of a kind are under way, and a further one only if sixteen members wait: while one waits for
 * the disk, or a database far away, the next is on its way.
 */
const MAX_UNDER_WAY = 4;
const WORTH_ANOTHER = 16;
/** A statement that has been under way for longer no longer holds up the others. */
const STALLED_AFTER_MS = 50;

interface Member<Asked, Answer> {
  asked: Asked;
  caller: Caller;
  resolve(answer: Answer): void;
  reject(error: unknown): void;
}

interface Kind<Asked, Answer> {
  /** One statement for all of them. Answers by position; a place without an answer is asked about alone. */
  together(asked: Asked[], caller: Caller): Promise<(Answer | undefined)[]>;
  /** A statement for one. */
  alone(asked: Asked, caller: Caller): Promise<Answer>;
  /** The row it is about, if it changes one. The same row twice goes into two statements, in order of arrival. */
  row?(asked: Asked): string;
  most?: number;
}

/**
 * Sends a request's statement at once if none of its kind is under way. What arrives meanwhile goes together, as one
 * statement, when that one is done, sixteen wait, or 50 ms have passed. So a busy server pays for one commit instead
 * of dozens, and an idle one waits for nothing. No request fails because of another: if a statement is refused as a
 * whole, or leaves members unanswered, those are sent singly.
 */
export function batching<Asked, Answer>({ together, alone, row, most = MAX_BATCH }: Kind<Asked, Answer>) {
  type One = Member<Asked, Answer>;
  let waiting: One[] = [];
  /** When each statement that is under way was sent. */
  const sent = new Set<{ at: number }>();
  const busyRows = new Set<string>();
  let timer: Timer | undefined;

  function pump() {
    while (waiting.length > 0) {
      const now = performance.now();
      let counting = 0;
      for (const { at } of sent) if (now - at < STALLED_AFTER_MS) counting++;
      if (counting > 0 && (waiting.length < WORTH_ANOTHER || counting >= MAX_UNDER_WAY)) break;
      const members = next(now);
      if (members.length === 0) break;
      void send(members);
    }
    if (waiting.length > 0 && timer === undefined)
      timer = setTimeout(() => {
        timer = undefined;
        pump();
      }, STALLED_AFTER_MS);
  }

  /** Those who go next. */
  function next(now: number): One[] {
    const members: One[] = [];
    const left: One[] = [];
    const rows = new Set<string>();
    for (const member of waiting) {
      if (refusedUnsent(member, now)) continue;
      const id = row?.(member.asked);
      const later = members.length === most || (id !== undefined && (busyRows.has(id) || rows.has(id)));
      (later ? left : members).push(member);
      // The next one about this row stays behind this one.
      if (id !== undefined) rows.add(id);
    }
    waiting = left;
    return members;
  }

  async function send(members: One[]) {
    const one = { at: performance.now() };
    // What is sent alone may wait for a locked row, and a batch skips those. Only one may wait, with nothing else under
    // way.
    const straight = members.length === 1 && sent.size === 0;
    sent.add(one);
    for (const { asked } of members) if (row) busyRows.add(row(asked));
    const singly = straight ? members : await sendTogether(members);
    // What is asked singly after a batch goes its own way: it may wait for a row that somebody has locked.
    if (!straight) {
      sent.delete(one);
      pump();
    }
    await Promise.all(
      singly.map(({ asked, caller, resolve, reject }) =>
        alone(asked, caller)
          .then(resolve, reject)
          .finally(() => {
            sent.delete(one);
            done(asked);
            pump();
          }),
      ),
    );
  }

  /** Answers those whom one statement can answer. Returns the others. */
  async function sendTogether(members: One[]): Promise<One[]> {
    const deadline = Math.min(...members.map(({ caller }) => caller.deadline));
    try {
      const answers = await together(
        members.map(({ asked }) => asked),
        { owner: "", deadline, requests: members.length },
      );
      return members.filter((member, i) => {
        const answer = answers[i];
        if (answer === undefined) return true;
        member.resolve(answer);
        done(member.asked);
        return false;
      });
    } catch (error) {
      if (isRefused(error)) return members;
      // Too late for one of them, and not sent: the others go on waiting.
      if (error instanceof Overloaded) {
        for (const { asked } of members) done(asked);
        waiting.unshift(...members);
        return [];
      }
      for (const { asked, reject } of members) {
        reject(error);
        done(asked);
      }
      return [];
    }
  }

  function done(asked: Asked) {
    if (row) busyRows.delete(row(asked));
  }

  return (asked: Asked, caller: Caller) =>
    new Promise<Answer>((resolve, reject) => {
      waiting.push({ asked, caller, resolve, reject });
      pump();
    });
}
