import { createApp } from "./app.ts";
import type { Config } from "./config.ts";
import { connect, migrate } from "./db/index.ts";
import { welcome } from "./development.ts";
import { createLogger } from "./log.ts";

/** How long requests in flight may take to finish once the process has been asked to stop, in milliseconds. */
const DRAIN_WITHIN = 25_000;

/**
 * How long after SIGTERM connections are still taken, in milliseconds. Readiness says 503 from the signal on, but an
 * orchestrator goes on sending requests until word has got round, and has only just begun to spread it.
 */
const LINGER = 2000;

/** How long a connection may say nothing, in seconds: longer than the slowest answer. */
const IDLE_TIMEOUT = 30;

/** Runs the service until it is asked to stop: database, app, listen, drain. Resolves when it has stopped. */
export async function serve(config: Config): Promise<void> {
  const stop = stopSignal();
  const log = createLogger(config.logLevel, process.stdout.isTTY);
  const db = await connect(config.database);
  await migrate(db);

  let stopping = false;
  const app = createApp({ config, db, log, stopping: () => stopping }).listen({
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
  // Not among the log's lines, which are for machines where there is no terminal.
  if (config.environment === "development") process.stderr.write(await welcome(config, port, db.label));

  const signal = await stop;
  stopping = true;
  log.info({ signal }, "stopping: requests in flight may finish");
  // Ctrl-C is a person's, who waits for nothing else.
  if (signal === "SIGTERM") await Bun.sleep(LINGER);
  await app.stop();
  await db.close();
  log.info("stopped");
  log.flush();
}

/** Resolves at the first SIGTERM or SIGINT. A second one, or a drain that takes too long, ends the process. */
const stopSignal = () =>
  new Promise<NodeJS.Signals>((resolve) => {
    let asked = false;
    const ask = (signal: NodeJS.Signals) => {
      if (asked) process.exit(1);
      asked = true;
      setTimeout(() => process.exit(1), DRAIN_WITHIN).unref();
      resolve(signal);
    };
    process.on("SIGTERM", ask).on("SIGINT", ask);
  });
