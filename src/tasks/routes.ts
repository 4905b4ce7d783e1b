import { type TObject, Type } from "@sinclair/typebox";
import { type Context, Elysia } from "elysia";
import type { auth, UserId } from "../auth/index.ts";
import type { SendJson } from "../http/accept.ts";
import { jsonBody } from "../http/body.ts";
import { ifMatch, isKnown } from "../http/conditional.ts";
import type { limits } from "../http/limits.ts";
import { Problem, problem, validationProblem } from "../http/problem.ts";
import { violations } from "../http/validation.ts";
import { parseCursor } from "./cursor.ts";
import {
  Cleared,
  Clearing,
  Completion,
  Listing,
  listQuery,
  NewTask,
  Owned,
  OwnedTask,
  Task,
  TaskChanges,
  TaskList,
} from "./model.ts";
import type { Tasks, Undone, Versions } from "./store.ts";

/** One user's tasks. `tasksOf` makes the only way to a row, for the owner that `auth` has admitted. */
export const taskRoutes = (
  signedIn: ReturnType<typeof auth>,
  limited: ReturnType<typeof limits>,
  tasksOf: (owner: UserId, signal: AbortSignal) => Tasks,
  sendJson: SendJson,
) =>
  new Elysia({ name: "tasks", prefix: "/api/:user_id/tasks", detail: { tags: ["Tasks"] } })
    .use(signedIn)
    .use(limited)
    .derive(({ userId, request }) => ({ tasks: tasksOf(userId, request.signal) }))

    .get(
      "",
      async ({ tasks, query, userId, request, set }) => {
        const asked = listQuery(query);
        if (Array.isArray(asked)) return validationProblem({ set }, asked);
        const { cursor, sort, order } = asked;
        const after = cursor === undefined ? undefined : parseCursor(cursor, sort, order);
        if (cursor !== undefined && after === undefined) return validationProblem({ set }, [FOREIGN_CURSOR]);
        const page = await tasks.list({ ...asked, after });
        set.headers["x-total-count"] = String(page.total);
        if (page.next !== undefined)
          set.headers.link = `<${tasksPath(userId)}?${nextQuery(request.url, page.next)}>; rel="next"`;
        const json = JSON.stringify(page.tasks);
        // What the body doesn't tell is in the headers: the total, and whether more follow.
        const etag = `W/"${page.total}${page.next === undefined ? "." : "-"}${Bun.hash(json).toString(36)}"`;
        return sendJson({ request, set }, page.tasks, json, isKnown({ set, request }, etag));
      },
      {
        ...validated({ params: Owned, query: Listing }),
        response: { 200: TaskList, 304: Type.Void(), 422: Problem, ...refusals },
        detail: {
          operationId: "listTasks",
          summary: "List tasks",
          description:
            "The user's tasks, newest first unless asked otherwise. While more follow, the `Link` header has the address of the next page.",
        },
      },
    )

    .delete("", async ({ tasks, query }) => ({ deleted: await tasks.clear(query.status) }), {
      ...validated({ params: Owned, query: Clearing }),
      response: { 200: Cleared, 422: Problem, ...refusals },
      detail: {
        operationId: "clearTasks",
        summary: "Delete the completed tasks, or all",
        description: "All or nothing: it says how many when they are gone for good.",
      },
    })

    .get(
      "/:id",
      async ({ tasks, params, request, set, status }) => {
        const task = await tasks.find(Number(params.id));
        if (task === undefined) return problem({ set }, 404, NO_SUCH_TASK);
        return isKnown({ set, request }, etagOf(task)) ? status(304, undefined) : task;
      },
      {
        ...validated({ params: OwnedTask }),
        response: { 200: Task, 304: Type.Void(), 404: Problem, 422: Problem, ...refusals },
        detail: {
          operationId: "getTask",
          summary: "Get a task",
          description: "Another user's task is answered like one that does not exist.",
        },
      },
    )

    .delete(
      "/:id",
      async ({ tasks, params, request, set, status }) => {
        const versions = versionsOf(request);
        if (versions === "malformed") return validationProblem({ set }, [MALFORMED_IF_MATCH]);
        const undone = await tasks.delete(Number(params.id), versions);
        return undone === undefined ? status(204, undefined) : notDone({ set }, undone);
      },
      {
        ...validated({ params: OwnedTask }),
        response: { 204: Type.Void(), 404: Problem, 412: Problem, 422: Problem, ...refusals },
        detail: { operationId: "deleteTask", summary: "Delete a task", description: "It is gone for good." },
      },
    )

    .use(jsonBody)

    .post(
      "",
      async ({ tasks, body, userId, request, set, status }) => {
        const key = request.headers.get("idempotency-key");
        if (key !== null && !/^[\x21-\x7e]{1,64}$/.test(key))
          return validationProblem({ set }, [MALFORMED_KEY]);
        const made =
          key === null
            ? { task: await tasks.create(body), replayed: false }
            : await tasks.createOnce(key, body);
        if (made === "changed") return validationProblem({ set }, [KEY_OF_ANOTHER]);
        if (made === "missing")
          return problem({ set }, 404, "The task that this Idempotency-Key created has been deleted");
        if (made.replayed) set.headers["idempotency-replayed"] = "true";
        set.headers.location = `${tasksPath(userId)}/${made.task.id}`;
        return status(201, tagged({ set }, made.task));
      },
      {
        ...validated({ params: Owned, body: NewTask }),
        response: { 201: Task, 404: Problem, 422: Problem, ...refusals, ...bodyRefusals },
        detail: {
          operationId: "createTask",
          summary: "Create a task",
          description:
            "The title is stored without the white space around it. The answer is the task. With an `Idempotency-Key` it can be sent again: nothing is created twice within 24 hours.",
        },
      },
    )

    .put(
      "/:id",
      async ({ tasks, params, body, request, set }) => {
        const { title, description, completed } = body;
        const versions = versionsOf(request);
        const violations = [
          ...(title === undefined && description === undefined && completed === undefined
            ? [NOTHING_TO_CHANGE]
            : []),
          ...(versions === "malformed" ? [MALFORMED_IF_MATCH] : []),
        ];
        if (violations.length > 0 || versions === "malformed") return validationProblem({ set }, violations);
        const task = await tasks.change(Number(params.id), body, versions);
        return typeof task === "string" ? notDone({ set }, task) : tagged({ set }, task);
      },
      {
        ...validated({ params: OwnedTask, body: TaskChanges }),
        response: { 200: Task, 404: Problem, 412: Problem, 422: Problem, ...refusals, ...bodyRefusals },
        detail: {
          operationId: "updateTask",
          summary: "Update a task",
          description: "Changes the fields given and keeps the others. A null clears the description.",
        },
      },
    )

    .patch(
      "/:id/complete",
      async ({ tasks, params, body, request, set }) => {
        const versions = versionsOf(request);
        if (versions === "malformed") return validationProblem({ set }, [MALFORMED_IF_MATCH]);
        const task = await tasks.complete(Number(params.id), body.completed, versions);
        return typeof task === "string" ? notDone({ set }, task) : tagged({ set }, task);
      },
      {
        ...validated({ params: OwnedTask, body: Completion }),
        response: { 200: Task, 404: Problem, 412: Problem, 422: Problem, ...refusals, ...bodyRefusals },
        detail: {
          operationId: "completeTask",
          summary: "Complete a task, or reopen it",
          description:
            'Without a body (or with `{}` or `null`) it toggles `completed`. With `{"completed": true}` it sets the state, so that a retry is safe.',
        },
      },
    );

