import {
  ANSWER_TIMEOUT_MS,
  type Caller,
  type Database,
  type Query,
  REQUEST_TIMEOUT_MS,
  STATEMENT_TIMEOUT_MS,
  type Statement,
} from "./database.ts";
import {
  codeOf,
  DatabaseTimeout,
  HungUp,
  isConflict,
  isLost,
  isStale,
  OutcomeUnknown,
  Overloaded,
  TooManyWaiting,
} from "./errors.ts";

/** One connection, as its driver has it. It opens itself when it is used, and again after it was lost. */
export interface Connection {
  send<Row>(statement: Statement, values: unknown[]): Promise<Row[]>;
  /** Asks the server to end the statement that is under way. */
  cancel(): void;
  /** Lets go, without waiting for what is under way. */
  close(): unknown;
}

/** What the way to the server allows. */
export interface Session {
  /** Start-up parameters are obeyed. Behind a pooler they are refused or dropped. */
  parameters: boolean;
  /** Statements may be prepared under a name. A pooler may give the name to another client's server connection. */
  named: boolean;
}

type Pool = Pick<Database, "query" | "lastAnswer" | "connections" | "close">;

/** Opens a connection. The server knows it by its name. */
export type Open = (name: string, session: Session) => Connection;

/** How many slow statements of one owner run at once, and how many of them may wait. */
const OWNER_RUNS = 2;
const OWNER_WAITS = 32;
/** How many slow statements may wait in all. */
const MAX_WAITING = 512;
/** How often it is looked who has waited for too long, in milliseconds. */
const SWEEP_MS = 100;
/** How long a cancelled statement may take to end before its connection is replaced, in milliseconds. */
const CANCEL_TIMEOUT_MS = 2_000;
/** How often a statement that lost to other transactions is tried again. */
const CONFLICT_RETRIES = 30;

interface Slot {
  name: string;
  connection: Connection | undefined;
}

interface Turn {
  statement: Statement;
  caller: Caller;
  begin(slot: Slot): void;
  reject(error: Error): void;
}

interface Running {
  slot: Slot;
  /** When the server is asked to end it, and when it is given up. */
  cancelAt: number;
  giveUpAt: number;
  cancelled: boolean;
  fail(error: Error): void;
}

/**
 * Shares `size` connections: one statement at a time on each, so that nobody's answer waits behind another's.
 *
 * Slow statements take turns: at most half of the connections, two for each owner, owner by owner. So one user's long
 * lists make that user wait and nobody else. What can't be answered in time is refused before it is sent. A statement
 * that nobody waits for any more is ended on the server, and its connection is replaced if that doesn't help.
 *
 * @param named whether statements are prepared under a name. Undefined: if there is no pooler in between.
 */
