import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { type Caller, STATEMENT_TIMEOUT_MS, type Statement } from "../../src/db/database.ts";
import { HungUp, OutcomeUnknown, Overloaded, TooManyWaiting } from "../../src/db/errors.ts";
import { type Capabilities, type Connection, createPool } from "../../src/db/pool.ts";

setDefaultTimeout(30_000);

const SHORT: Statement = { name: "short", text: "short" };
const SLOW: Statement = { name: "slow", text: "slow", slow: true };
const WRITE: Statement = { name: "write", text: "write", unrepeatable: true };

const caller = (owner: string, signal?: AbortSignal): Caller => ({
  owner,
  signal,
  deadline: performance.now() + 10_000,
});
const failure = (code: string) => Object.assign(new Error("from the server"), { code });
const ticks = () => Bun.sleep(5);

const cancelled = (reject?: (error: Error) => void) => reject?.(failure("57014"));

/** A pool over connections whose statements end when the test says so. */
function pool(size: number, answer?: (text: string, attempt: number) => unknown, onCancel = cancelled) {
  const sent: {
    text: string;
    connection: string;
    resolve(rows: object[]): void;
    reject(error: Error): void;
  }[] = [];
  const log: string[] = [];
  /** What the first probes fail with. */
  const lostProbes: Error[] = [];
  let attempts = 0;
  const open = (name: string): Connection => ({
    send<Row>({ text }: Statement) {
      if (text.includes("statement_timeout")) {
        const lost = lostProbes.shift();
        return lost ? Promise.reject(lost) : Promise.resolve([{ limit: `${STATEMENT_TIMEOUT_MS}ms` }] as Row[]);
      }
      const { promise, resolve, reject } = Promise.withResolvers<Row[]>();
      sent.push({ text, connection: name, resolve: resolve as never, reject });
      const given = answer?.(text, attempts++);
      if (given instanceof Error) reject(given);
      else if (given !== undefined) resolve(given as Row[]);
      return promise;
    },
    cancel() {
      log.push(`cancel ${name.split("/")[1]}`);
      onCancel(sent.find(({ connection }) => connection === name)?.reject);
    },
    close: () => log.push(`close ${name.split("/")[1]}`),
  });
  const shared = createPool(size, open);
  return {
    ...shared,
    sent,
    log,
    lostProbes,
    query<Row>(...asked: Parameters<typeof shared.query>) {
      const answer = shared.query<Row>(...asked);
      // What a test leaves waiting is refused seconds later, when another test would fail for it.
      answer.catch(() => {});
      return answer;
    },
  };
}

/** Has a statement under way that nobody waits for any more. */
async function askAndHangUp(query: ReturnType<typeof pool>["query"]) {
  const client = new AbortController();
  const asked = query(SHORT, [], caller("a", client.signal)).catch((error) => error);
  await ticks();
  client.abort();
  expect(await asked).toBeInstanceOf(HungUp);
}

