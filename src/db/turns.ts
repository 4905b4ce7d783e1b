import { ANSWER_TIMEOUT_MS, type Caller, type Statement } from "./database.ts";
import { HungUp, Overloaded, TooManyWaiting } from "./errors.ts";

/** How many slow statements of one owner run at once, and how many of them may wait. */
const OWNER_RUNS = 2;
const OWNER_WAITS = 32;
/** How many slow statements may wait in all. */
const MAX_WAITING = 512;

interface Turn<Slot> {
  statement: Statement;
  caller: Caller;
  begin(slot: Slot): void;
  reject(error: Error): void;
}

/** Too late to send anything: it could not be answered before the deadline. */
export const isOverdue = ({ deadline }: Caller) => performance.now() > deadline - ANSWER_TIMEOUT_MS;

/**
 * Decides whose statement goes next over which of the slots.
 *
 * Short statements go first. Slow ones take turns: over at most half of the slots, two for each owner, owner by owner.
 * So one user's long lists make that user wait and nobody else. What can't be answered in time is refused unsent.
 */
export function createTurns<Slot>(slots: readonly Slot[]) {
  /** The last one given back is taken first, so that few are used when few are needed. */
  const free = slots.toReversed();
  const slowMost = Math.max(1, Math.floor(slots.length / 2));
  const short: Turn<Slot>[] = [];
  /** Each owner's slow statements that wait, and how many run. */
  const slow = new Map<string, Turn<Slot>[]>();
  const running = new Map<string, number>();
  let slowRunning = 0;
  let slowWaiting = 0;

  function begin() {
    while (free.length > 0) {
      const turn = short.shift() ?? nextSlow();
      if (turn === undefined) return;
      const { statement, caller, reject } = turn;
      if (caller.signal?.aborted) reject(new HungUp());
      else if (isOverdue(caller)) reject(new Overloaded());
      else {
        if (statement.slow) count(caller, 1);
        turn.begin(free.pop() as Slot);
      }
    }
  }

  function nextSlow(): Turn<Slot> | undefined {
    if (slowRunning >= slowMost) return undefined;
    for (const [owner, waiting] of slow) {
      if ((running.get(owner) ?? 0) >= OWNER_RUNS) continue;
      const turn = waiting.shift();
      slowWaiting--;
      // Behind all others, if more of theirs wait.
      slow.delete(owner);
      if (waiting.length > 0) slow.set(owner, waiting);
      return turn;
    }
  }

  function count({ owner }: Caller, change: 1 | -1) {
    slowRunning += change;
    const now = (running.get(owner) ?? 0) + change;
    if (now === 0) running.delete(owner);
    else running.set(owner, now);
  }

  return {
    /** Resolves with a slot when it is this statement's turn. */
    take(statement: Statement, caller: Caller): Promise<Slot> {
      return new Promise((resolve, reject) => {
        const turn = { statement, caller, begin: resolve, reject };
        if (statement.slow) {
          const waiting = slow.get(caller.owner) ?? [];
          if (waiting.length >= OWNER_WAITS) return reject(new TooManyWaiting());
          if (slowWaiting >= MAX_WAITING) return reject(new Overloaded());
          slow.set(caller.owner, waiting);
          waiting.push(turn);
          slowWaiting++;
        } else short.push(turn);
        begin();
      });
    },

    /** The statement that took the slot is done. */
    giveBack(slot: Slot, { slow }: Statement, caller: Caller) {
      if (slow) count(caller, -1);
      free.push(slot);
      begin();
    },

    /** Refuses those for whom it has become too late. */
    refuseOverdue() {
      for (const waiting of [short, ...slow.values()])
        for (const { caller, reject } of waiting) if (isOverdue(caller)) reject(new Overloaded());
    },

    waiting: () => short.length + slowWaiting,
    busy: () => slots.length - free.length,
  };
}
