import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { treaty } from "@elysiajs/eden";
import { createConfig, lintFromString } from "@redocly/openapi-core";
import openapiTypescript, { astToString } from "openapi-typescript";
import type { App } from "../../src/app.ts";
import type { OpenApi } from "../../src/docs/document.ts";
import { listening, outOfReach, service, start, User } from "../harness.ts";

// Processes and databases take their time on a machine that does other things too.
setDefaultTimeout(60_000);

interface Operation {
  operationId: string;
  tags: string[];
  summary: string;
  description: string;
  security: object[];
  parameters?: { name: string; in: string; description: string; deprecated?: boolean; schema: { type: string } }[];
  responses: Record<
    string,
    {
      description: string;
      content?: Record<string, unknown>;
      headers: Record<string, { description: string }>;
    }
  >;
}

const fetchDocument = async (url = service.url) => (await (await fetch(`${url}/openapi.json`)).json()) as OpenApi;
const document = await fetchDocument();
const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
  Object.entries(methods as Record<string, Operation>).map(([method, operation]) => ({
    path,
    method,
    ...operation,
  })),
);
const operation = (id: string) => operations.find(({ operationId }) => operationId === id);

describe("the document", () => {
  test("is valid, with no more than a licence to wish for", async () => {
    const config = await createConfig({ extends: ["recommended"] });
    const problems = await lintFromString({ source: JSON.stringify(document), config });
    expect(problems.map(({ ruleId, message }) => `${ruleId}: ${message}`)).toEqual([
      "info-license: Info object should contain `license` field.",
    ]);
  });

  test("names the operations in plain English", () => {
    expect(operations.map(({ operationId }) => operationId).toSorted()).toEqual([
      "clearTasks",
      "completeTask",
      "createTask",
      "deleteTask",
      "getHealth",
      "getLiveness",
      "getReadiness",
      "getTask",
      "listTasks",
      "updateTask",
    ]);
    for (const { summary, description } of operations) expect(summary.length * description.length).toBeGreaterThan(0);
  });

  test("names the schemas, and refers to them", () => {
    expect(Object.keys(document.components.schemas).toSorted()).toEqual([
      "Cleared",
      "Completion",
      "Health",
      "NewTask",
      "Problem",
      "Task",
      "TaskChanges",
      "TaskList",
    ]);
    const { components, ...rest } = document;
    expect(JSON.stringify(rest)).not.toContain('"properties"');
    expect(JSON.stringify(document)).not.toMatch(/\$id|noValidate|multipart|"Date"/);
  });

  test("asks for a token where one is needed, and only there", () => {
    for (const { path, security } of operations)
      expect(security).toEqual(path.startsWith("/api/") ? [{ bearer: [] }] : []);
  });

  test("has one media type for each answer, and both of those that a failure may have", () => {
    for (const { responses } of operations)
      for (const [status, { description, content }] of Object.entries(responses)) {
        const failure = ["application/json", "application/problem+json"];
        const types = Number(status) < 300 ? ["application/json"] : failure;
        const none = ["204", "304", "431"].includes(status);
        expect(Object.keys(content ?? {})).toEqual(none ? [] : types);
        expect(description).not.toBe("");
      }
  });

  test("says of each parameter and header what it is", () => {
    const described = operations.flatMap(({ parameters = [], responses }) => [
      ...parameters,
      ...Object.values(responses).flatMap(({ headers }) => Object.values(headers ?? {})),
    ]);
    expect(described.length).toBeGreaterThan(100);
    expect(described.filter(({ description }) => (description ?? "").length < 8)).toEqual([]);
  });

  test("gives an example of a failure that could be one", () => {
    const { properties } = document.components.schemas.Problem as {
      properties: Record<string, { examples?: unknown[] }>;
    };
    expect([properties.status?.examples, properties.title?.examples, properties.detail?.examples]).toEqual([
      [404],
      ["Not Found"],
      ["Task not found"],
    ]);
  });

  test("says what the groups of its operations are", () => {
    const { tags } = document as OpenApi & { tags: { name: string; description: string }[] };
    const used = new Set(operations.flatMap(({ tags }) => tags));
    expect(tags.map(({ name }) => name).toSorted()).toEqual([...used].toSorted());
    for (const { description } of tags) expect(description.length).toBeGreaterThan(10);
  });

  test("has the parameters as they are", () => {
    expect(operation("listTasks")?.parameters?.map(({ name }) => name)).toEqual([
      "user_id",
      "status",
      "search",
      "sort",
      "order",
      "limit",
      "cursor",
      "completed",
      "offset",
      "skip",
      "If-None-Match",
    ]);
    expect(
      operation("listTasks")
        ?.parameters?.filter(({ deprecated }) => deprecated)
        .map(({ name }) => name),
    ).toEqual(["completed", "offset", "skip"]);
    const schemaOf = (id: string, name: string) =>
      operation(id)?.parameters?.find((parameter) => parameter.name === name)?.schema;
    expect(schemaOf("listTasks", "limit")).toEqual({
      type: "integer",
      minimum: 1,
      maximum: 1000,
      default: 1000,
    } as never);
    expect(schemaOf("listTasks", "status")).toMatchObject({ enum: ["all", "pending", "completed"] } as never);
    expect(schemaOf("listTasks", "sort")).toMatchObject({
      enum: ["created_at", "updated_at", "title"],
    } as never);
    expect(schemaOf("getTask", "id")?.type).toBe("integer");
    expect(schemaOf("createTask", "Idempotency-Key")).toEqual({
      type: "string",
      minLength: 1,
      maxLength: 64,
      pattern: "^[\\x21-\\x7E]+$",
    } as never);
  });

  test("is the same before and after traffic, and on every instance", async () => {
    const user = await service.newcomer();
    await user.task();
    expect(await fetchDocument()).toEqual(document);
    const other = await start();
    await (await other.newcomer()).task();
    expect(await fetchDocument(other.url)).toEqual(document);
    await other.stop();
  });
});

