import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { batching } from "../../src/db/batching.ts";
import type { Caller } from "../../src/db/database.ts";
import { HungUp, OutcomeUnknown, Overloaded } from "../../src/db/errors.ts";

setDefaultTimeout(30_000);

const caller = (signal?: AbortSignal): Caller => ({
  owner: "a",
  signal,
  deadline: performance.now() + 10_000,
});
/**
 * Lets all go on that can. A sleep of any length may take 50 ms on a busy machine, and then a statement counts as
 * stalled.
 */
async function ticks() {
  for (let n = 0; n < 20; n++) await new Promise(setImmediate);
}

/** Statements that end when the test says so. */
function statements(options: { answers?: (asked: string[]) => (string | undefined)[]; rows?: boolean } = {}) {
  const sent: { asked: string[]; resolve(): void; reject(error: unknown): void }[] = [];
  const send = async (asked: string[]) => {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    sent.push({ asked, resolve, reject });
    await promise;
  };
  const ask = batching<string, string>({
    async together(asked) {
      await send(asked);
      return options.answers?.(asked) ?? asked.map((one) => `${one}!`);
    },
    async alone(asked) {
      await send([asked]);
      return `${asked} alone`;
    },
    ...(options.rows && { row: (asked: string) => asked.charAt(0) }),
  });
  return {
    sent,
    ask(asked: string, signal?: AbortSignal) {
      const answer = ask(asked, caller(signal));
      // What a test leaves waiting is refused seconds later, when another test would fail for it.
      answer.catch(() => {});
      return answer;
    },
  };
}

