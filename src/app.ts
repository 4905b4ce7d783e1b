import { Elysia } from "elysia";
import { auth } from "./auth/index.ts";
import type { Config } from "./config.ts";
import type { Database } from "./db/database.ts";
import { docs } from "./docs/index.ts";
import { health, type Phase } from "./health.ts";
import { jsonSender } from "./http/accept.ts";
import { cors } from "./http/cors.ts";
import { limits } from "./http/limits.ts";
import { failures } from "./http/problem.ts";
import { requests } from "./http/requests.ts";
import type { Logger } from "./log.ts";
import type { Metrics } from "./metrics.ts";
import { taskRoutes } from "./tasks/routes.ts";
import { taskStore } from "./tasks/store.ts";

interface Dependencies {
  config: Config;
  db: Pick<Database, "query" | "lastAnswer" | "connections">;
  log: Logger;
  /** What the process is doing, for probes. */
  phase: () => Phase;
  /** With `METRICS=True` only. */
  metrics?: Metrics | undefined;
}

/** The whole service, in the order in which a request meets it. Listens to nothing by itself. */
export function createApp({ config, db, log, phase, metrics }: Dependencies) {
  const probes = health(db, phase);
  const limited = limits(config.rateLimit, () => phase() !== "starting", metrics);
  const tasks = taskRoutes(
    auth(config.jwt, log),
    limited,
    taskStore(metrics?.timed(db.query) ?? db.query),
    jsonSender(config.compression),
  );

  const app = new Elysia({
    // Bodies and queries keep what they came with: a member that is not known is ignored, not an error.
    normalize: false,
    // Elysia looks for the path from the 12th character on, which is inside the path if the host is short.
    handler: { standardHostname: false },
  })
    .use(requests(log, metrics))
    .use(cors(config.corsOrigins, log))
    .use(failures(log, (path) => methodsOf(path), metrics))
    .use(probes)
    .use(tasks)
    .use(docs(() => new Elysia().use(probes).use(tasks), config.compression));
  if (metrics) app.use(metrics.routes);
  metrics?.gauge(
    "http_requests_under_way",
    "Requests that wait for their answer",
    () => app.server?.pendingRequests ?? 0,
  );

  metrics?.gauge("db_connections_busy", "Connections that wait for an answer", () => db.connections().busy);
  metrics?.gauge("db_connections_most", "Connections that there may be", () => db.connections().most);

  /** What a path answers to, for 405 (Elysia says 404). */
  function methodsOf(path: string): string[] {
    const { http, static: fixed } = app.router;
    // A slash at the end makes no difference, to Elysia either.
    const known = path.replace(/([^/])\/$/, "$1");
    const methods = METHODS.filter((method) => fixed[known]?.[method] !== undefined || http.find(method, known));
    return methods.flatMap((method) => (method === "GET" ? ["GET", "HEAD"] : method));
  }

  return app;
}

/** For Eden: `treaty<App>(address)` knows every route, what it takes and what it answers. */
export type App = ReturnType<typeof createApp>;

const METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"];
