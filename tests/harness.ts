import { afterAll } from "bun:test";
import { cp, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createApp } from "../src/app.ts";
import { type Config, loadConfig } from "../src/config.ts";
import { connect } from "../src/db/connect.ts";
import { migrate } from "../src/db/migrate.ts";
import { signToken } from "../src/development.ts";
import { createLogger } from "../src/log.ts";
import { createMetrics } from "../src/metrics.ts";
import type { Task } from "../src/tasks/model.ts";
import { databaseSettings, dropDatabases, hasServer } from "./database.ts";

/** The settings that every test starts from. Nothing is taken from the environment of the test run. */
export const SETTINGS = {
  ENVIRONMENT: "test",
  ...(await databaseSettings()),
  BETTER_AUTH_SECRET: "vT4nQ8sLw2ZrXk7mB9dYc3hJf6gPa1eU",
  // Tests do at once what a user does in an hour.
  RATE_LIMIT: "0",
  // `TEST_LOG=INFO bun test …` shows the service's log among the tests.
  LOG_LEVEL: process.env.TEST_LOG ?? "CRITICAL",
};

/** What starts the service in a process of its own: from source, or what `TEST_COMMAND` names (the built program). */
export const COMMAND = process.env.TEST_COMMAND?.split(" ") ?? ["bun", "src/index.ts"];

const endings: (() => unknown)[] = [];
// bunfig.toml loads this file before the tests, so this is after the last of all files. In a module that only some of
// them import it would be after the first of these alone.
afterAll(async () => {
  for (const end of endings.reverse()) await end();
  await dropDatabases();
}, 60_000);

/** Has this done when all tests are over, the last first. */
export const atEnd = (end: () => unknown) => void endings.push(end);

let folder: Promise<string> | undefined;
let copies = 0;