describe("requests of a kind", () => {
  test("go at once when none is under way, and else together when it is done", async () => {
    const { sent, ask } = statements();
    const first = ask("a");
    const others = ["b", "c", "d"].map((one) => ask(one));
    await ticks();
    expect(sent.map(({ asked }) => asked)).toEqual([["a"]]);
    sent[0]?.resolve();
    expect(await first).toBe("a alone");
    await ticks();
    expect(sent.map(({ asked }) => asked)).toEqual([["a"], ["b", "c", "d"]]);
    sent[1]?.resolve();
    expect(await Promise.all(others)).toEqual(["b!", "c!", "d!"]);
  });

  test("go in up to four statements at once when many wait, and at most 64 together", async () => {
    const { sent, ask } = statements();
    for (let i = 0; i < 200; i++) void ask(`${i}`);
    await ticks();
    expect(sent.map(({ asked }) => asked.length)).toEqual([1, 16, 16, 16]);
    sent[0]?.resolve();
    await ticks();
    expect(sent.at(-1)?.asked.length).toBe(64);
    for (const { resolve } of sent) resolve();
    await ticks();
    expect(sent.map(({ asked }) => asked.length)).toEqual([1, 16, 16, 16, 64, 64, 23]);
  });

  test("about one row go in two statements, in order of arrival", async () => {
    const { sent, ask } = statements({ rows: true });
    for (const one of ["x", "a1", "a2", "b1", "a3"]) void ask(one);
    sent[0]?.resolve();
    await ticks();
    expect(sent[1]?.asked).toEqual(["a1", "b1"]);
    sent[1]?.resolve();
    await ticks();
    expect(sent[2]?.asked).toEqual(["a2"]);
    sent[2]?.resolve();
    await ticks();
    expect(sent[3]?.asked).toEqual(["a3"]);
  });

  test("that a statement leaves out are asked alone, and hold up nobody", async () => {
    const { sent, ask } = statements({
      rows: true,
      answers: (asked) => asked.map((one) => (one === "locked" ? undefined : one)),
    });
    void ask("x");
    const locked = ask("locked");
    const free = ["a", "b"].map((one) => ask(one));
    sent[0]?.resolve();
    await ticks();
    sent[1]?.resolve();
    expect(await Promise.all(free)).toEqual(["a", "b"]);
    await ticks();
    expect(sent[2]?.asked).toEqual(["locked"]);
    const next = ask("a");
    await ticks();
    sent[3]?.resolve();
    expect(await next).toBe("a alone");
    sent[2]?.resolve();
    expect(await locked).toBe("locked alone");
  });

  test("are asked singly when their statement is refused as a whole", async () => {
    const { sent, ask } = statements();
    void ask("x");
    const refused = ["a", "b"].map((one) => ask(one));
    sent[0]?.resolve();
    await ticks();
    sent[1]?.reject(Object.assign(new Error("deadlock"), { code: "40P01" }));
    await ticks();
    expect(sent.slice(2).map(({ asked }) => asked)).toEqual([["a"], ["b"]]);
    for (const { resolve } of sent) resolve();
    expect(await Promise.all(refused)).toEqual(["a alone", "b alone"]);
  });

  test("are not asked again when it isn't known whether they were done", async () => {
    const { sent, ask } = statements({ rows: true });
    void ask("x");
    const lost = ["a", "b"].map((one) => ask(one).catch((error) => error));
    sent[0]?.resolve();
    await ticks();
    sent[1]?.reject(new OutcomeUnknown());
    for (const error of await Promise.all(lost)) expect(error).toBeInstanceOf(OutcomeUnknown);
    expect(sent.length).toBe(2);
    // Their rows are free for who comes next.
    for (const one of ["a", "b"]) void ask(one);
    await ticks();
    sent[2]?.resolve();
    await ticks();
    expect(sent.slice(2).map(({ asked }) => asked)).toEqual([["a"], ["b"]]);
  });

  test("don't wait for a statement that doesn't come back", async () => {
    const { sent, ask } = statements();
    void ask("frozen");
    void ask("a");
    await Bun.sleep(200);
    expect(sent.map(({ asked }) => asked)).toEqual([["frozen"], ["a"]]);
  });

  test("don't wait for one locked row after another", async () => {
    const { sent, ask } = statements({
      rows: true,
      answers: (asked) => asked.map((one) => (one === "b" ? undefined : `${one}!`)),
    });
    void ask("a");
    await Bun.sleep(100);
    void ask("b");
    await ticks();
    sent[1]?.resolve();
    await ticks();
    void ask("c");
    await ticks();
    expect(sent.map(({ asked }) => asked)).toEqual([["a"], ["b"], ["b"], ["c"]]);
  });

  test("are sent by the time of the first of them, and the others when that is over", async () => {
    const deadlines: number[] = [];
    const together = async (asked: string[], { deadline }: Caller) => {
      deadlines.push(deadline);
      if (deadlines.length > 1) return asked;
      // It waited for a connection until it was too late for one.
      await Bun.sleep(100);
      throw new Overloaded();
    };
    const first = Promise.withResolvers<string>();
    const ask = batching<string, string>({ together, alone: () => first.promise });
    void ask("first", caller());
    const due = performance.now() + 6_050;
    const late = ask("late", { owner: "b", deadline: due }).catch((error) => error);
    const others = ["c", "d"].map((one) => ask(one, caller()));
    first.resolve("");
    expect(await late).toBeInstanceOf(Overloaded);
    expect(await Promise.all(others)).toEqual(["c", "d"]);
    expect(deadlines[0]).toBe(due);
    expect(deadlines.length).toBe(2);
  });

  test("leave their rows to those who come later, once it was too late for one of them", async () => {
    const first = Promise.withResolvers<string>();
    let refused = 0;
    const ask = batching<string, string>({
      async together(asked) {
        if (refused++ === 0) throw new Overloaded();
        return asked.map((one) => `${one}!`);
      },
      alone: async (one) => (one === "first" ? first.promise : `${one} alone`),
      row: (asked) => asked.charAt(0),
    });
    void ask("first", caller());
    const others = ["a1", "b1"].map((one) => ask(one, caller()));
    first.resolve("");
    expect(await Promise.race([Promise.all(others), Bun.sleep(2_000)])).toEqual(["a1!", "b1!"]);
    expect(await Promise.race([ask("a2", caller()), Bun.sleep(2_000)])).toBe("a2 alone");
  });

  test("whose client has hung up are not sent", async () => {
    const { sent, ask } = statements();
    void ask("x");
    const controller = new AbortController();
    const gone = ask("gone", controller.signal).catch((error) => error);
    void ask("a");
    controller.abort();
    sent[0]?.resolve();
    expect(await gone).toBeInstanceOf(HungUp);
    await ticks();
    expect(sent[1]?.asked).toEqual(["a"]);
  });
});
