import { afterAll, setDefaultTimeout, test } from "bun:test";
import fc from "fast-check";
import type { Task } from "../../src/tasks/model.ts";
import { hasServer } from "../database.ts";
import { service, spawnService, type User } from "../harness.ts";

// Processes and databases take their time on a machine that does other things too.
setDefaultTimeout(240_000);

/** What `If-Match` holds: nothing, what the client has last seen of the task, `*`, or what never was. */
type Condition = "none" | "seen" | "*" | "never";

type Operation = { client: 0 | 1 } & (
  | { kind: "put"; task: string; title: string; condition: Condition }
  | { kind: "complete"; task: string; completed: boolean | undefined; condition: Condition }
  | { kind: "delete"; task: string; condition: Condition }
  | { kind: "get"; task: string; condition: "none" | "seen" }
  | { kind: "post"; key: string | undefined; title: string; completed: boolean }
  | { kind: "clear"; status: "completed" | "all"; looked?: string[] }
  | { kind: "list" }
);

/** What an operation is answered, as far as it follows from the order of all of them. */
interface Outcome {
  status: number;
  /** The task that a body or a tag belongs to, and which of its versions it is. */
  task?: string;
  version?: number;
  title?: string;
  completed?: boolean;
  replayed?: boolean;
  deleted?: number;
  list?: string;
}

interface Model {
  tasks: ReadonlyMap<string, { title: string; completed: boolean; version: number }>;
  keys: ReadonlyMap<string, string>;
}

/** The versions, by the names of tasks, that each client has seen when a round begins. */
type Seen = [Map<string, number>, Map<string, number>];

const listed = (tasks: Iterable<{ title: string; completed: boolean }>) =>
  JSON.stringify([...tasks].map(({ title, completed }) => `${title} ${completed}`).toSorted());

/** What the service promises of one operation after the other. */
function apply(model: Model, operation: Operation, name: string, seen: Seen): [Model, Outcome] {
  const { tasks, keys } = model;
  const withTask = (task: string, now: { title: string; completed: boolean; version: number }) => ({
    keys,
    tasks: new Map(tasks).set(task, now),
  });
  const holds = (task: string, condition: Condition) =>
    condition === "none" ||
    condition === "*" ||
    (condition === "seen" && seen[operation.client].get(task) === tasks.get(task)?.version);
  const change = (
    task: string,
    condition: Condition,
    changed: (before: { title: string; completed: boolean }) => { title?: string; completed?: boolean },
  ): [Model, Outcome] => {
    const before = tasks.get(task);
    if (before === undefined) return [model, { status: 404 }];
    if (!holds(task, condition)) return [model, { status: 412 }];
    const now = { ...before, ...changed(before), version: before.version + 1 };
    return [withTask(task, now), { status: 200, task, ...now }];
  };

  switch (operation.kind) {
    case "put":
      return change(operation.task, operation.condition, () => ({ title: operation.title }));
    case "complete":
      return change(operation.task, operation.condition, ({ completed }) => ({
        completed: operation.completed ?? !completed,
      }));
    case "delete": {
      if (!tasks.has(operation.task)) return [model, { status: 404 }];
      if (!holds(operation.task, operation.condition)) return [model, { status: 412 }];
      const left = new Map(tasks);
      left.delete(operation.task);
      return [{ keys, tasks: left }, { status: 204 }];
    }
    case "get": {
      const { task, condition } = operation;
      const now = tasks.get(task);
      if (now === undefined) return [model, { status: 404 }];
      return condition === "seen" && holds(task, condition)
        ? [model, { status: 304, task, version: now.version }]
        : [model, { status: 200, task, ...now }];
    }
    case "post": {
      const { key, title, completed } = operation;
      const sent = `${title} ${completed}`;
      const task = key ?? name;
      const first = key === undefined ? undefined : keys.get(key);
      const now = tasks.get(task);
      if (first !== undefined && first !== sent) return [model, { status: 422 }];
      if (first !== undefined)
        return now === undefined ? [model, { status: 404 }] : [model, { status: 201, task, ...now, replayed: true }];
      const made = { title, completed, version: 0 };
      const next = withTask(task, made);
      return [
        { ...next, keys: key === undefined ? keys : new Map(keys).set(key, sent) },
        { status: 201, task, ...made, replayed: false },
      ];
    }
    case "clear": {
      const { status, looked = [...tasks.keys()] } = operation;
      const left = new Map(
        [...tasks].filter(([task, { completed }]) => !looked.includes(task) || (status === "completed" && !completed)),
      );
      return [
        { keys, tasks: left },
        { status: 200, deleted: tasks.size - left.size },
      ];
    }
    case "list":
      return [model, { status: 200, list: listed(tasks.values()) }];
  }
}

/** The same, as it was really answered: with a tag in the place of a version. */
type Answered = Omit<Outcome, "task" | "version"> & { tag?: string };

