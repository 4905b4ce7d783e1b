import { Type } from "@sinclair/typebox";
import { Elysia } from "elysia";
import type { Database } from "./db/database.ts";
import { causeOf } from "./db/errors.ts";
import { ping, UNDEFINED_TABLE } from "./db/migrate.ts";
import { Problem, problem } from "./http/problem.ts";

export const Healthy = Type.Object({ status: Type.Literal("healthy") }, { $id: "Health", noValidate: true });
const HEALTHY = { status: "healthy" as const };

/** Starting until the schema is there; stopping from the signal on. */
export type Phase = "starting" | "serving" | "stopping";

const NOT_READY: Record<Phase, string | undefined> = {
  starting: "The service is starting",
  serving: undefined,
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
        const obstacle = (phase() === "stopping" ? undefined : await obstacleOf(db)) ?? NOT_READY[phase()];
        return obstacle === undefined ? HEALTHY : problem({ set }, 503, obstacle);
      },
      {
        response: { 200: Healthy, 503: Problem },
        detail: {
          operationId: "getReadiness",
          summary: "Can it take requests? (readiness probe)",
          description:
            "The database answers within a second, the table is there, and the process is not shutting down. A 503 says which of them it is.",
        },
      },
    );

/** What stands between the database and a request, in a sentence. */
const obstacleOf = (db: Database): Promise<string | undefined> =>
  Promise.race([
    ping(db).then(
      () => undefined,
      (error) => (causeOf(error).code === UNDEFINED_TABLE ? NO_TABLE : NO_ANSWER),
    ),
    Bun.sleep(READY_TIMEOUT_MS).then(() => NO_ANSWER),
  ]);

const NO_ANSWER = "The database does not answer";
const NO_TABLE = "The table is not there: `tasks-api migrate` makes it";
