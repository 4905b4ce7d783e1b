import type { Server } from "bun";
import { createApp } from "./app.ts";
import type { Config } from "./config.ts";
import { findOldTable } from "./db/adopt.ts";
import { connect } from "./db/connect.ts";
import { causeOf } from "./db/errors.ts";
import { migrate, requireSchema } from "./db/migrate.ts";
import { welcome } from "./development.ts";
import type { Phase } from "./health.ts";
import { createLogger, type Logger, throttled } from "./log.ts";

/**
 * How long after the signal connections are still taken. Readiness says 503 from the signal on, but
 * an orchestrator goes on sending requests until word has got round, and has only just begun to spread it.
 */
const LINGER_MS = 2_000;

/** By when, from the signal on, a request must have come in whole. */
const WHOLE_BY_MS = 3_000;

/** By when it is answered: its own deadline is 10 s. What is left then is a client that doesn't read its answer. */
const ANSWERED_BY_MS = 13_000;

/** How long the database's connections may take to close. */
const CLOSE_TIMEOUT_MS = 3_000;

/**
 * How long a connection may say nothing: the longest that Bun knows. A balancer keeps idle connections,
 * and sends a request on one that is closed here at that moment; so it has to be the one that closes them first.
 */
const IDLE_TIMEOUT_S = 255;

/** How long to wait before the database is tried again at the start. */
const RETRY_AFTER_MS = 1_000;

/** Runs the service until it is asked to stop: database, app, listen, drain. Resolves when it has stopped. */
export async function serve(config: Config): Promise<void> {
  const stop = stopSignal();
  const log = createLogger(config.logLevel, process.stdout.isTTY);
  process.on("exit", log.flush);
  const metrics = config.metrics ? (await import("./metrics.ts")).createMetrics() : undefined;
  const db = await connect(config);

  let phase: Phase = "starting";
  const app = createApp({ config, db, log, phase: () => phase, metrics }).listen({
    hostname: config.host,
    port: config.port,
    // By default a second server would share the port, and nothing would say so.
    reusePort: false,
    idleTimeout: IDLE_TIMEOUT_S,
    // Far above our own limit, which is answered with a problem.
    maxRequestBodySize: 16 * 1024 * 1024,
    development: false,
  });
  const port = app.server?.port ?? config.port;
  log.info({ host: config.host, port, database: db.label, environment: config.environment }, "listening");

  const signal = await Promise.race([stop, prepare().then(() => stop)]);
  phase = "stopping";
  app.store.stopping = true;
  log.info({ signal }, "stopping: requests in flight may finish");
  if (app.server) await drain(app.server, () => app.store.arriving, signal);
  await Promise.race([db.close(), Bun.sleep(CLOSE_TIMEOUT_MS)]);
  // Elysia calls `onAfterResponse`, which logs a request, by `setImmediate`.
  await new Promise(setImmediate);
  log.info({}, "stopped");
  await Promise.race([log.flush(), Bun.sleep(CLOSE_TIMEOUT_MS)]);

  /** Makes the schema what this program needs, as soon as there is a database. Fails if that can't be done. */
  async function prepare() {
    await untilThere(() => (config.migrateOnStart ? migrate(db) : requireSchema(db)), log);
    if (phase === "starting") phase = "serving";
    const oldTable = await findOldTable(db);
    if (oldTable) log.warning({}, oldTable);
    // Not among the log's lines, which are for machines where there is no terminal.
    if (config.environment === "development") process.stderr.write(await welcome(config, port, db.label));
  }
}

/** Does the work, again and again while the database or the table is away. Any other failure is final. */
async function untilThere(work: () => Promise<void>, log: Logger): Promise<void> {
  const logWait = throttled(log.error);
  for (;;) {
    try {
      return await work();
    } catch (error) {
      const { name, code, outage, sentence } = causeOf(error);
      if (!outage) throw error;
      const reason = `waiting for the database${sentence === undefined ? "" : `: ${sentence}`}`;
      logWait(reason, { error: name, code }, reason);
      await Bun.sleep(RETRY_AFTER_MS);
    }
  }
}

/** Lets what has come in whole be answered, and cuts what hasn't: half a request, a connection that waits. */
async function drain(server: Server<unknown>, arriving: () => number, signal: NodeJS.Signals) {
  const began = performance.now();
  const passed = () => performance.now() - began;
  // A person at Ctrl-C has no load balancer to wait for.
  if (signal !== "SIGINT") await Bun.sleep(LINGER_MS);
  await Promise.race([server.stop(), Bun.sleep(WHOLE_BY_MS - passed())]);
  while (server.pendingRequests > arriving() && passed() < ANSWERED_BY_MS) await Bun.sleep(20);
  await server.stop(true);
}

/** Resolves at the first signal that asks it to stop. The second one ends the process. */
const stopSignal = () =>
  new Promise<NodeJS.Signals>((resolve) => {
    let asked = false;
    const ask = (signal: NodeJS.Signals) => {
      if (asked) process.exit(1);
      asked = true;
      resolve(signal);
    };
    for (const signal of ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"]) process.on(signal, ask);
  });