/** The real app on a database that does nothing but fail. */
const appWhoseDatabaseFails = (error: Error) => listening({ db: outOfReach(() => Promise.reject(error)) });

/** The header of a request that an answer with this status is about. */
const ASKED_BY = { 201: "Idempotency-Key", 304: "If-None-Match", 412: "If-Match" };

/** What an answer says by headers of its own, in small letters. */
const SAYING = /^(etag|location|link|x-total-count|idempotency-replayed|retry-after|www-authenticate|x-request-id)$/;

test("every status and header that the document has is really answered, and no other", async () => {
  const user = await service.newcomer();
  const stranger = await service.newcomer();
  const { id } = await user.task();
  const json = { "content-type": "application/json" };
  const seen = new Map<string, Set<number>>(operations.map(({ operationId }) => [operationId, new Set()]));
  const said = new Map<string, Set<string>>();
  const note = (operationId: string, { status, headers }: Response) => {
    seen.get(operationId)?.add(status);
    const names = [...headers.keys()].filter((name) => SAYING.test(name));
    said.set(`${operationId} ${status}`, new Set([...(said.get(`${operationId} ${status}`) ?? []), ...names]));
  };

  const limited = await start({ RATE_LIMIT: "1/s" });
  const hasty = await limited.newcomer();
  const out = appWhoseDatabaseFails(Object.assign(new Error(), { code: "57014" }));
  const bug = appWhoseDatabaseFails(new Error());

  for (const { operationId, path, method } of operations.filter(({ path }) => path.startsWith("/api/"))) {
    const rest = (task: number | string) => path.replace("/api/{user_id}/tasks", "").replace("{id}", String(task));
    const send = async (who: User, task: number | string, body?: string, headers: Record<string, string> = json) =>
      note(operationId, await who.send(method.toUpperCase(), rest(task), body, headers));
    const good = method === "post" || method === "put" ? '{"title":"x"}' : undefined;
    await send(new User(service.url, user.id, "no-token"), id, good);
    await send(new User(service.url, user.id, stranger.token), id, good);
    await send(user, "wrong", good);
    await send(user, 999_999_999, good);
    if (method === "get") note(operationId, await user.get(`${rest(id)}?limit=wrong`));
    if ("400" in (operation(operationId)?.responses ?? {})) {
      await send(user, id, "x".repeat(70_000));
      await send(user, id, "x", { "content-type": "text/plain" });
      await send(user, id, "{");
      await send(user, id, '{"title":5,"completed":5}');
    }
    // A version that this task never had: 412, and nothing is done. One that holds: 304.
    const one = method === "delete" ? (await user.task()).id : id;
    await send(user, one, good, { ...json, "if-match": '"0"' });
    await send(user, one, good, { ...json, "if-none-match": "*" });
    await send(user, one, good);
    for (const { url } of [out, bug]) await send(new User(url, user.id, user.token), id, good);
    const ask = () => hasty.send(method.toUpperCase(), rest(id), good, json);
    let answer = await ask();
    while (answer.status !== 429) answer = await ask();
    note(operationId, answer);
  }
  for (const { url } of [service, out, bug])
    note("clearTasks", await new User(url, user.id, user.token).send("DELETE", "?status=completed"));
  const key = { "idempotency-key": "once" };
  const { id: made } = (await (await user.post({ title: "x" }, key)).json()) as { id: number };
  note("createTask", await user.post({ title: "x" }, key));
  for (const headers of [{}, { "if-none-match": "*" }]) note("listTasks", await user.get("?limit=1", headers));
  await user.delete(made);
  note("createTask", await user.post({ title: "x" }, key));
  for (const { operationId, path } of operations.filter(({ path }) => path.startsWith("/health")))
    for (const url of [service.url, out.url]) {
      note(operationId, await fetch(url + path));
      note(operationId, await fetch(url + path, { headers: { "x-long": "x".repeat(17_000) } }));
    }
  for (const { stop } of [limited, out, bug]) await stop();

  // What takes half a minute is seen in another test.
  const faults = ["408"];
  const documented = operations.map(({ operationId, responses }) => [
    operationId,
    Object.keys(responses)
      .filter((status) => !faults.includes(status))
      .toSorted(),
  ]);
  const answered = [...seen].map(([operationId, statuses]) => [operationId, [...statuses].map(String).toSorted()]);
  expect(answered).toEqual(documented);

  const brought = operations.map(({ operationId, responses }) => [
    operationId,
    Object.keys(responses).filter((status) => faults.includes(status)),
  ]);
  expect(Object.fromEntries(brought)).toEqual({
    ...{ getHealth: [], getLiveness: [], getReadiness: [] },
    ...{ listTasks: [], clearTasks: [], getTask: [], deleteTask: [] },
    ...{ createTask: ["408"], updateTask: ["408"], completeTask: ["408"] },
  });

  for (const { operationId, responses } of operations)
    for (const [status, { headers }] of Object.entries(responses)) {
      const names = said.get(`${operationId} ${status}`);
      const named = Object.keys(headers ?? {}).map((name) => name.toLowerCase());
      expect([operationId, status, named.toSorted()]).toEqual([operationId, status, [...(names ?? named)].toSorted()]);
    }

  for (const { operationId, parameters = [], responses } of operations) {
    const named = parameters.filter((parameter) => parameter.in === "header").map(({ name }) => name);
    const heeded = Object.entries(ASKED_BY).filter(([status]) => status in responses);
    expect([operationId, named]).toEqual([operationId, heeded.map(([, name]) => name)]);
  }
});

