import { createApp } from "../src/app.ts";
import { loadConfig } from "../src/config.ts";
import { connect, type Database, migrate } from "../src/db/index.ts";
import { createLogger } from "../src/log.ts";
import type { Task } from "../src/tasks/model.ts";
import { signToken } from "../src/tokens.ts";

/** The settings that every test starts from. Nothing is taken from the environment of the test run. */
export const SETTINGS = {
  ENVIRONMENT: "test",
  DATABASE_URL: "memory://",
  BETTER_AUTH_SECRET: "vT4nQ8sLw2ZrXk7mB9dYc3hJf6gPa1eU",
  LOG_LEVEL: "CRITICAL",
};

/** The real app, listening on a port of its own, in this process: on a database of its own, unless given one. */
export async function start(settings: Record<string, string> = {}, shared?: Database) {
  const config = loadConfig({ ...SETTINGS, ...settings });
  const db = shared ?? (await connect(config.database));
  if (shared === undefined) await migrate(db);
  let stopping = false;
  const log = createLogger(config.logLevel, false);
  const app = createApp({ config, db, log, stopping: () => stopping }).listen({
    hostname: "127.0.0.1",
    port: 0,
  });
  const url = `http://localhost:${app.server?.port}`;
  return {
    url,
    config,
    db,
    drain: () => {
      stopping = true;
    },
    async stop() {
      await app.stop(true);
      if (shared === undefined) await db.close();
    },
    /** A user nobody has seen before. */
    newcomer: async (id = `user-${crypto.randomUUID()}`) =>
      new User(url, id, await signToken(id, config.jwt)),
  };
}

/** One for all tests that need nothing special of it: the embedded database takes two seconds to start. */
export const service = await start();

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
