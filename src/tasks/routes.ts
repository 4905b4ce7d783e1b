import { Type } from "@sinclair/typebox";
import { Elysia } from "elysia";
import type { auth, UserId } from "../auth/index.ts";
import type { SendJson } from "../http/accept.ts";
import { jsonBody } from "../http/body.ts";
import { isKnown, setTag } from "../http/conditional.ts";
import type { limits } from "../http/limits.ts";
import { invalid, Problem, problem, validationProblem } from "../http/problem.ts";
import { bodyFailures, commonFailures, validated } from "../http/validation.ts";
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
import type { Tasks } from "./store.ts";
import { etagOf, MALFORMED_IF_MATCH, NO_SUCH_TASK, notDone, tagged, versionsOf } from "./versions.ts";

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
        setTag({ set }, etag);
        return sendJson({ request, set }, page.tasks, json, isKnown(request, etag));
      },
      {
        ...validated({ params: Owned, query: Listing }),
        response: { 200: TaskList, 304: Type.Void(), ...commonFailures },
        detail: {
          operationId: "listTasks",
          summary: "List tasks",
          description:
            "The user's tasks, newest first unless asked otherwise. While more follow, the `Link` header has the address of the next page.",
        },
      },
    )

    .delete(
      "",
      async ({ tasks, query, request, set }) => {
        // Elysia takes one of several. What deletes must not be guessed.
        if (queryOf(request.url).getAll("status").length > 1) return validationProblem({ set }, [SEVERAL_STATUSES]);
        return { deleted: await tasks.clear(query.status) };
      },
      {
        ...validated({ params: Owned, query: Clearing }),
        response: { 200: Cleared, ...commonFailures },
        detail: {
          operationId: "clearTasks",
          summary: "Delete the completed tasks, or all",
          description: "All or nothing: it says how many when they are gone for good.",
        },
      },
    )

    .get(
      "/:id",
      async ({ tasks, params, request, set, status }) => {
        const task = await tasks.find(Number(params.id));
        if (task === undefined) return problem({ set }, 404, NO_SUCH_TASK);
        const etag = etagOf(task);
        setTag({ set }, etag);
        return isKnown(request, etag) ? status(304, undefined) : task;
      },
      {
        ...validated({ params: OwnedTask }),
        response: { 200: Task, 304: Type.Void(), 404: Problem, ...commonFailures },
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
        response: { 204: Type.Void(), 404: Problem, 412: Problem, ...commonFailures },
        detail: { operationId: "deleteTask", summary: "Delete a task", description: "It is gone for good." },
      },
    )

    .use(jsonBody)

    .post(
      "",
      async ({ tasks, body, userId, request, set, status }) => {
        const key = request.headers.get("idempotency-key");
        if (key !== null && !/^[\x21-\x7e]{1,64}$/.test(key)) return validationProblem({ set }, [MALFORMED_KEY]);
        const made =
          key === null ? { task: await tasks.create(body), replayed: false } : await tasks.createOnce(key, body);
        if (made === "other") return validationProblem({ set }, [KEY_OF_ANOTHER]);
        if (made === "missing")
          return problem({ set }, 404, "The task that this Idempotency-Key created has been deleted");
        if (made.replayed) set.headers["idempotency-replayed"] = "true";
        set.headers.location = `${tasksPath(userId)}/${made.task.id}`;
        return status(201, tagged({ set }, made.task));
      },
      {
        ...validated({ params: Owned, body: NewTask }),
        response: { 201: Task, 404: Problem, ...commonFailures, ...bodyFailures },
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
        const nothing = title === undefined && description === undefined && completed === undefined;
        if (nothing || versions === "malformed")
          return validationProblem({ set }, [
            ...(nothing ? [NOTHING_TO_CHANGE] : []),
            ...(versions === "malformed" ? [MALFORMED_IF_MATCH] : []),
          ]);
        const task = await tasks.change(Number(params.id), body, versions);
        return typeof task === "string" ? notDone({ set }, task) : tagged({ set }, task);
      },
      {
        ...validated({ params: OwnedTask, body: TaskChanges }),
        response: { 200: Task, 404: Problem, 412: Problem, ...commonFailures, ...bodyFailures },
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
        response: { 200: Task, 404: Problem, 412: Problem, ...commonFailures, ...bodyFailures },
        detail: {
          operationId: "completeTask",
          summary: "Complete a task, or reopen it",
          description:
            'Without a body (or with `{}` or `null`) it toggles `completed`. With `{"completed": true}` it sets the state, so that a retry is safe.',
        },
      },
    );

const MALFORMED_KEY = invalid(["header", "idempotency-key"], "Give 1 to 64 visible ASCII characters, without spaces");
const KEY_OF_ANOTHER = invalid(
  ["header", "idempotency-key"],
  "This key has created another task: give each new task a key of its own",
);
const NOTHING_TO_CHANGE = {
  ...invalid(["body"], "Give at least one of title, description and completed"),
  type: "missing",
};
const SEVERAL_STATUSES = invalid(["query", "status"], "Give it once: completed or all");
const FOREIGN_CURSOR = invalid(
  ["query", "cursor"],
  "Take the cursor from the Link header of a list with the same sort and order",
);

/** Without a host, for a proxy may serve it under another name. */
const tasksPath = (owner: string) => `/api/${encodeURIComponent(owner)}/tasks`;

/** Not by `new URL`: the address is a bare path where `Host` is missing or is none. */
const queryOf = (url: string) => new URLSearchParams(/\?.*/s.exec(url)?.[0]);

/** The same query from `cursor` on. */
function nextQuery(url: string, cursor: string): URLSearchParams {
  const parameters = queryOf(url);
  parameters.set("cursor", cursor);
  parameters.delete("offset");
  parameters.delete("skip");
  return parameters;
}