const GENERATED_CLIENT = `
  import createClient from "openapi-fetch";
  import type { components, paths } from "./api.ts";

  type Exactly<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
  type Plain<T> = { [K in keyof T]: T[K] };
  export const task: Exactly<Plain<components["schemas"]["Task"]>, {
    id: number; user_id: string; title: string; description: string | null;
    completed: boolean; created_at: string; updated_at: string;
  }> = true;
  export const newTask: Exactly<Plain<components["schemas"]["NewTask"]>, {
    title: string; description?: string | null; completed?: boolean;
  }> = true;

  const [baseUrl = "", user_id = "", token = ""] = process.argv.slice(2);
  const api = createClient<paths>({ baseUrl, headers: { authorization: "Bearer " + token } });
  export const wrong = () => {
    // @ts-expect-error a title is needed
    void api.POST("/api/{user_id}/tasks", { params: { path: { user_id } }, body: {} });
    // @ts-expect-error there is no such status
    void api.GET("/api/{user_id}/tasks", { params: { path: { user_id }, query: { status: "done" } } });
    // @ts-expect-error there is no such operation
    void api.POST("/api/{user_id}/tasks/{id}", {});
  };

  const made = await api.POST("/api/{user_id}/tasks", { params: { path: { user_id } }, body: { title: "x" } });
  if (!made.data) throw new Error(made.error.detail);
  const path = { user_id, id: made.data.id };
  const listed = await api.GET("/api/{user_id}/tasks", { params: { path, query: { status: "pending", limit: 20 } } });
  const done = await api.PATCH("/api/{user_id}/tasks/{id}/complete", { params: { path } });
  const gone = await api.DELETE("/api/{user_id}/tasks/{id}", { params: { path } });
  if (listed.data?.length === 1 && done.data?.completed && gone.response.status === 204)
    console.log("created, listed, completed, deleted");
`;