describe("the pool", () => {
  test("runs two slow statements of an owner at once, and another owner's before the third", async () => {
    const { query, sent } = pool(8);
    for (let i = 0; i < 5; i++) void query({ ...SLOW, text: "hog" }, [], caller("hog"));
    await ticks();
    expect(sent.map(({ text }) => text)).toEqual(["hog", "hog"]);
    void query({ ...SLOW, text: "other" }, [], caller("other"));
    await ticks();
    expect(sent.map(({ text }) => text)).toEqual(["hog", "hog", "other"]);
    sent[0]?.resolve([]);
    await ticks();
    expect(sent.length).toBe(4);
  });

  test("keeps half of its connections for short statements, and one statement on each", async () => {
    const { query, sent, connections } = pool(4);
    for (let i = 0; i < 8; i++) void query(SLOW, [], caller(`owner ${i}`));
    await ticks();
    expect(sent.length).toBe(2);
    for (let i = 0; i < 4; i++) void query(SHORT, [], caller(`other ${i}`));
    await ticks();
    expect(sent.map(({ text }) => text)).toEqual(["slow", "slow", "short", "short"]);
    expect(new Set(sent.map(({ connection }) => connection)).size).toBe(4);
    expect(connections()).toEqual({ busy: 4, most: 4 });
    sent[0]?.resolve([]);
    await ticks();
    expect(sent[4]?.text).toBe("short");
  });

  test("lets an owner take turns with others, however many wait", async () => {
    const { query, sent } = pool(2);
    for (const owner of ["hog", "hog", "hog", "hog", "other"]) void query({ ...SLOW, text: owner }, [], caller(owner));
    for (let i = 0; i < 3; i++) {
      await ticks();
      sent[i]?.resolve([]);
    }
    expect(sent.map(({ text }) => text)).toContain("other");
  });

  test("refuses what an owner asks beyond what may wait", async () => {
    const { query } = pool(2);
    const asked = Array.from({ length: 40 }, () => query(SLOW, [], caller("hog")).catch((error) => error));
    const first = await Promise.race(asked);
    expect(first).toBeInstanceOf(TooManyWaiting);
    expect(await Promise.race([query(SLOW, [], caller("other")), ticks()])).toBeUndefined();
  });

  test("lets 512 slow statements wait, whosever they are, and refuses those beyond", async () => {
    const { query } = pool(2);
    const refused: unknown[] = [];
    for (let i = 0; i < 640; i++) query(SLOW, [], caller(`owner ${i % 20}`)).catch((error) => refused.push(error));
    await ticks();
    expect(refused.length).toBe(640 - 512 - 1);
    for (const error of refused) expect(error).toBeInstanceOf(Overloaded);
  });

  test.each([SHORT, SLOW])("refuses unsent what has waited too long for a connection: $name", async (statement) => {
    const { query, sent } = pool(1);
    void query(SHORT, [], caller("a"));
    await ticks();
    const late = query(statement, [], { owner: "b", deadline: performance.now() + 6_050 }).catch((error) => error);
    // The one that it waits for is given up later than this.
    expect(await Promise.race([late, Bun.sleep(3000)])).toBeInstanceOf(Overloaded);
    expect(sent.length).toBe(1);
  });

  test("sends nothing for a client that has hung up, and ends what runs for one", async () => {
    const { query, sent, log } = pool(1);
    const [waiting, running] = [new AbortController(), new AbortController()];
    const first = query(SLOW, [], caller("a", running.signal)).catch((error) => error);
    const second = query(SLOW, [], caller("b", waiting.signal)).catch((error) => error);
    await ticks();
    waiting.abort();
    running.abort();
    expect(await first).toBeInstanceOf(HungUp);
    expect(await second).toBeInstanceOf(HungUp);
    // It may be about to end by itself.
    expect(log).toEqual(["close 0"]);
    await Bun.sleep(500);
    expect([sent.length, log]).toEqual([1, ["close 0", "cancel 0"]]);
  });

  test("replaces a connection whose statement doesn't end when it is asked to, and goes on over a new one", async () => {
    const { query, sent, log } = pool(1, undefined, () => {});
    await askAndHangUp(query);
    const second = query<object>(SHORT, [], caller("b"));
    while (sent.length < 2) await ticks();
    // The first one was closed after the probe.
    expect(log).toEqual(["close 0", "cancel 0", "close 0"]);
    sent[1]?.resolve([{ n: 1 }]);
    expect(await second).toEqual([{ n: 1 }]);
  });

  test.each<[string, Error]>([
    ...["57P01", "57P02", "08006", "ERR_POSTGRES_CONNECTION_CLOSED", "ECONNRESET", "EPIPE"].map(
      (code): [string, Error] => [code, failure(code)],
    ),
    ["no code", new Error("Connection terminated unexpectedly")],
  ])("asks a read again whose connection was lost (%s), and no write: it may have been done", async (_, lost) => {
    const reads = pool(2, (_, attempt) => (attempt === 0 ? lost : [{ n: 1 }]));
    expect(await reads.query<object>(SHORT, [], caller("a"))).toEqual([{ n: 1 }]);
    const writes = pool(2, () => lost);
    const error = await writes.query(WRITE, [], caller("a")).catch((error) => error);
    expect(error).toBeInstanceOf(OutcomeUnknown);
    expect(error.cause).toBe(lost);
    expect(writes.sent.length).toBe(1);
  });

  test("says of a write that isn't answered in time that it may have been done", async () => {
    const { query, sent, log } = pool(1, undefined, () => {});
    const [lost, failed] = [caller("a"), caller("a")];
    const error = await query(WRITE, [], lost).catch((error) => error);
    expect(error).toBeInstanceOf(OutcomeUnknown);
    expect([error.cause.code, sent.length, log]).toEqual(["DATABASE_TIMEOUT", 1, ["close 0", "cancel 0", "close 0"]]);
    expect(performance.now()).toBeLessThan(failed.deadline);
  });

  test.each([
    [`${STATEMENT_TIMEOUT_MS}ms`, true],
    ["0", false],
    ["5s", false],
    ["300ms", false],
  ])("whose statement timeout turns out to be %s may name statements and set parameters: %p", async (limit, may) => {
    const opened: Capabilities[] = [];
    const open = (_: string, capabilities: Capabilities): Connection => {
      opened.push(capabilities);
      return { send: async <Row>() => [{ limit }] as Row[], cancel() {}, close() {} };
    };
    await createPool(1, open).query(SHORT, [], caller("a"));
    expect(opened).toEqual([
      { parameters: true, named: false },
      { parameters: may, named: may },
    ]);
  });

  test("takes no failure for an answer: probes go by when there was one", async () => {
    const { query, lastAnswer } = pool(1, (_, attempt) => (attempt === 0 ? [] : failure("57014")));
    await query(SHORT, [], caller("a"));
    const answered = lastAnswer();
    expect(answered).toBeWithin(performance.now() - 1000, performance.now() + 1);
    await ticks();
    expect(await query(SHORT, [], caller("a")).catch((error) => error.code)).toBe("57014");
    expect(lastAnswer()).toBe(answered);
  });

  test("is closed once what is under way has been answered", async () => {
    const { query, sent, log, close } = pool(2);
    const asked = query<object>(SHORT, [], caller("a"));
    await ticks();
    log.splice(0);
    const closed = close();
    await Bun.sleep(50);
    expect([Bun.peek.status(closed), log]).toEqual(["pending", []]);
    sent[0]?.resolve([{ n: 1 }]);
    expect(await asked).toEqual([{ n: 1 }]);
    await closed;
    expect(log).toEqual(["close 0"]);
  });

  test("sends a write after a probe whose connection was lost: it can't have been done", async () => {
    const { query, sent, lostProbes } = pool(2, () => [{ n: 1 }]);
    lostProbes.push(failure("57P01"), failure("57P01"));
    expect(await query<object>(WRITE, [], caller("a"))).toEqual([{ n: 1 }]);
    expect(sent.length).toBe(1);
    const never = pool(2);
    never.lostProbes.push(...Array.from({ length: 3 }, () => failure("57P01")));
    expect(await never.query(WRITE, [], caller("a")).catch((error) => error.code)).toBe("57P01");
    expect(never.sent).toEqual([]);
  });

  test("probes anew without closing a connection that another statement has begun to use", async () => {
    const { query, sent, log } = pool(1);
    const asked = ["a", "b", "c"].map((owner) =>
      query({ ...WRITE, text: owner, slow: owner !== "a" }, [], caller(owner)),
    );
    await ticks();
    sent[0]?.reject(failure("0A000"));
    await ticks();
    // "b" was waiting before, so it goes first; then the probe does, and then "c".
    log.splice(0);
    sent[1]?.resolve([]);
    await ticks();
    expect(sent.map(({ text }) => text)).toEqual(["a", "b", "c"]);
    // One for the probe, and one for "c", which was waiting before it.
    expect(log).toEqual(["close 0", "close 0"]);
    sent[2]?.resolve([]);
    await ticks();
    sent[3]?.resolve([]);
    await Promise.all(asked);
    expect(sent.map(({ text }) => text)).toEqual(["a", "b", "c", "a"]);
  });

  test("gives an owner's short statements a quarter of its connections, for they may wait for locked rows", async () => {
    const { query, sent } = pool(8);
    for (let i = 0; i < 20; i++) void query({ ...SHORT, text: "hog" }, [], caller("hog"));
    void query({ ...SHORT, text: "other" }, [], caller("other"));
    for (let i = 0; i < 3; i++) void query({ ...SHORT, text: "together" }, [], caller(""));
    await ticks();
    expect(sent.map(({ text }) => text).sort()).toEqual(["hog", "hog", "other", "together", "together", "together"]);
  });

  test("lets who hung up leave their place in the queue to others at once", async () => {
    const { query, sent } = pool(2);
    void query(SLOW, [], caller("other"));
    const gone = new AbortController();
    const left = Array.from({ length: 32 }, () => query(SLOW, [], caller("hog", gone.signal)).catch((error) => error));
    await ticks();
    gone.abort();
    for (const one of left) expect(await one).toBeInstanceOf(HungUp);
    void query({ ...SLOW, text: "new" }, [], caller("hog"));
    sent[0]?.resolve([]);
    await ticks();
    expect(sent.at(-1)?.text).toBe("new");
  });

  test.each<[string, (one: { resolve(rows: object[]): void; reject(error: Error): void }) => void]>([
    ["done", ({ resolve }) => resolve([])],
    ["refused", ({ reject }) => reject(failure("23505"))],
  ])("uses a connection no more whose statement was %s before the request to end it got there", async (_, end) => {
    const { query, log, sent } = pool(1, undefined, () => {});
    await askAndHangUp(query);
    await Bun.sleep(500);
    sent.forEach(end);
    await ticks();
    expect(log).toEqual(["close 0", "cancel 0", "close 0"]);
  });

  test("takes it for a loss when PgBouncer ends a connection, and not for a refusal", async () => {
    const crashed = Object.assign(failure("08P01"), { message: "server conn crashed?", severity: "FATAL" });
    const { query, sent } = pool(2, () => crashed);
    expect(await query(WRITE, [], caller("a")).catch((error) => error)).toBeInstanceOf(OutcomeUnknown);
    expect(sent.length).toBe(1);
    const refused = Object.assign(failure("08P01"), {
      message: "unsupported startup parameter: statement_timeout",
      severity: "FATAL",
    });
    const found = pool(2, (_, attempt) => (attempt === 0 ? refused : [{ n: 1 }]));
    expect(await found.query<object>(WRITE, [], caller("a"))).toEqual([{ n: 1 }]);
  });

  test("uses no connection any more that was opened before one turned out to be stale", async () => {
    const { query, sent, log } = pool(4);
    const asked = Array.from({ length: 4 }, (_, i) => query(WRITE, [], caller(`owner ${i}`)));
    await ticks();
    for (const one of sent.splice(0)) one.resolve([]);
    await Promise.all(asked);
    log.splice(0);
    const again = Array.from({ length: 4 }, (_, i) => query(WRITE, [], caller(`owner ${i}`)));
    await ticks();
    const [stale, ...others] = sent.splice(0);
    for (const one of others) one.resolve([]);
    stale?.reject(failure("0A000"));
    await ticks();
    const more = query(WRITE, [], caller("owner"));
    await ticks();
    expect(sent.length).toBe(2);
    const used = sent.map(({ connection }) => `close ${connection.split("/")[1]}`);
    expect(log).toEqual(expect.arrayContaining(used));
    for (const one of sent) one.resolve([]);
    await Promise.all([...again, more]);
  });

  test("asks a read three times in all, and then says how its connection was lost", async () => {
    const { query, sent } = pool(2, () => failure("57P01"));
    expect(await query(SHORT, [], caller("a")).catch((error) => error.code)).toBe("57P01");
    expect(sent.length).toBe(3);
  });

  test.each(["40001", "40P01"])("tries again what lost to another transaction (%s)", async (code) => {
    const { query, sent } = pool(2, (_, attempt) => (attempt < 5 ? failure(code) : [{ n: 1 }]));
    expect(await query<object>(WRITE, [], caller("a"))).toEqual([{ n: 1 }]);
    expect(sent.length).toBe(6);
  });

  test.each(["0A000", "26000", "42P05"])("tries again on a new connection what it is stale for (%s)", async (code) => {
    const { query, sent, log } = pool(2, (_, attempt) => (attempt === 0 ? failure(code) : [{ n: 1 }]));
    expect(await query<object>(WRITE, [], caller("a"))).toEqual([{ n: 1 }]);
    expect(sent.length).toBe(2);
    expect(log.length).toBeGreaterThan(1);
  });

  test.each(["23505", "57014", "42501"])("says what the server refused, once (%s)", async (code) => {
    const { query, sent } = pool(2, () => failure(code));
    expect(await query(WRITE, [], caller("a")).catch((error) => error.code)).toBe(code);
    expect(sent.length).toBe(1);
  });
});