/** `updated_at` moves with every change, so it is the version; of one task, since the tag is its own. */
const etagOf = ({ updated_at }: Task) => `"${Date.parse(updated_at).toString(36)}"`;

/** Gives the answer the task's tag. */
function tagged({ set }: Pick<Context, "set">, task: Task): Task {
  set.headers.etag = etagOf(task);
  set.headers["cache-control"] = "private, no-cache";
  return task;
}

/** The versions that `If-Match` names. One that this service can't have given matches nothing. */
function versionsOf({ headers }: Request): Versions | "malformed" {
  const tags = ifMatch(headers.get("if-match"));
  if (!Array.isArray(tags)) return tags;
  const times = tags.map((tag) => [tag, Number.parseInt(tag, 36)] as const);
  return times
    .filter(([tag, time]) => time.toString(36) === tag && time >= 0 && time <= MAX_TIME)
    .map(([, time]) => new Date(time).toISOString());
}

/** The last moment of the year 9999, which Postgres and JavaScript write alike. */
const MAX_TIME = 253_402_300_799_999;

const notDone = (answer: Pick<Context, "set">, undone: Undone) =>
  undone === "missing"
    ? problem(answer, 404, NO_SUCH_TASK)
    : problem(answer, 412, "The task has been changed meanwhile: get it again, then decide");