/** Which version of which task bears which tag: found out from the answers. No two versions of a task may share one. */
class Tags {
  constructor(readonly known: ReadonlyMap<string, string> = new Map()) {}

  /** Undefined if it contradicts what is known. */
  with(task: string, version: number, tag: string): Tags | undefined {
    const there = this.known.get(`${task} ${version}`);
    if (there !== undefined) return there === tag ? this : undefined;
    for (const [one, other] of this.known) if (other === tag && one.startsWith(`${task} `)) return undefined;
    return new Tags(new Map(this.known).set(`${task} ${version}`, tag));
  }

  of = (task: string, version: number | undefined) => this.known.get(`${task} ${version}`) ?? '"never"';
}

function agree(outcome: Outcome, { tag, ...answered }: Answered, tags: Tags): Tags | undefined {
  const { task = "", version = 0, ...rest } = outcome;
  if (!Bun.deepEquals(rest, answered)) return undefined;
  return tag === undefined ? tags : tags.with(task, version, tag);
}

interface State {
  model: Model;
  tags: Tags;
  outcomes: Outcome[];
}

/** The orders, one after the other, in which the operations would have been answered as they were. */
function* explanations(operations: [Operation, Answered, string][], state: State, seen: Seen): Generator<State> {
  if (operations.length === 0) yield state;
  for (const [i, [operation, answered, name]] of operations.entries()) {
    // It first looks at what is there. What is created before it is done stays, and a list meanwhile has all.
    if (operation.kind === "clear" && operation.looked === undefined) {
      const { status } = operation;
      const looked = [...state.model.tasks].flatMap(([task, { completed }]) =>
        status === "all" || completed ? task : [],
      );
      yield* explanations(operations.with(i, [{ ...operation, looked }, answered, name]), state, seen);
      continue;
    }
    const [model, outcome] = apply(state.model, operation, name, seen);
    const tags = agree(outcome, answered, state.tags);
    if (tags !== undefined)
      yield* explanations(operations.toSpliced(i, 1), { model, tags, outcomes: [...state.outcomes, outcome] }, seen);
  }
}

const INITIAL = ["first", "second"];
const KEYS = ["key1", "key2"];

const client = fc.constantFrom(0 as const, 1 as const);
const task = fc.constantFrom(...INITIAL, ...KEYS);
const condition = fc.constantFrom<Condition>("none", "seen", "seen", "*", "never");
const title = fc.constantFrom("a", "b");
const completed = fc.boolean();
const operation: fc.Arbitrary<Operation> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ kind: fc.constant("put" as const), client, task, title, condition }) },
  {
    weight: 4,
    arbitrary: fc.record({
      ...{ kind: fc.constant("complete" as const), client, task, condition },
      completed: fc.constantFrom(undefined, undefined, true, false),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("delete" as const), client, task, condition }) },
  {
    weight: 4,
    arbitrary: fc.record({
      ...{ kind: fc.constant("get" as const), client, task },
      condition: fc.constantFrom("none" as const, "seen" as const),
    }),
  },
  {
    weight: 5,
    arbitrary: fc.record({
      ...{ kind: fc.constant("post" as const), client, title, completed },
      key: fc.constantFrom(undefined, ...KEYS, ...KEYS),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      ...{ kind: fc.constant("clear" as const), client },
      status: fc.constantFrom("completed" as const, "completed" as const, "all" as const),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("list" as const), client }) },
);

/** What a client sends and what comes back. `ids` are those of the tasks whose names are known when a round begins. */
async function send(operation: Operation, user: User, ids: Map<string, number>, seen: string): Promise<Response> {
  const id = "task" in operation ? (ids.get(operation.task) ?? 999_999_999) : 0;
  const tag =
    "condition" in operation ? { none: undefined, seen, "*": "*", never: '"0"' }[operation.condition] : undefined;
  const ifMatch = { ...(tag !== undefined && { "if-match": tag }) };
  switch (operation.kind) {
    case "put":
      return user.put(id, { title: operation.title }, ifMatch);
    case "complete":
      return user.send("PATCH", `/${id}/complete`, { completed: operation.completed }, ifMatch);
    case "delete":
      return user.send("DELETE", `/${id}`, undefined, ifMatch);
    case "get":
      return user.get(`/${id}`, { ...(tag !== undefined && { "if-none-match": tag }) });
    case "post": {
      const { key, title, completed } = operation;
      return user.post({ title, completed }, { ...(key !== undefined && { "idempotency-key": key }) });
    }
    case "clear":
      return user.send("DELETE", `?status=${operation.status}`);
    case "list":
      return user.get();
  }
}

