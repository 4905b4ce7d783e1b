import { Elysia } from "elysia";
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";
import type { Query } from "./db/database.ts";

export type Metrics = ReturnType<typeof createMetrics>;

/**
 * Counts what the service does, for `/metrics` in Prometheus's text format. Made with `METRICS=True` only: callers
 * write `metrics?.…`, and the library is not loaded otherwise. A label is one of a few words of ours, such as a
 * route's template, since each combination is kept for ever.
 */
export function createMetrics() {
  const register = new Registry();
  const registers = [register];
  // CPU, memory, and the event loop's lag.
  collectDefaultMetrics({ register });

  const requests = new Histogram({
    name: "http_request_duration_seconds",
    help: "How long requests took, by route and status (499: the client hung up before the answer)",
    labelNames: ["method", "route", "status"],
    buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
    registers,
  });
  const refusals = new Counter({
    name: "http_requests_refused_total",
    help: "Requests of signed-in users that were refused at once, by reason",
    labelNames: ["reason"],
    registers,
  });
  const statements = new Histogram({
    name: "db_statement_duration_seconds",
    help: "How long statements took, from being asked for to their rows, by kind",
    labelNames: ["kind"],
    buckets: [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
    registers,
  });
  const batches = new Histogram({
    name: "db_statement_batch_size",
    help: "How many requests a statement was for, by kind",
    labelNames: ["kind"],
    buckets: [1, 2, 4, 8, 16, 32, 64, 128, 256],
    registers,
  });

  return {
    request(method: string, route: string, status: number | string, milliseconds: number) {
      requests.observe({ method, route, status }, milliseconds / 1000);
    },

    refused(reason: string) {
      refusals.inc({ reason });
    },

    /** Sends what `query` sends, and counts it by kind: the first word of the statement's name. */
    timed:
      (query: Query): Query =>
      async (statement, values, caller) => {
        const [kind = ""] = statement.name.split("_");
        const began = performance.now();
        try {
          return await query(statement, values, caller);
        } finally {
          statements.observe({ kind }, (performance.now() - began) / 1000);
          batches.observe({ kind }, caller?.requests ?? 1);
        }
      },

    /** A value that is read at each scrape. */
    gauge(name: string, help: string, read: () => number) {
      const gauge: Gauge = new Gauge({ name, help, registers, collect: () => gauge.set(read()) });
    },

    routes: new Elysia({ name: "metrics", detail: { hide: true } }).get("/metrics", ({ set }) => {
      set.headers["content-type"] = register.contentType;
      return register.metrics();
    }),
  };
}
