import { parseArgs } from "node:util";
import { version } from "../package.json";
import { loadConfig, localAddress } from "./config.ts";
import type { Database } from "./db/database.ts";

interface Command {
  /** Its argument, or its options. */
  takes?: string;
  does: string;
  /** Resolves with what is to be printed. */
  run(argument: string | undefined, options: { from: string | undefined; dryRun: boolean }): Promise<string>;
}

/** Each loads what it needs when it runs: a health check every few seconds should cost little. */
const commands: Record<string, Command> = {
  serve: {
    does: "Run the service until SIGTERM or Ctrl-C. The default.",
    async run() {
      const { serve } = await import("./serve.ts");
      await serve(await settings());
      return "";
    },
  },

  migrate: {
    does: "Bring the database's schema up to date. `serve` does so too, when it starts.",
    run: () =>
      withDatabase(async (db) => {
        await (await import("./db/migrate.ts")).migrate(db);
        return `The schema is up to date: ${db.label}`;
      }),
  },

  adopt: {
    takes: "[--from NAME] [--dry-run]",
    does: "Take over the tasks of a FastAPI app in the same database. Its table is kept.",
    run: (_, { from, dryRun }) => withDatabase(async (db) => (await import("./db/adopt.ts")).adopt(db, from, dryRun)),
  },

  token: {
    takes: "USER_ID",
    does: "Print a token for that user. For development: in production, Better Auth signs.",
    async run(userId) {
      if (userId === undefined) throw new UsageError("token needs a USER_ID");
      const config = await settings();
      if (config.production) throw new Error("token is for development: in production, Better Auth signs");
      if (!config.jwt.secret) throw new Error("token needs BETTER_AUTH_SECRET: a JWKS holds no private key");
      const { signToken } = await import("./development.ts");
      return signToken(userId, config.jwt);
    },
  },

  health: {
    takes: "[URL]",
    // Liveness by default: what is unhealthy gets restarted, and that mends no database.
    does: "Exit 0 if URL answers 2xx within 2 s, else 1. Without one: /health/live of the service at PORT.",
    async run(url = `${localAddress(loadConfig(process.env))}/health/live`) {
      // Bun's fetch has no other way past HTTP_PROXY: the service is on this machine.
      process.env.NO_PROXY = "*";
      const { ok, status } = await fetch(url, { signal: AbortSignal.timeout(2000) });
      if (!ok) throw new Error(`unhealthy: ${status}`);
      return "healthy";
    },
  },

  openapi: {
    does: "Print the OpenAPI document. Needs no settings and no database.",
    async run() {
      const [{ createApp }, { createLogger }] = await Promise.all([import("./app.ts"), import("./log.ts")]);
      const app = createApp({
        config: loadConfig({ BETTER_AUTH_SECRET: crypto.randomUUID() }),
        db: { query: () => Promise.reject(), lastAnswer: () => 0, connections: () => ({ busy: 0, most: 0 }) },
        log: createLogger("CRITICAL", false),
        phase: () => "serving",
      });
      const answer = await app.handle(new Request("http://localhost/openapi.json"));
      return JSON.stringify(await answer.json(), null, 2);
    },
  },

  licenses: {
    does: "Print the licences of all that is in this program.",
    run: async () => (await import("./licenses.ts")).LICENSES,
  },
};

const usage = (names: string[]) =>
  names.map((name) => `  ${`${name} ${commands[name]?.takes ?? ""}`.padEnd(14)} ${commands[name]?.does}`);

const HELP = `Usage: tasks-api [COMMAND]

${usage(Object.keys(commands)).join("\n")}

  --version      Print the version.
  --help         Print this; after a command, what it does.

Settings come from the environment: see README.md.`;

/** The command line is wrong. */
class UsageError extends Error {}

async function settings() {
  const { withDevelopmentSecret } = await import("./development.ts");
  return withDevelopmentSecret(loadConfig(process.env));
}

async function withDatabase(work: (db: Database) => Promise<string>): Promise<string> {
  const { connect } = await import("./db/connect.ts");
  const db = await connect(await settings());
  return work(db).finally(() => db.close());
}

async function main(args: string[]): Promise<string> {
  const options = { help: { type: "boolean", short: "h" }, from: { type: "string" } } as const;
  const { values, positionals } = parseArgs({ args, options, strict: false, allowPositionals: true });
  if (values.version) return version;

  const [name = "serve", argument, ...more] = positionals;
  const command = Object.hasOwn(commands, name) ? commands[name] : undefined;
  if (command === undefined) throw new UsageError(`there is no command "${name}"\n\n${HELP}`);
  if (values.help) return positionals.length === 0 ? HELP : `Usage: tasks-api${usage([name])[0]?.slice(1)}`;
  const own = command.takes?.split(/[\s[\]]+/) ?? [];
  const unknown = Object.keys(values).find((option) => !own.includes(`--${option}`));
  if (unknown !== undefined) throw new UsageError(`${name} has no option --${unknown}\n\n${HELP}`);
  const { from } = values;
  if (from === "" || typeof from === "boolean") throw new UsageError("--from needs a NAME");
  if (more.length > 0 || (argument !== undefined && !/^\[?[A-Z]/.test(command.takes ?? "")))
    throw new UsageError(`${name} takes ${command.takes ?? "no argument"}`);
  return command.run(argument, { from, dryRun: values["dry-run"] !== undefined });
}

try {
  const output = await main(process.argv.slice(2));
  if (output !== "") {
    // `Bun.write` sends its first 64 KiB twice to a pipe that a logger's writer has made non-blocking.
    const out = Bun.stdout.writer();
    out.write(`${output}\n`);
    await out.end();
  }
  process.exit(0);
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : error}\n`);
  process.exit(error instanceof UsageError ? 2 : 1);
}