describe("a client", () => {
  test("generated by openapi-typescript is exact, and lives a task's life", async () => {
    const user = await service.newcomer();
    const directory = mkdtempSync(join(import.meta.dir, "generated-"));
    writeFileSync(join(directory, "api.ts"), astToString(await openapiTypescript(JSON.stringify(document))));
    writeFileSync(join(directory, "use.ts"), GENERATED_CLIENT);
    const options = "--noEmit --strict --target esnext --module preserve --skipLibCheck --allowImportingTsExtensions";
    const run = async (...command: string[]) => {
      const { stdout, stderr } = Bun.spawn(command, { cwd: directory, stdout: "pipe", stderr: "pipe" });
      return (await stdout.text()) + (await stderr.text());
    };
    const types = await run("bun", "x", "tsc", ...options.split(" "), "--types", "bun-types", "use.ts");
    const life = await run("bun", "use.ts", service.url, user.id, user.token);
    rmSync(directory, { recursive: true });
    expect(types).toBe("");
    expect(life).toBe("created, listed, completed, deleted\n");
  });

  test("of Eden lives a task's life, with the app's own types", async () => {
    const user = await service.newcomer();
    const api = treaty<App>(service.url, { headers: { authorization: `Bearer ${user.token}` } });
    const tasks = api.api({ user_id: user.id }).tasks;

    const made = await tasks.post({ title: "Buy milk" });
    const id: number = made.data?.id ?? 0;
    const changed = await tasks({ id }).put({ description: "Oat" });
    const description: string | null | undefined = changed.data?.description;
    expect(description).toBe("Oat");
    expect((await tasks({ id }).complete.patch({ completed: true })).data?.completed).toBe(true);
    expect((await tasks.get({ query: { status: "completed", limit: 20 } })).data?.map((task) => task.id)).toEqual([id]);
    expect((await tasks({ id }).delete()).status).toBe(204);

    const { error } = await tasks({ id }).get();
    expect(error?.status === 404 && error.value.detail).toBe("Task not found");
  });
});

describe("the page", () => {
  test("and all it loads comes from here, under a policy that says so", async () => {
    const answer = await fetch(`${service.url}/docs`);
    const page = await answer.text();
    expect(answer.headers.get("content-type")).toBe("text/html; charset=utf-8");
    expect(answer.headers.get("content-security-policy")?.replace(/'sha256-[^']+'/, "HASH")).toBe(
      "default-src 'none'; script-src 'self' HASH; style-src 'self' 'unsafe-inline'; img-src 'self' data:; " +
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    );
    expect(answer.headers.get("referrer-policy")).toBe("no-referrer");
    expect(page).not.toMatch(/https?:\/\//);
    const assets = [...page.matchAll(/(?:src|href)="(\/[^"]+)"/g)].map(([, path]) => path);
    expect(assets).toEqual(["/docs/swagger-ui.css", "/docs/swagger-ui.js"]);
    for (const path of assets) {
      const asset = await fetch(service.url + path);
      expect([asset.status, asset.headers.get("content-type")]).toEqual([
        200,
        expect.stringMatching(/^text\/(css|javascript)/),
      ]);
      expect(asset.headers.get("cache-control")).toBe("public, max-age=3600");
      expect((await asset.text()).length).toBeGreaterThan(100_000);
    }
  });

  test("runs the one script that the policy names", async () => {
    const answer = await fetch(`${service.url}/docs`);
    const [, script = ""] = /<script>(.*)<\/script>/s.exec(await answer.text()) ?? [];
    const hash = new Bun.CryptoHasher("sha256").update(script).digest("base64");
    expect(answer.headers.get("content-security-policy")).toContain(`'sha256-${hash}'`);
  });
});
