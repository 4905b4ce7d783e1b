import { createApp } from "./app.ts";
import type { Config } from "./config.ts";
import { connect } from "./db/connect.ts";
import { causeOf } from "./db/errors.ts";
import { migrate } from "./db/migrate.ts";
import { welcome } from "./development.ts";
import type { Phase } from "./health.ts";
import { createLogger, type Logger, throttled } from "./log.ts";

/** How long requests in flight may take to finish once the process has been asked to stop, in milliseconds. */
const DRAIN_TIMEOUT_MS = 25_000;

/**
 * How long after SIGTERM connections are still taken, in milliseconds. Readiness says 503 from the signal on, but an
 * orchestrator goes on sending requests until word has got round, and has only just begun to spread it.
 */
const LINGER = 2000;

/** How long a connection may say nothing, in seconds: longer than the slowest answer. */
const IDLE_TIMEOUT = 30;

/** How long to wait before the database is tried again at the start, in milliseconds. */
const RETRY_AFTER = 1000;

/** Runs the service until it is asked to stop: database, app, listen, drain. Resolves when it has stopped. */
export async function serve(config: Config): Promise<void> {
  const stop = stopSignal();
  const log = createLogger(config.logLevel, process.stdout.isTTY);
  process.on("exit", log.flush);
  const db = await connect(config);

  let phase: Phase = "starting";
  const app = createApp({ config, db, log, phase: () => phase }).listen({
    hostname: config.host,
    port: config.port,
    // By default a second server would share the port in silence.
    reusePort: false,
    idleTimeout: IDLE_TIMEOUT,
    // Far above our own limit, which is answered with a problem.
    maxRequestBodySize: 16 * 1024 * 1024,
    development: false,
  });
  const port = app.server?.port ?? config.port;
  log.info({ host: config.host, port, database: db.label, environment: config.environment }, "listening");

  const signal = await Promise.race([stop, prepare().then(() => stop)]);
  phase = "stopping";
  log.info({ signal }, "stopping: requests in flight may finish");
  // Ctrl-C is a person's, who waits for nothing else.
  if (signal === "SIGTERM") await Bun.sleep(LINGER);
  await app.stop();
  await db.close();
  log.info({}, "stopped");

  /** Makes the schema what this program needs, as soon as there is a database. Fails if that can't be done. */
  async function prepare() {
    if (config.migrateOnStart) await untilThere(() => migrate(db), log);
    if (phase === "starting") phase = "serving";
    // Not among the log's lines, which are for machines where there is no terminal.
    if (config.environment === "development") process.stderr.write(await welcome(config, port, db.label));
  }
}

/** Does the work, again and again while the database is away. Any other failure is final. */
async function untilThere(work: () => Promise<void>, log: Logger): Promise<void> {
  const logOutage = throttled(log.error);
  for (;;) {
    try {
      return await work();
    } catch (error) {
      const { name, code, outage } = causeOf(error);
      if (!outage) throw error;
      logOutage("start", { error: name, code }, "waiting for the database");
      await Bun.sleep(RETRY_AFTER);
    }
  }
}

/** Resolves at the first SIGTERM or SIGINT. A second one, or a drain that takes too long, ends the process. */
const stopSignal = () =>
  new Promise<NodeJS.Signals>((resolve) => {
    let asked = false;
    const ask = (signal: NodeJS.Signals) => {
      if (asked) process.exit(1);
      asked = true;
      setTimeout(() => process.exit(1), DRAIN_TIMEOUT_MS).unref();
      resolve(signal);
    };
    process.on("SIGTERM", ask).on("SIGINT", ask);
  });
