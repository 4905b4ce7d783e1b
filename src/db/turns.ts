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
export const isOverdue = ({ deadline }: Caller, now = performance.now()) => now > deadline - ANSWER_TIMEOUT_MS;

/**
 * Decides whose statement goes next over which of the slots.
 *
 * Short statements go first. Slow ones take turns: over at most half of the slots, two for each owner, owner by owner.
 * So one user's long lists make that user wait and nobody else. An owner's short ones run over at most a quarter of the
 * slots, since they may wait for locked rows. What goes together waits for no row, and counts for no owner. What can't
 * be answered in time is refused unsent.
 */
export function createTurns<Slot>(slots: readonly Slot[]) {
  /** The last one given back is taken first, so that few are used when few are needed. */
  const free = slots.toReversed();
  const short = createLane<Slot>(slots.length, Math.ceil(slots.length / 4));
  const slow = createLane<Slot>(Math.max(1, Math.floor(slots.length / 2)), OWNER_RUNS);

  function begin() {
    while (free.length > 0) {
      const turn = short.next() ?? slow.next();
      if (turn === undefined) return;
      if (refusedUnsent(turn)) continue;
      lane(turn.statement).count(turn.caller.owner, 1);
      // One is free, by the loop's condition.
      turn.begin(free.pop() as Slot);
    }
  }

  const lane = (statement: Statement) => (statement.slow ? slow : short);

  return {
    /** Resolves with a slot when it is this statement's turn. */
    take(statement: Statement, caller: Caller): Promise<Slot> {
      return new Promise((resolve, reject) => {
        if (statement.slow && slow.waitingOf(caller.owner) >= OWNER_WAITS) return reject(new TooManyWaiting());
        if (statement.slow && slow.waiting() >= MAX_WAITING) return reject(new Overloaded());
        lane(statement).add({ statement, caller, begin: resolve, reject });
        begin();
      });
    },

    /** The statement that took the slot is done. */
    giveBack(slot: Slot, statement: Statement, caller: Caller) {
      lane(statement).count(caller.owner, -1);
      free.push(slot);
      begin();
    },

    /** Tells those for whom it has become too late, or who have hung up. They leave their places to others. */
    refuseOverdue() {
      short.prune();
      slow.prune();
    },

    waiting: () => short.waiting() + slow.waiting(),
    busy: () => slots.length - free.length,
  };
}

/** Refuses what nobody waits for any more, and what can't be answered in time. Returns whether it did. */
export function refusedUnsent({ caller, reject }: Pick<Turn<never>, "caller" | "reject">, now?: number): boolean {
  if (caller.signal?.aborted) reject(new HungUp());
  else if (isOverdue(caller, now)) reject(new Overloaded());
  else return false;
  return true;
}

/**
 * Who waits, by owner, and how many run: at most `most` in all, and `ofOne` of an owner. What goes together has the
 * owner "", and no such limit; neither has what the service itself asks.
 */
function createLane<Slot>(most: number, ofOne: number) {
  const waiting = new Map<string, Turn<Slot>[]>();
  const running = new Map<string, number>();
  let runs = 0;
  let waits = 0;
  return {
    waiting: () => waits,
    waitingOf: (owner: string) => waiting.get(owner)?.length ?? 0,

    add(turn: Turn<Slot>) {
      const others = waiting.get(turn.caller.owner);
      if (others) others.push(turn);
      else waiting.set(turn.caller.owner, [turn]);
      waits++;
    },

    next(): Turn<Slot> | undefined {
      if (runs >= most) return undefined;
      for (const [owner, turns] of waiting) {
        if (owner !== "" && (running.get(owner) ?? 0) >= ofOne) continue;
        const turn = turns.shift();
        waits--;
        // An owner with more waiting goes to the back.
        waiting.delete(owner);
        if (turns.length > 0) waiting.set(owner, turns);
        return turn;
      }
    },

    count(owner: string, change: 1 | -1) {
      runs += change;
      const now = (running.get(owner) ?? 0) + change;
      if (now === 0) running.delete(owner);
      else running.set(owner, now);
    },

    prune() {
      for (const [owner, turns] of waiting) {
        const left = turns.filter((turn) => !refusedUnsent(turn));
        waits -= turns.length - left.length;
        if (left.length === 0) waiting.delete(owner);
        else if (left.length < turns.length) waiting.set(owner, left);
      }
    },
  };
}
