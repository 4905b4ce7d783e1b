import { Type } from "@sinclair/typebox";
import { Elysia } from "elysia";
import type { Database } from "./db/database.ts";
import { ping } from "./db/migrate.ts";
import { Problem, problem } from "./http/problem.ts";

export const Healthy = Type.Object({ status: Type.Literal("healthy") }, { $id: "Health", noValidate: true });
const HEALTHY = { status: "healthy" as const };

/** Starting until the schema is there; stopping from the signal on. */
export type Phase = "starting" | "serving" | "stopping";

const NOT_READY: Record<Phase, string> = {
  starting: "The service is starting: it waits for the database",
  serving: "The database does not answer",
  stopping: "The service is shutting down",
};

/** How long the database may take to answer a probe, in milliseconds. */
const READY_TIMEOUT_MS = 1000;

/** For probes: is the process up, and may it be sent requests? */
export const health = (db: Database, phase: () => Phase) =>
  new Elysia({ name: "health", detail: { tags: ["Health"] } })
    .get("/health", () => HEALTHY, {
      response: { 200: Healthy },
      detail: {
        operationId: "getHealth",
        summary: "Is it up?",
        description: "The process runs. Asks nothing of the database.",
      },
    })
    .get("/health/live", () => HEALTHY, {
      response: { 200: Healthy },
      detail: {
        operationId: "getLiveness",
        summary: "Is it up? (liveness probe)",
        description: "The same as `/health`, under the usual name.",
      },
    })
    .get(
      "/health/ready",
      async ({ set }) => {
        if (phase() === "serving" && (await answers(db))) return HEALTHY;
        return problem({ set }, 503, NOT_READY[phase()]);
      },
      {
        response: { 200: Healthy, 503: Problem },
        detail: {
          operationId: "getReadiness",
          summary: "Can it take requests? (readiness probe)",
          description: "The database answers within a second, and the process is not shutting down.",
        },
      },
    );

const answers = (db: Database) =>
  Promise.race([
    ping(db).then(
      () => true,
      () => false,
    ),
    Bun.sleep(READY_TIMEOUT_MS).then(() => false),
  ]);
