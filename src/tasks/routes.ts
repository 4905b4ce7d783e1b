import { type TObject, Type } from "@sinclair/typebox";
import { type Context, Elysia } from "elysia";
import type { auth, UserId } from "../auth/index.ts";
import type { SendJson } from "../http/accept.ts";
import { jsonBody } from "../http/body.ts";
import type { limits } from "../http/limits.ts";
import { Problem, problem, validationProblem } from "../http/problem.ts";
import { violations } from "../http/validation.ts";
import { parseCursor } from "./cursor.ts";
import {
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
import type { Tasks } from "./store.ts";

/** One user's tasks. `tasksOf` makes the only way to a row, for the owner that `auth` has admitted. */
export const taskRoutes = (
  signedIn: ReturnType<typeof auth>,
  limited: ReturnType<typeof limits>,
  tasksOf: (owner: UserId) => Tasks,
  sendJson: SendJson,
) =>
  new Elysia({ name: "tasks", prefix: "/api/:user_id/tasks", detail: { tags: ["Tasks"] } })
    .use(signedIn)
    .use(limited)
    .derive(({ userId }) => ({ tasks: tasksOf(userId) }))

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
        return sendJson({ request, set }, page.tasks);
      },
      {
        ...validated({ params: Owned, query: Listing }),
        response: { 200: TaskList, 422: Problem, ...refusals },
        detail: {
          operationId: "listTasks",
          summary: "List tasks",
          description:
            "The user's tasks, newest first unless asked otherwise. While more follow, the `Link` header has the address of the next page.",
        },
      },
    )

    .get(
      "/:id",
      async ({ tasks, params, set }) =>
        (await tasks.find(Number(params.id))) ?? problem({ set }, 404, NO_SUCH_TASK),
      {
        ...validated({ params: OwnedTask }),
        response: { 200: Task, 404: Problem, 422: Problem, ...refusals },
        detail: {
          operationId: "getTask",
          summary: "Get a task",
          description: "Another user's task is answered like one that does not exist.",
        },
      },
    )

    .delete(
      "/:id",
      async ({ tasks, params, set, status }) =>
        (await tasks.delete(Number(params.id)))
          ? status(204, undefined)
          : problem({ set }, 404, NO_SUCH_TASK),
      {
        ...validated({ params: OwnedTask }),
        response: { 204: Type.Void(), 404: Problem, 422: Problem, ...refusals },
        detail: { operationId: "deleteTask", summary: "Delete a task", description: "It is gone for good." },
      },
    )

    .use(jsonBody)

    .post(
      "",
      async ({ tasks, body, userId, set, status }) => {
        const task = await tasks.create(body);
        set.headers.location = `${tasksPath(userId)}/${task.id}`;
        return status(201, task);
      },
      {
        ...validated({ params: Owned, body: NewTask }),
        response: { 201: Task, 422: Problem, ...refusals, ...bodyRefusals },
        detail: {
          operationId: "createTask",
          summary: "Create a task",
          description: "The title is stored without the white space around it. The answer is the task.",
        },
      },
    )

    .put(
      "/:id",
      async ({ tasks, params, body, set }) => {
        const { title, description, completed } = body;
        if (title === undefined && description === undefined && completed === undefined)
          return validationProblem({ set }, [NOTHING_TO_CHANGE]);
        return (await tasks.change(Number(params.id), body)) ?? problem({ set }, 404, NO_SUCH_TASK);
      },
      {
        ...validated({ params: OwnedTask, body: TaskChanges }),
        response: { 200: Task, 404: Problem, 422: Problem, ...refusals, ...bodyRefusals },
        detail: {
          operationId: "updateTask",
          summary: "Update a task",
          description: "Changes the fields given and keeps the others. A null clears the description.",
        },
      },
    )

    .patch(
      "/:id/complete",
      async ({ tasks, params, body, set }) =>
        (await tasks.complete(Number(params.id), body.completed)) ?? problem({ set }, 404, NO_SUCH_TASK),
      {
        ...validated({ params: OwnedTask, body: Completion }),
        response: { 200: Task, 404: Problem, 422: Problem, ...refusals, ...bodyRefusals },
        detail: {
          operationId: "completeTask",
          summary: "Complete a task, or reopen it",
          description:
            'Without a body (or with `{}` or `null`) it toggles `completed`. With `{"completed": true}` it sets the state, so that a retry is safe.',
        },
      },
    );

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