const MALFORMED_IF_MATCH = {
  loc: ["header", "if-match"],
  type: "value_error",
  msg: "Give * or entity tags in double quotes, as the ETag header has them",
};

const MALFORMED_KEY = {
  loc: ["header", "idempotency-key"],
  type: "value_error",
  msg: "Give 1 to 64 visible ASCII characters, without spaces",
};

const KEY_OF_ANOTHER = {
  loc: ["header", "idempotency-key"],
  type: "value_error",
  msg: "This key has created another task: give each new task a key of its own",
};

const NO_SUCH_TASK = "Task not found";

const NOTHING_TO_CHANGE = {
  loc: ["body"],
  type: "missing",
  msg: "Give at least one of title, description and completed",
};

const FOREIGN_CURSOR = {
  loc: ["query", "cursor"],
  type: "value_error",
  msg: "Take the cursor from the Link header of a list with the same sort and order",
};

/** What any operation may answer instead. */
const refusals: Answers<401 | 403 | 429 | 500 | 503> = {
  401: Problem,
  403: Problem,
  429: Problem,
  500: Problem,
  503: Problem,
};
const bodyRefusals: Answers<400 | 408 | 413 | 415> = {
  400: Problem,
  408: Problem,
  413: Problem,
  415: Problem,
};

type Answers<Status extends number> = Record<Status, typeof Problem>;

/**
 * Has these parts of a request checked. Elysia stops at the first part that is wrong; the answer names what is
 * wrong in all of them.
 */
function validated<Schemas extends { params: TObject; query?: TObject; body?: TObject }>(schemas: Schemas) {
  const { params: path, query: listing, body: json } = schemas;
  const inUrl = ({ params, query }: Parts) => [
    ...violations("path", path, params),
    ...(listing ? violations("query", listing, query) : []),
  ];
  // Elysia parses a body for any hook that so much as names it.
  const error = json
    ? ({ code, set, params, query, body }: Parts) =>
        code === "VALIDATION"
          ? validationProblem({ set }, [
              ...inUrl({ code, set, params, query }),
              ...violations("body", json, body),
            ])
          : undefined
    : ({ code, set, params, query }: Parts) =>
        code === "VALIDATION" ? validationProblem({ set }, inUrl({ code, set, params, query })) : undefined;
  return { ...schemas, error };
}

interface Parts extends Pick<Context, "set"> {
  code: unknown;
  params: unknown;
  query: unknown;
  body?: unknown;
}

/** Without a host, for a proxy may serve it under another name. */
const tasksPath = (owner: string) => `/api/${encodeURIComponent(owner)}/tasks`;

/** The same query from `cursor` on. Not by `new URL`: the address is a bare path where `Host` is missing or is none. */
function nextQuery(url: string, cursor: string): URLSearchParams {
  const parameters = new URLSearchParams(/\?.*/s.exec(url)?.[0]);
  parameters.set("cursor", cursor);
  parameters.delete("offset");
  parameters.delete("skip");
  return parameters;
}