/** A new folder, which goes with the tests. */
export async function emptyFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "tasks-test-"));
  atEnd(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

/** A new embedded database: a copy of one that is made once, since that takes 3 s of CPU. */
async function embeddedDatabase(): Promise<string> {
  folder ??= emptyFolder().then(async (made) => {
    const original = await connect(loadConfig({ DATABASE_URL: `pglite://${made}/original` }));
    await migrate(original);
    await original.close();
    return made;
  });
  const copy = `${await folder}/${copies++}`;
  await cp(`${await folder}/original`, copy, { recursive: true });
  return `pglite://${copy}`;
}

/** The service in a process of its own, once it can take requests, or once it listens. */
export async function spawnService(settings: Record<string, string> = {}, until: "ready" | "listening" = "ready") {
  const child = Bun.spawn([...COMMAND, "serve"], {
    env: {
      PATH: process.env.PATH,
      ...SETTINGS,
      ...(!hasServer && settings.DATABASE_URL === undefined && { DATABASE_URL: await embeddedDatabase() }),
      LOG_LEVEL: "INFO",
      HOST: "127.0.0.1",
      PORT: "0",
      ...settings,
    },
    stdout: "pipe",
    stderr: "inherit",
  });
  atEnd(() => {
    child.kill("SIGKILL");
    return child.exited;
  });
  const lines: string[] = [];
  const port = Promise.withResolvers<number>();
  (async () => {
    let rest = "";
    for await (const chunk of child.stdout.pipeThrough(new TextDecoderStream())) {
      const parts = (rest + chunk).split("\n");
      rest = parts.pop() ?? "";
      lines.push(...parts);
      if (process.env.TEST_LOG !== undefined) for (const line of parts) process.stderr.write(`${line}\n`);
      const listening = parts.find((line) => line.includes('"message":"listening"'));
      if (listening !== undefined) port.resolve(JSON.parse(listening).port);
    }
    port.reject(new Error(`the service ended before it listened:\n${lines.join("\n")}`));
  })();
  const config = loadConfig({ ...SETTINGS, ...settings });
  const url = `http://localhost:${await port.promise}`;
  while (until === "ready" && (await fetch(`${url}/health/ready`)).status !== 200) await Bun.sleep(50);
  return {
    url,
    config,
    child,
    /** What it has logged so far. */
    lines,
    /** Asks it to stop and waits until it has. Resolves with its exit code. */
    async stop(signal: NodeJS.Signals = "SIGINT") {
      child.kill(signal);
      return child.exited;
    },
    newcomer: newcomerOf(url, config),
  };
}

/** The embedded database takes seconds to start: the services of this process share one. */
const db = await connect(loadConfig(SETTINGS));
await migrate(db);

/** Whether the tests can look into the service's database: an embedded one is in the process of its service. */
export const canQuery = hasServer || process.env.TEST_COMMAND === undefined;

/** Sends the service's database a statement of the test's own. */
export const queryDatabase = <Row>(text: string, values: unknown[] = []) =>
  db.query<Row>({ name: `test_${Bun.hash(text)}`, text }, values);

/** A database that nothing reaches: each statement fails in this way. */
export const outOfReach = (fail: () => Promise<never> = () => Promise.reject(new Error("unreachable"))) => ({
  query: fail,
  lastAnswer: () => 0,
  connections: () => ({ busy: 0, most: 0 }),
});

/** The real app, listening on a port of its own, in this process; with what is given in the place of the usual. */
export function listening(given: Partial<Parameters<typeof createApp>[0]> = {}) {
  const config = given.config ?? loadConfig(SETTINGS);
  const log = createLogger(config.logLevel, false);
  const metrics = config.metrics ? createMetrics() : undefined;
  const app = createApp({ config, db, log, phase: () => "serving", metrics, ...given }).listen({
    hostname: "127.0.0.1",
    port: 0,
  });
  const url = `http://localhost:${app.server?.port}`;
  return { url, config, store: app.store, stop: () => app.stop(true), newcomer: newcomerOf(url, config) };
}

const startInProcess = async (settings: Record<string, string> = {}) => ({
  ...listening({ config: loadConfig({ ...SETTINGS, ...settings }) }),
  db,
});

/** Signs in a user nobody has seen before. */
function newcomerOf(url: string, config: Config) {
  return async (id = `user-${crypto.randomUUID()}`) => new User(url, id, await signToken(id, config.jwt));
}

/** The service, for tests that only talk HTTP to it: in this process, or in one of its own with `TEST_COMMAND`. */
export const start = (settings?: Record<string, string>) =>
  process.env.TEST_COMMAND === undefined ? startInProcess(settings) : spawnService(settings);

/** One for all tests that need nothing special of it. */
export const service = await start();

/** Waits until it is so. */
export async function until(isSo: () => unknown, seconds = 10) {
  const end = performance.now() + seconds * 1000;
  while (!(await isSo())) {
    if (performance.now() > end) throw new Error(`not within ${seconds} s: ${isSo}`);
    await Bun.sleep(20);
  }
}

/** A body whose rest comes 300 ms after its beginning. */
export const lateBody = (beginning: string, rest: string) =>
  new ReadableStream({
    async start(body) {
      body.enqueue(new TextEncoder().encode(beginning));
      await Bun.sleep(300);
      body.enqueue(new TextEncoder().encode(rest));
      body.close();
    },
  });

/** A signed-in user, as a front end acts for one. */
export class User {
  constructor(
    readonly url: string,
    readonly id: string,
    readonly token: string,
  ) {}

  /** The address of this user's tasks, or of what is below it. */
  path(rest = "") {
    return `${this.url}/api/${encodeURIComponent(this.id)}/tasks${rest}`;
  }

  send(method: string, rest = "", body?: unknown, headers: Record<string, string> = {}) {
    return fetch(this.path(rest), {
      method,
      headers: {
        authorization: `Bearer ${this.token}`,
        ...(body !== undefined && { "content-type": "application/json" }),
        ...headers,
      },
      ...(body !== undefined && { body: typeof body === "string" ? body : JSON.stringify(body) }),
    });
  }

  get = (rest = "", headers?: Record<string, string>) => this.send("GET", rest, undefined, headers);
  post = (body: unknown, headers?: Record<string, string>) => this.send("POST", "", body, headers);
  put = (id: number | string, body: unknown, headers?: Record<string, string>) =>
    this.send("PUT", `/${id}`, body, headers);
  delete = (id: number | string) => this.send("DELETE", `/${id}`);
  complete = (id: number | string, body?: unknown) => this.send("PATCH", `/${id}/complete`, body);

  /** Creates a task and returns it. */
  async task(body: object = { title: "Buy milk" }): Promise<Task> {
    const answer = await this.post(body);
    if (answer.status !== 201) throw new Error(`POST answered ${answer.status}: ${await answer.text()}`);
    return (await answer.json()) as Task;
  }
}
