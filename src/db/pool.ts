import {
  ANSWER_TIMEOUT_MS,
  type Caller,
  type Database,
  type Query,
  REQUEST_TIMEOUT_MS,
  STATEMENT_TIMEOUT_MS,
  type Statement,
} from "./database.ts";
import { codeOf, DatabaseTimeout, HungUp, isConflict, isLost, isStale, OutcomeUnknown } from "./errors.ts";
import { createTurns, isOverdue } from "./turns.ts";

/** One connection, as its driver has it. It opens itself when it is used, and again after it was lost. */
export interface Connection {
  send<Row>(statement: Statement, values: unknown[]): Promise<Row[]>;
  /** Asks the server to end the statement that is under way. */
  cancel(): void;
  /** Lets go, without waiting for what is under way. */
  close(): unknown;
}

/** What works on the way to the server. A pooler breaks both. */
export interface Capabilities {
  /** Start-up parameters are obeyed. Behind a pooler they are refused or dropped. */
  parameters: boolean;
  /** Statements may be prepared under a name. Behind a pooler that name may be another client's. */
  named: boolean;
}

type Pool = Pick<Database, "query" | "lastAnswer" | "connections" | "close">;

/** Opens a connection. The server knows it by its name. */
export type Open = (name: string, capabilities: Capabilities) => Connection;

/** How often the pool looks for statements that have waited too long. */
const SWEEP_MS = 100;
/**
 * What has run for less is not cancelled when its client hangs up: it ends by itself, and a cancel costs the server a
 * process. 20 clients that hung up 2,500 times a second made others wait for a second.
 */
const CANCEL_AFTER_MS = 250;
/** How long a cancelled statement may take to end before its connection is replaced. */
const CANCEL_TIMEOUT_MS = 2_000;
/** How often a statement that lost to other transactions is tried again. */
const CONFLICT_RETRIES = 30;

interface Slot {
  name: string;
  connection: Connection | undefined;
  /** What the connection was opened for. */
  capabilities?: Capabilities;
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
 * Shares `size` connections: one statement at a time on each, so that nobody's answer waits behind another's. A
 * statement that the server refused without doing anything is sent again, and so is a read whose connection was lost.
 * One that nobody waits for any more is ended on the server, and its connection is replaced if that doesn't help.
 *
 * @param named whether statements are prepared under a name. Undefined: if there is no pooler in between.
 */
export function createPool(size: number, open: Open, named?: boolean): Pool {
  const id = crypto.randomUUID().slice(0, 8);
  const slots = Array.from({ length: size }, (_, i): Slot => ({ name: `tasks-api ${id}/${i}`, connection: undefined }));
  const turns = createTurns(slots);
  const running = new Set<Running>();
  let lastAnswer = Number.NEGATIVE_INFINITY;
  let probed: Promise<Capabilities> | undefined;
  let timer: Timer | undefined;

  /** Comes before the first statement: with a wrong guess a pooler gives the answers of other clients' statements. */
  async function probe(): Promise<Capabilities> {
    const slot = await turns.take(PROBE, itself());
    const parameters = await run<{ limit: string }>(slot, { parameters: true, named: false }, PROBE, [], itself()).then(
      ([row]) => row?.limit === `${STATEMENT_TIMEOUT_MS}ms`,
      (error) => {
        if (codeOf(error) === "08P01") return false;
        throw error;
      },
    );
    return { parameters, named: named ?? parameters };
  }

  const query: Query = async (statement, values, caller = itself()) => {
    for (let attempt = 0; ; attempt++) {
      timer ??= setInterval(sweep, SWEEP_MS);
      probed ??= probe().catch((error) => {
        probed = undefined;
        throw error;
      });
      const mine = probed;
      let sent = false;
      try {
        const capabilities = await mine;
        const slot = await turns.take(statement, caller);
        sent = true;
        return await run(slot, capabilities, statement, values, caller);
      } catch (error) {
        // Probe again, which replaces all connections. (Unless somebody has begun to.)
        if (isStale(error) && probed === mine) probed = undefined;
        const maybeDone = isLost(error) && sent && statement.unrepeatable === true;
        const again = isConflict(error)
          ? attempt < CONFLICT_RETRIES
          : attempt < 2 && (isStale(error) || (isLost(error) && !maybeDone));
        if (!again || isOverdue(caller)) throw maybeDone ? new OutcomeUnknown("", { cause: error }) : error;
        if (isConflict(error)) await Bun.sleep(Math.random() * 10 * 2 ** Math.min(attempt, 4));
      }
    }
  };

  function run<Row>(slot: Slot, capabilities: Capabilities, statement: Statement, values: unknown[], caller: Caller) {
    if (slot.capabilities !== capabilities) replace(slot);
    slot.capabilities = capabilities;
    slot.connection ??= open(slot.name, capabilities);
    const { connection } = slot;
    const now = performance.now();
    return new Promise<Row[]>((resolve, reject) => {
      const one: Running = {
        slot,
        cancelAt: now + STATEMENT_TIMEOUT_MS + SWEEP_MS,
        giveUpAt: Math.min(now + ANSWER_TIMEOUT_MS, caller.deadline),
        cancelled: false,
        fail(error) {
          reject(error);
          done(false, true);
        },
      };
      running.add(one);
      const hungUp = () => {
        one.cancelAt = Math.min(one.cancelAt, now + CANCEL_AFTER_MS);
        one.giveUpAt = Math.max(performance.now(), one.cancelAt) + CANCEL_TIMEOUT_MS;
        reject(new HungUp());
      };
      caller.signal?.addEventListener("abort", hungUp);
      const done = (answered: boolean, stale: boolean) => {
        caller.signal?.removeEventListener("abort", hungUp);
        if (answered) lastAnswer = performance.now();
        if (!running.delete(one)) return;
        if (stale) replace(slot);
        turns.giveBack(slot, statement, caller);
      };
      connection.send<Row>(statement, values).then(
        (rows) => {
          done(true, one.cancelled);
          resolve(rows);
        },
        (error) => {
          // Our cancel request travels apart. If it is late, it would end the next statement on this connection.
          done(false, isStale(error) || (one.cancelled && codeOf(error) !== CANCELLED));
          reject(error);
        },
      );
    });
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
    turns.refuseOverdue();
    if (running.size + turns.waiting() === 0) {
      clearInterval(timer);
      timer = undefined;
    }
  }

  return {
    query,
    lastAnswer: () => lastAnswer,
    connections: () => ({ busy: turns.busy(), most: size }),
    async close() {
      while (turns.busy() > 0) await Bun.sleep(10);
      await Promise.all(slots.map(({ connection }) => connection?.close()));
    },
  };
}

/** SQLSTATE's query_canceled. */
const CANCELLED = "57014";

const PROBE: Statement = { name: "probe", text: "select current_setting('statement_timeout') as \"limit\"" };

/** The service as a caller. */
const itself = (): Caller => ({ owner: "", deadline: performance.now() + REQUEST_TIMEOUT_MS });