export function createPool(size: number, open: Open, named?: boolean): Pool {
  const id = crypto.randomUUID().slice(0, 8);
  const free = Array.from(
    { length: size },
    (_, i): Slot => ({ name: `tasks-api ${id}/${i}`, connection: undefined }),
  );
  const slots = [...free];
  const slowMost = Math.max(1, Math.floor(size / 2));
  const short: Turn[] = [];
  const slow = new Map<string, Turn[]>();
  const slowRunning = new Map<string, number>();
  const running = new Set<Running>();
  let slowBusy = 0;
  let slowWaiting = 0;
  let lastAnswer = Number.NEGATIVE_INFINITY;
  let session: Promise<Session> | undefined;
  let timer: Timer | undefined;

  /** What the way to the server allows, found out before the first statement, for a wrong guess answers wrongly. */
  async function probe(): Promise<Session> {
    const slot = await turn(PROBE, NOBODY());
    let parameters = false;
    try {
      const [row] = await run<{ limit: string }>(
        slot,
        { parameters: true, named: false },
        PROBE,
        [],
        NOBODY(),
      );
      parameters = row?.limit === `${STATEMENT_TIMEOUT_MS}ms`;
    } catch (error) {
      if (codeOf(error) !== "08P01") throw error;
    } finally {
      replace(slot);
    }
    return { parameters, named: named ?? parameters };
  }

  const query: Query = async (statement, values, caller = NOBODY()) => {
    for (let attempt = 0; ; attempt++) {
      try {
        session ??= probe();
        const known = await session.catch((error) => {
          session = undefined;
          throw error;
        });
        return await run(await turn(statement, caller), known, statement, values, caller);
      } catch (error) {
        if (isStale(error)) session = undefined;
        const again = isConflict(error)
          ? attempt < CONFLICT_RETRIES
          : attempt < 2 && (isStale(error) || (!statement.writes && isLost(error)));
        if (!again || overdue(caller))
          throw statement.writes && isLost(error) ? new OutcomeUnknown("", { cause: error }) : error;
        if (isConflict(error)) await Bun.sleep(Math.random() * 10 * 2 ** Math.min(attempt, 4));
      }
    }
  };

  function turn(statement: Statement, caller: Caller): Promise<Slot> {
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
      timer ??= setInterval(sweep, SWEEP_MS);
    });
  }

  /** Gives the free connections to those whose turn it is. */
  function begin() {
    while (free.length > 0) {
      const turn = short.shift() ?? nextSlow();
      if (turn === undefined) return;
      const { statement, caller, reject } = turn;
      if (caller.signal?.aborted) reject(new HungUp());
      else if (overdue(caller)) reject(new Overloaded());
      else {
        if (statement.slow) {
          slowBusy++;
          slowRunning.set(caller.owner, (slowRunning.get(caller.owner) ?? 0) + 1);
        }
        turn.begin(free.pop() as Slot);
      }
    }
  }

  function nextSlow(): Turn | undefined {
    if (slowBusy >= slowMost) return undefined;
    for (const [owner, waiting] of slow) {
      if ((slowRunning.get(owner) ?? 0) >= OWNER_RUNS) continue;
      const turn = waiting.shift();
      slowWaiting--;
      // Behind all others, if more of theirs wait.
      slow.delete(owner);
      if (waiting.length > 0) slow.set(owner, waiting);
      return turn;
    }
  }

  function run<Row>(slot: Slot, session: Session, statement: Statement, values: unknown[], caller: Caller) {
    slot.connection ??= open(slot.name, session);
    const now = performance.now();
    return new Promise<Row[]>((resolve, reject) => {
      const one: Running = {
        slot,
        cancelAt: now + STATEMENT_TIMEOUT_MS + SWEEP_MS,
        giveUpAt: Math.min(now + ANSWER_TIMEOUT_MS, caller.deadline),
        cancelled: false,
        fail: reject,
      };
      running.add(one);
      const hungUp = () => {
        one.giveUpAt = performance.now() + CANCEL_TIMEOUT_MS;
        one.cancelAt = 0;
        reject(new HungUp());
        sweep();
      };
      caller.signal?.addEventListener("abort", hungUp);
      const done = (answered: boolean, stale: boolean) => {
        caller.signal?.removeEventListener("abort", hungUp);
        if (answered) lastAnswer = performance.now();
        if (running.delete(one)) release(slot, stale, statement, caller);
      };
      (slot.connection as Connection).send<Row>(statement, values).then(
        (rows) => {
          done(true, false);
          resolve(rows);
        },
        (error) => {
          done(false, isStale(error));
          reject(error);
        },
      );
      one.fail = (error) => {
        reject(error);
        done(false, true);
      };
    });
  }

  function release(slot: Slot, stale: boolean, { slow }: Statement, { owner }: Caller) {
    if (stale) replace(slot);
    if (slow) {
      slowBusy--;
      const left = (slowRunning.get(owner) ?? 1) - 1;
      if (left === 0) slowRunning.delete(owner);
      else slowRunning.set(owner, left);
    }
    free.push(slot);
    begin();
  }

  function replace(slot: Slot) {
    slot.connection?.close();
    slot.connection = undefined;
  }

  /** One timer for all that wait: one for each costs a microsecond. */
  function sweep() {
    const now = performance.now();
    for (const one of running) {
      if (now >= one.giveUpAt) one.fail(new DatabaseTimeout());
      else if (now >= one.cancelAt && !one.cancelled) {
        one.cancelled = true;
        one.slot.connection?.cancel();
      }
    }
    for (const waiting of [short, ...slow.values()])
      for (const turn of waiting) if (overdue(turn.caller)) turn.reject(new Overloaded());
    if (running.size + short.length + slowWaiting === 0) {
      clearInterval(timer);
      timer = undefined;
    }
  }

  return {
    query,
    lastAnswer: () => lastAnswer,
    connections: () => ({ busy: size - free.length, most: size }),
    async close() {
      while (free.length < size) await Bun.sleep(10);
      await Promise.all(slots.map(({ connection }) => connection?.close()));
    },
  };
}

const PROBE: Statement = { name: "probe", text: "select current_setting('statement_timeout') as \"limit\"" };

/** The service itself asks. */
const NOBODY = (): Caller => ({ owner: "", deadline: performance.now() + REQUEST_TIMEOUT_MS });

/** Too late to send anything: it could not be answered before the deadline. */
const overdue = ({ deadline }: Caller) => performance.now() > deadline - ANSWER_TIMEOUT_MS;
