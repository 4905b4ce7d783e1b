import { STATUS_CODES } from "node:http";
import { swagger } from "@elysiajs/swagger";
import type { TSchema } from "@sinclair/typebox";
import { type AnyElysia, Elysia } from "elysia";
import { version } from "../../package.json";
import { Healthy } from "../health.ts";
import { Problem } from "../http/problem.ts";
import { Cleared, Completion, NewTask, Task, TaskChanges, TaskList } from "../tasks/model.ts";

/** The schemas that the document names, and refers to wherever they are used. */
const MODELS: TSchema[] = [Task, TaskList, NewTask, TaskChanges, Completion, Cleared, Problem, Healthy];

const DESCRIPTIONS: Record<string, string> = {
  200: "As asked.",
  201: "Created.",
  204: "Deleted.",
  304: "Not changed: what `If-None-Match` names still holds.",
  400: "The body is not valid JSON in UTF-8.",
  401: "There is no valid token.",
  403: "The token is another user's.",
  404: "There is no such task among the user's own.",
  408: "The body took more than 30 s to arrive.",
  412: "The task has changed: it is not the version that `If-Match` names.",
  413: "The body is over 64 KiB.",
  415: "The body is not JSON, or is compressed.",
  422: "A value is wrong; `errors` names each.",
  429: "Too many requests of this user: too often, or too many under way.",
  431: "The headers are over 16 KiB.",
  500: "A bug of ours: the log has the request id.",
  503: "Not just now: the database (or the JWKS) is out of reach or too slow, or too much is under way.",
};

const header = (description: string, schema: object = { type: "string" }) => ({ description, schema });

const REQUEST_ID = header("The request's id: the one it came with, or a new one.");

const RETRY_AFTER = header("After how many seconds to try again.", { type: "integer" });

const TAG = { ETag: header("The version (RFC 9110): for `If-None-Match` and `If-Match`.") };

const PAGE = {
  ...TAG,
  "X-Total-Count": header("How many tasks match, on all pages.", { type: "integer", minimum: 0 }),
  Link: header('While more follow: `</api/…?cursor=…>; rel="next"` (RFC 8288).'),
};

const HEADERS: Record<string, Record<string, object>> = {
  "304": TAG,
  "getTask 200": TAG,
  "updateTask 200": TAG,
  "completeTask 200": TAG,
  "listTasks 200": PAGE,
  "listTasks 304": PAGE,
  "createTask 201": {
    ...TAG,
    Location: header("The address of the task."),
    "Idempotency-Replayed": header("`true`: nothing was created, the task is an earlier request's."),
  },
  "401": { "WWW-Authenticate": header("`Bearer` (RFC 6750).") },
  "429": { "Retry-After": RETRY_AFTER },
  "503": { "Retry-After": RETRY_AFTER },
};

const requestHeader = (name: string, description: string, schema?: object) => ({
  name,
  in: "header",
  required: false,
  ...header(description, schema),
});

const IF_MATCH = requestHeader("If-Match", "The task's `ETag`: it is done only if the task is still that version.");
const IF_NONE_MATCH = requestHeader("If-None-Match", "An `ETag`: 304 without a body if it still holds.");

/** Read by hand, since Elysia would make an object of all headers for each request. */
const REQUEST_HEADERS: Record<string, object> = {
  listTasks: IF_NONE_MATCH,
  getTask: IF_NONE_MATCH,
  updateTask: IF_MATCH,
  completeTask: IF_MATCH,
  deleteTask: IF_MATCH,
  createTask: requestHeader(
    "Idempotency-Key",
    "Of your choice, new for each new task: sent again within 24 hours it creates nothing, and answers with the task.",
    { type: "string", minLength: 1, maxLength: 64, pattern: "^[\\x21-\\x7E]+$" },
  ),
};

const INFO = {
  title: "Tasks API",
  version,
  description: [
    "A per-user todo list. Sign in with Better Auth, take the token from its `/api/auth/token`, and send it as",
    "`Authorization: Bearer …`. The `user_id` in the path is that user's id.",
    "",
    "Every failure is a `Problem` (RFC 9457), whose `detail` can be shown to a person: as `application/problem+json`",
    "for a request that accepts that by name, else as `application/json`. Every answer carries an",
    "`X-Request-Id`, which the log has too.",
  ].join("\n"),
};

const TAGS = [
  { name: "Tasks", description: "One user's tasks." },
  { name: "Health", description: "Is the service up, and may it be sent requests?" },
];