async function answeredOf({ kind }: Operation, answer: Response): Promise<Answered & { id?: number }> {
  const { status, headers } = answer;
  const text = await answer.text();
  const tag = headers.get("etag");
  if (status === 304) return { status, tag: tag ?? "none" };
  if (status >= 400 || status === 204) return { status };
  if (kind === "clear") return { status, deleted: (JSON.parse(text) as { deleted: number }).deleted };
  if (kind === "list") return { status, list: listed(JSON.parse(text) as Task[]) };
  const { id, title, completed } = JSON.parse(text) as Task;
  const replayed = { ...(kind === "post" && { replayed: headers.get("idempotency-replayed") === "true" }) };
  return { status, title, completed, tag: tag ?? "none", ...replayed, id };
}

/**
 * Each round's operations go out together. A round of one is answered as the model says; one of more, as in some order.
 */
async function play(rounds: Operation[][], users: [User, User]) {
  const ids = new Map<string, number>();
  const seen: Seen = [new Map(), new Map()];
  let model: Model = { tasks: new Map(), keys: new Map() };
  let tags = new Tags();
  for (const name of INITIAL) {
    const answer = await users[0].post({ title: "a" });
    ids.set(name, ((await answer.json()) as Task).id);
    model = { ...model, tasks: new Map(model.tasks).set(name, { title: "a", completed: false, version: 0 }) };
    tags = tags.with(name, 0, answer.headers.get("etag") ?? "none") ?? tags;
  }
  for (const [n, round] of rounds.entries()) {
    const answers = await Promise.all(
      round.map(async (operation) => {
        const user = users[operation.client];
        const known = "task" in operation ? seen[operation.client].get(operation.task) : undefined;
        const tag = "task" in operation ? tags.of(operation.task, known) : "";
        return answeredOf(operation, await send(operation, user, ids, tag));
      }),
    );
    const asked = round.map((operation, i): [Operation, Answered, string] => {
      const { id: _, ...answered } = answers[i] as Answered & { id?: number };
      return [operation, answered, `${n}/${i}`];
    });
    // A task that this round has made was not to be found by the others' requests: they didn't know its id.
    const named = asked.map(([operation, answered, name]): [Operation, Answered, string] => [
      "task" in operation && !ids.has(operation.task) ? { ...operation, task: "nobody's" } : operation,
      answered,
      name,
    ]);
    for (const [i, operation] of round.entries()) {
      const { id } = answers[i] ?? {};
      if (operation.kind === "post" && operation.key !== undefined && id !== undefined) ids.set(operation.key, id);
    }
    // What is there afterwards is part of what must be explained.
    const afterwards = await Promise.all(
      [...ids.keys()].map(async (task): Promise<[Operation, Answered]> => {
        const operation: Operation = { kind: "get", client: 0, task, condition: "none" };
        const { id: _, ...answered } = await answeredOf(operation, await send(operation, users[0], ids, ""));
        return [operation, answered];
      }),
    );
    const list: Operation = { kind: "list", client: 1 };
    afterwards.push([list, await answeredOf(list, await send(list, users[1], ids, ""))]);

    const explained = [...explanations(named, { model, tags, outcomes: [] }, seen)].flatMap((state) => {
      const after = afterwards.reduce<Tags | undefined>(
        (tags, [operation, answered]) => tags && agree(apply(state.model, operation, "", seen)[1], answered, tags),
        state.tags,
      );
      return after === undefined ? [] : [{ ...state, tags: after }];
    });
    const [chosen] = explained;
    if (chosen === undefined)
      throw new Error(
        `No order explains ${JSON.stringify({ n, asked, afterwards, before: [...model.tasks] }, null, 1)}`,
      );
    ({ model, tags } = chosen);
    // Who was answered with a version has seen it.
    for (const [i, { tag }] of answers.entries()) {
      const { client } = round[i] as Operation;
      for (const [version, known] of tags.known)
        if (known === tag) {
          const [task = "", number] = version.split(" ");
          if (ids.get(task) === answers[i]?.id) seen[client].set(task, Number(number));
        }
    }
  }
}

// Two services on one database where there is a server.
const services = hasServer ? await Promise.all([spawnService(), spawnService()]) : [service, service];
afterAll(() => hasServer && Promise.all(services.map(({ stop }) => stop())));

test.each([
  ["one after the other are answered as a model says", 1, 30, 40],
  ["at once are answered as if one after the other, in some order", 5, 8, 60],
])("requests of two clients %s", async (_, together, most, numRuns) => {
  const rounds = fc.array(fc.array(operation, { minLength: 1, maxLength: together }), {
    minLength: most / 2,
    maxLength: most,
  });
  await fc.assert(
    fc.asyncProperty(rounds, async (rounds) => {
      const name = `user-${crypto.randomUUID()}`;
      await play(rounds, (await Promise.all(services.map(({ newcomer }) => newcomer(name)))) as [User, User]);
    }),
    { numRuns, endOnFailure: true },
  );
});
