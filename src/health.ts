import { Type } from "@sinclair/typebox";
import { Elysia } from "elysia";
import type { Database } from "./db/database.ts";
import { causeOf } from "./db/errors.ts";
import { Problem, problem } from "./http/problem.ts";

export const Healthy = Type.Object({ status: Type.Literal("healthy") }, { $id: "Health", noValidate: true });
const HEALTHY = { status: "healthy" as const };

/** Starting until the schema is there; stopping from the signal on. */
export type Phase = "starting" | "serving" | "stopping";

const NOT_READY: Partial<Record<Phase, string>> = {
  starting: "The service is starting",
  stopping: "The service is shutting down",
};

/** How long the database may take to answer a probe. */
const READY_TIMEOUT_MS = 1000;

type Probed = Pick<Database, "query" | "lastAnswer">;

/** For probes: is the process up, and may it be sent requests? */
export const health = (db: Probed, phase: () => Phase) =>
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
            "The database answers within a second, the table is there, and the process is neither starting nor shutting down. A 503 says which of them it is.",
        },
      },
    );

/** Why the database can't serve, in a sentence. Undefined if it can. */
function obstacleOf(db: Probed): Promise<string | undefined> {
  const began = performance.now();
  const pinged = db.query({ name: "ping", text: "select from tasks limit 1" }, []).then(
    () => undefined,
    (error) => {
      const { code, sentence } = causeOf(error);
      return code === "42P01" ? NO_TABLE : sentence === undefined ? NO_ANSWER : REFUSED;
    },
  );
  // Where all connections are busy the ping waits, but then others have been answered since.
  const late = () => (db.lastAnswer() > began ? undefined : NO_ANSWER);
  return Promise.race([pinged, Bun.sleep(READY_TIMEOUT_MS).then(late)]);
}

const NO_ANSWER = "The database does not answer";
const REFUSED = "The database does not let this service in, or not to the tasks";
const NO_TABLE = "The table is not there: `tasks-api migrate` makes it";