const BEARER = {
  type: "http" as const,
  scheme: "bearer",
  bearerFormat: "JWT",
  description: "From Better Auth's `/api/auth/token`; in development, from `bun run token USER_ID`.",
};

/**
 * The OpenAPI document of the routes.
 *
 * The plugin finds out what the routes declare. What it makes of that is not valid OpenAPI (each schema inlined
 * under three media types, TypeBox's own keywords, answers without a description), so it is put right here, by the
 * schemas' names.
 */
export async function describe(routes: AnyElysia): Promise<OpenApi> {
  const plugin = swagger({
    specPath: "/document",
    documentation: { info: INFO, tags: TAGS, components: { securitySchemes: { bearer: BEARER } } },
  });
  const answer = await new Elysia().use(routes).use(plugin).handle(new Request("http://localhost/document"));
  const { components, ...found } = (await answer.json()) as Found;
  return {
    ...found,
    openapi: "3.1.0",
    servers: [{ url: "/", description: "This server." }],
    paths: mapped(found.paths, (operations) => mapped(operations, corrected)),
    components: {
      ...components,
      schemas: Object.fromEntries(MODELS.map((model) => [model.$id, named(model)])),
    },
  };
}

const mapped = <From, To>(members: Record<string, From>, change: (value: From, name: string) => To) =>
  Object.fromEntries(Object.entries(members).map(([name, value]) => [name, change(value, name)]));

function corrected({ operationId, parameters, requestBody, responses, ...rest }: Operation): object {
  const [body] = Object.values(requestBody?.content ?? {});
  const signedIn = "401" in responses;
  // Linters want a failure of the client's in every operation. A probe's only one is Bun's own, which is bare. (As "4XX"
  // it would be no status that orval can write in TypeScript.)
  const answers = signedIn ? responses : { ...responses, 431: {} };
  return {
    operationId,
    ...rest,
    security: signedIn ? [{ bearer: [] }] : [],
    ...(parameters && {
      parameters: [
        ...parameters.map(({ examples, schema: { deprecated, ...schema }, ...parameter }) => ({
          ...parameter,
          schema,
          ...(deprecated === true && { deprecated }),
          ...(examples && { example: examples[0] }),
        })),
        ...(REQUEST_HEADERS[operationId] ? [REQUEST_HEADERS[operationId]] : []),
      ],
    }),
    ...(body && {
      requestBody: {
        required: body.schema.$id !== Completion.$id,
        content: { "application/json": { schema: reference(body.schema.$id) } },
      },
    }),
    responses: mapped(answers, ({ $id }, status) => ({
      description: DESCRIPTIONS[status],
      ...(status !== "431" && {
        headers: { ...HEADERS[status], ...HEADERS[`${operationId} ${status}`], "X-Request-Id": REQUEST_ID },
      }),
      ...($id === Problem.$id
        ? { content: problemContent({ schema: reference($id), example: example(status) }) }
        : $id && { content: { "application/json": { schema: reference($id) } } }),
    })),
  };
}

/** A failure is one or the other, by what the request accepts. */
const problemContent = (content: object) => ({
  "application/json": content,
  "application/problem+json": content,
});

/** What a failure with this status looks like. */
const example = (status: string) => ({
  type: "about:blank",
  title: STATUS_CODES[status],
  status: Number(status),
  detail: DESCRIPTIONS[status],
  request_id: "0b8f6a2e-6a2b-4d55-9c53-6f5d1c0f7a10",
  ...(status === "422" && {
    detail: "title: Field required",
    errors: [{ loc: ["body", "title"], msg: "Field required", type: "missing" }],
  }),
});

const reference = ($id: string | undefined) => ({ $ref: `#/components/schemas/${$id}` });

/** A model as plain JSON Schema: without the keywords that mean something only here, and with models inside by name. */
const named = ({ $id, noValidate, additionalProperties, ...schema }: TSchema) =>
  JSON.parse(JSON.stringify(schema), (_, value) => (value?.$id ? reference(value.$id) : value));

/** What the plugin's document is known to have. */
interface Found {
  paths: Record<string, Record<string, Operation>>;
  components: object;
}

interface Operation {
  operationId: string;
  parameters?: { examples?: unknown[]; schema: { deprecated?: boolean } }[];
  requestBody?: { content: Record<string, { schema: { $id?: string } }> };
  responses: Record<string, { $id?: string }>;
}

export interface OpenApi {
  openapi: string;
  servers: { url: string; description: string }[];
  paths: Record<string, Record<string, object>>;
  components: { schemas: Record<string, object> };
}
