import type { Context } from "elysia";
import { ifMatch, setTag } from "../http/conditional.ts";
import { invalid, problem } from "../http/problem.ts";
import type { Task } from "./model.ts";

/** A task's version is `updated_at`, which moves with every change. A change may be asked for of some versions only. */
export type Versions = string[] | undefined;

/** Why something was not done: there is no such task, or it is there in another version. */
export type Undone = "missing" | "changed";

export const etagOf = ({ updated_at }: Task) => `"${Date.parse(updated_at).toString(36)}"`;

/** Gives the answer the task's tag. */
export function tagged({ set }: Pick<Context, "set">, task: Task): Task {
  setTag({ set }, etagOf(task));
  return task;
}

/** The versions that `If-Match` names. One that this service can't have given matches nothing. */
export function versionsOf({ headers }: Request): Versions | "malformed" {
  const tags = ifMatch(headers.get("if-match"));
  if (!Array.isArray(tags)) return tags;
  const times = tags.map((tag) => [tag, Number.parseInt(tag, 36)] as const);
  return times
    .filter(([tag, time]) => time.toString(36) === tag && time >= MIN_TIME && time <= MAX_TIME)
    .map(([, time]) => new Date(time).toISOString());
}

/** The first moment of the year 1, and the last of 9999: what Postgres and JavaScript write alike. */
const MIN_TIME = -62_135_596_800_000;
const MAX_TIME = 253_402_300_799_999;

export const notDone = (answer: Pick<Context, "set">, undone: Undone) =>
  undone === "missing"
    ? problem(answer, 404, NO_SUCH_TASK)
    : problem(answer, 412, "The task has been changed meanwhile: get it again, then decide");

export const MALFORMED_IF_MATCH = invalid(
  ["header", "if-match"],
  "Give * or entity tags in double quotes, as the ETag header has them",
);

export const NO_SUCH_TASK = "Task not found";
