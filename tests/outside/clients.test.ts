import { beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { copyFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { dependencies, devDependencies } from "../../package.json";
import type { OpenApi } from "../../src/docs/document.ts";
import { emptyFolder, service, User } from "../harness.ts";
import { background, freePort, outside, run } from "../outside.ts";

// Packages are installed and compilers run.
setDefaultTimeout(300_000);

const PACKAGES = {
  elysia: dependencies.elysia,
  "@elysiajs/eden": devDependencies["@elysiajs/eden"],
  "openapi-typescript": devDependencies["openapi-typescript"],
  "openapi-fetch": devDependencies["openapi-fetch"],
  typescript: devDependencies.typescript,
  vite: "8.3.4",
  "@hey-api/openapi-ts": "0.95.0",
  orval: "7.13.2",
  "@stoplight/prism-cli": "5.14.2",
};

/** What the templates of Vite set, Bun's types nowhere near. Elysia's own declarations ask for `skipLibCheck`. */
const TSCONFIG = {
  compilerOptions: {
    target: "ES2023",
    lib: ["ES2023", "DOM", "DOM.Iterable"],
    module: "ESNext",
    moduleResolution: "bundler",
    types: [],
    skipLibCheck: true,
    verbatimModuleSyntax: true,
    moduleDetection: "force",
    noEmit: true,
    strict: true,
    noUnusedLocals: true,
    noUnusedParameters: true,
  },
};

const EXACTLY = `
  type Exactly<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
  type Plain<T> = { [K in keyof T]: T[K] };
  interface ATask {
    id: number; user_id: string; title: string; description: string | null;
    completed: boolean; created_at: string; updated_at: string;
  }
  interface ANewTask { title: string; description?: string | null; completed?: boolean }
`;

/** Each lives a task's life as a front end would write it: \`base\`, \`user_id\` and \`token\` are given. */
const CLIENTS = {
  eden: `
    import { treaty } from "@elysiajs/eden";
    import type { App, NewTask, Task } from "./tasks-api";
    ${EXACTLY}
    export const exact: [Exactly<Plain<Task>, Plain<ATask>>, Exactly<Plain<NewTask>, Plain<ANewTask>>] = [true, true];

    export async function live(base: string, user_id: string, token: string) {
      const api = treaty<App>(base, { headers: { authorization: "Bearer " + token }, parseDate: false });
      const tasks = api.api({ user_id }).tasks;
      const made = await tasks.post({ title: "x" });
      if (made.error) throw new Error(made.error.value.detail);
      const instant: string = made.data.created_at;
      const one = tasks({ id: made.data.id });
      const listed = await tasks.get({ query: { status: "pending", limit: 20 } });
      const got = await one.get();
      const put = await one.put({ description: "y" });
      const done = await one.complete.patch({ completed: true });
      const gone = await one.delete();
      const missed = await one.get();
      const detail: string | false = missed.error?.status === 404 && missed.error.value.detail;
      const health: "healthy" | undefined = (await api.health.get()).data?.status;
      return [typeof instant, listed.data?.length, got.data?.title, put.data?.description, done.data?.completed, gone.status, detail, health];
    }

    export function wrong() {
      const tasks = treaty<App>("").api({ user_id: "" }).tasks;
      // @ts-expect-error a title is needed
      void tasks.post({});
      // @ts-expect-error there is no such status
      void tasks.get({ query: { status: "nonsense" } });
      // @ts-expect-error there is no such operation
      void tasks.put({});
    }
  `,
  "openapi-typescript": `
    import createClient from "openapi-fetch";
    import type { components, paths } from "./schema";
    ${EXACTLY}
    export const exact: [
      Exactly<Plain<components["schemas"]["Task"]>, Plain<ATask>>,
      Exactly<Plain<components["schemas"]["NewTask"]>, Plain<ANewTask>>,
    ] = [true, true];

    export async function live(baseUrl: string, user_id: string, token: string) {
      const api = createClient<paths>({ baseUrl, headers: { authorization: "Bearer " + token } });
      const made = await api.POST("/api/{user_id}/tasks", { params: { path: { user_id } }, body: { title: "x" } });
      if (!made.data) throw new Error(made.error.detail);
      const instant: string = made.data.created_at;
      const params = { path: { user_id, id: made.data.id } };
      const listed = await api.GET("/api/{user_id}/tasks", { params: { path: { user_id }, query: { status: "pending", limit: 20 } } });
      const got = await api.GET("/api/{user_id}/tasks/{id}", { params });
      const put = await api.PUT("/api/{user_id}/tasks/{id}", { params, body: { description: "y" } });
      const done = await api.PATCH("/api/{user_id}/tasks/{id}/complete", { params, body: { completed: true } });
      const gone = await api.DELETE("/api/{user_id}/tasks/{id}", { params });
      const missed = await api.GET("/api/{user_id}/tasks/{id}", { params });
      const detail: string | undefined = missed.error?.detail;
      const health: "healthy" | undefined = (await api.GET("/health")).data?.status;
      return [typeof instant, listed.data?.length, got.data?.title, put.data?.description, done.data?.completed, gone.response.status, detail, health];
    }

    export function wrong() {
      const api = createClient<paths>();
      const params = { path: { user_id: "" } };
      // @ts-expect-error a title is needed
      void api.POST("/api/{user_id}/tasks", { params, body: {} });
      // @ts-expect-error there is no such status
      void api.GET("/api/{user_id}/tasks", { params: { ...params, query: { status: "nonsense" } } });
      // @ts-expect-error there is no such operation
      void api.POST("/api/{user_id}/tasks/{id}", {});
    }
  `,
  "hey-api": `
    import { completeTask, createTask, deleteTask, getHealth, getTask, listTasks, updateTask, type NewTask, type Task } from "./hey";
    import { createClient } from "./hey/client";
    ${EXACTLY}
    export const exact: [Exactly<Plain<Task>, Plain<ATask>>, Exactly<Plain<NewTask>, Plain<ANewTask>>] = [true, true];

    export async function live(baseUrl: string, user_id: string, token: string) {
      const client = createClient({ baseUrl, auth: () => token });
      const made = await createTask({ client, path: { user_id }, body: { title: "x" } });
      if (!made.data) throw new Error(made.error.detail);
      const instant: string = made.data.created_at;
      const path = { user_id, id: made.data.id };
      const listed = await listTasks({ client, path: { user_id }, query: { status: "pending", limit: 20 } });
      const got = await getTask({ client, path });
      const put = await updateTask({ client, path, body: { description: "y" } });
      const done = await completeTask({ client, path, body: { completed: true } });
      const gone = await deleteTask({ client, path });
      const missed = await getTask({ client, path });
      const detail: string | undefined = missed.error?.detail;
      const health: "healthy" | undefined = (await getHealth({ client })).data?.status;
      return [typeof instant, listed.data?.length, got.data?.title, put.data?.description, done.data?.completed, gone.response?.status, detail, health];
    }

    export function wrong() {
      const path = { user_id: "" };
      // @ts-expect-error a title is needed
      void createTask({ path, body: {} });
      // @ts-expect-error there is no such status
      void listTasks({ path, query: { status: "nonsense" } });
      // @ts-expect-error an id is needed
      void getTask({ path });
    }
  `,
  orval: `
    import { completeTask, createTask, deleteTask, getHealth, getTask, listTasks, updateTask, type NewTask, type Task } from "./orval-client";
    import { at } from "./orval-request";
    ${EXACTLY}
    export const exact: [Exactly<Plain<Task>, Plain<ATask>>, Exactly<Plain<NewTask>, Plain<ANewTask>>] = [true, true];

    export async function live(base: string, user_id: string, token: string) {
      at(base, token);
      const made = await createTask(user_id, { title: "x" });
      if (made.status !== 201) throw new Error(made.data.detail);
      const { created_at: instant, id } = made.data;
      const listed = await listTasks(user_id, { status: "pending", limit: 20 });
      const got = await getTask(user_id, id);
      const put = await updateTask(user_id, id, { description: "y" });
      const done = await completeTask(user_id, id, { completed: true });
      const gone = await deleteTask(user_id, id);
      const missed = await getTask(user_id, id);
      const detail: string | false = missed.status === 404 && missed.data.detail;
      const health = await getHealth();
      return [
        typeof instant, listed.status === 200 && listed.data.length, got.status === 200 && got.data.title,
        put.status === 200 && put.data.description, done.status === 200 && done.data.completed, gone.status, detail,
        health.status === 200 && health.data.status,
      ];
    }

    export function wrong() {
      // @ts-expect-error a title is needed
      void createTask("", {});
      // @ts-expect-error there is no such status
      void listTasks("", { status: "nonsense" });
      // @ts-expect-error an id is needed
      void getTask("");
    }
  `,
};

/** What sends orval's requests: its own way has one address, fixed when it is generated. */
const ORVAL_REQUEST = `
  let base = "";
  let token = "";
  export const at = (address: string, bearer: string) => {
    base = address;
    token = bearer;
  };
  export async function request<T>(path: string, options: RequestInit): Promise<T> {
    const headers = { ...options.headers, authorization: "Bearer " + token };
    const answer = await fetch(base + path, { ...options, headers });
    const data: unknown = JSON.parse((await answer.text()) || "null");
    return { status: answer.status, headers: answer.headers, data } as T;
  }
`;

const LIVED = ["string", 1, "x", "y", true, 204, "Task not found", "healthy"];

describe.skipIf(!outside)("outside of the repository (TEST_OUTSIDE=1)", () => {
  let folder: string;
  let prism: string;

  beforeAll(async () => {
    folder = await emptyFolder();
    await writeFile(join(folder, "package.json"), JSON.stringify({ type: "module", dependencies: PACKAGES }));
    await writeFile(join(folder, "tsconfig.json"), JSON.stringify(TSCONFIG));
    await run(folder, ["npm", "install", "--no-audit", "--no-fund"]);
    const document = `${service.url}/openapi.json`;
    await run(folder, ["npx", "openapi-typescript", document, "-o", "schema.d.ts"]);
    await run(folder, ["npx", "openapi-ts", "-i", document, "-o", "hey", "-c", "@hey-api/client-fetch"]);
    await writeFile(join(folder, "orval-request.ts"), ORVAL_REQUEST);
    const mutator = { path: "./orval-request.ts", name: "request" };
    const output = { target: "./orval-client.ts", client: "fetch", override: { mutator } };
    await writeFile(join(folder, "orval.config.json"), JSON.stringify({ tasks: { input: document, output } }));
    await run(folder, ["npx", "orval", "--config", "orval.config.json"]);
    await run(join(import.meta.dir, "../.."), ["bun", "run", "build:client"]);
    await copyFile(join(import.meta.dir, "../../dist/client.d.ts"), join(folder, "tasks-api.d.ts"));
    const readme = await Bun.file(join(import.meta.dir, "../../examples/nextjs/README.md")).text();
    expect(readme).toContain(`@elysiajs/eden@${PACKAGES["@elysiajs/eden"]} elysia@${PACKAGES.elysia}`);
    const [, block = ""] = /## A typed client.*?```ts\n(.*?)```/s.exec(readme) ?? [];
    await writeFile(
      join(folder, "readme.ts"),
      `${block}\ndeclare const token: string, user_id: string;\nexport const shown = [data, error];`,
    );
    for (const [name, source] of Object.entries(CLIENTS)) await writeFile(join(folder, `${name}.ts`), source);
    const port = freePort();
    prism = `http://127.0.0.1:${port}`;
    const proxy = [
      "node_modules/.bin/prism",
      "proxy",
      document,
      service.url,
      "--errors",
      "--validate-request",
      "false",
    ];
    await background(folder, [...proxy, "-p", String(port)], /listening/);
  });

  test("every client compiles under strict, with exactly the types of the service", async () => {
    expect(await run(folder, ["npx", "tsc"])).toBe("");
  });

  test("Vite bundles Eden's client, with nothing of Elysia in it", async () => {
    await writeFile(join(folder, "index.html"), '<script type="module" src="/main.ts"></script>');
    await writeFile(join(folder, "main.ts"), 'import { live } from "./eden"; void live("", "", "");');
    await run(folder, ["npx", "vite", "build"]);
    const [bundle = ""] = await Array.fromAsync(new Bun.Glob("dist/assets/*.js").scan(folder));
    expect(Bun.file(join(folder, bundle)).size).toBeWithin(1000, 30_000);
  });

  test.each(Object.keys(CLIENTS))("%s lives a task's life, each answer as the document has it", async (name) => {
    const { live } = (await import(join(folder, `${name}.ts`))) as {
      live: (base: string, user: string, token: string) => Promise<unknown[]>;
    };
    const user = await service.newcomer();
    expect(await live(service.url, user.id, user.token)).toEqual(LIVED);
    const another = await service.newcomer();
    expect(await live(prism, another.id, another.token)).toEqual(LIVED);
  });

  test("Prism finds no answer that the document doesn't have", async () => {
    const document = (await (await fetch(`${service.url}/openapi.json`)).json()) as OpenApi;
    const user = await service.newcomer();
    const stranger = await service.newcomer();
    const json = { "content-type": "application/json" };
    const found: string[] = [];
    const seen = new Set<number>();
    const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
      Object.entries(methods as Record<string, { requestBody?: object }>).map(([method, { requestBody }]) => ({
        method: method.toUpperCase(),
        rest: path.replace("/api/{user_id}/tasks", ""),
        mine: path.startsWith("/api/"),
        writes: requestBody !== undefined,
      })),
    );
    for (const { method, rest, mine, writes } of operations) {
      const { id } = await user.task();
      const to = (task: number | string, query = "") => rest.replace("{id}", String(task)) + query;
      const tag = (await user.get(`/${id}`)).headers.get("etag") ?? "";
      const send = async (
        rest: string,
        { token = user.token, body = writes ? '{"title":"x"}' : (undefined as string | undefined), headers = {} } = {},
      ) => {
        const url = mine ? new User(prism, user.id, token).path(rest) : prism + rest;
        const answer = await fetch(url, {
          method,
          headers: { authorization: `Bearer ${token}`, ...(body !== undefined && json), ...headers },
          ...(body !== undefined && { body }),
        });
        const text = await answer.text();
        seen.add(answer.status);
        const violations = answer.headers.get("sl-violations") ?? (text.includes("#VIOLATIONS") ? text : "");
        if (violations !== "") found.push(`${method} ${rest}: ${answer.status} ${violations}`);
      };
      await send(to(id), { headers: { "if-none-match": tag } });
      await send(to(id), { headers: { "if-match": '"another"' } });
      await send(to(id), { headers: { "if-match": "malformed" } });
      await send(to(id), { headers: { "idempotency-key": "not one key" } });
      await send(to(id), { headers: { accept: "application/problem+json" }, token: "nonsense" });
      await send(to(id), { token: "nonsense" });
      await send(to(id), { token: stranger.token });
      await send(to("nonsense", "?limit=nonsense"));
      await send(to(999_999_999));
      // (Prism reads JSON itself, so what isn't any never gets to the service.)
      for (const body of ['{"title":5,"completed":5}', `{"title":"${"x".repeat(70_000)}"}`].filter(() => writes))
        await send(to(id), { body });
      await send(to(id), { headers: writes ? { "content-type": "text/plain" } : {} });
      await send(to(id, "?status=completed"));
      await send(to(id));
    }
    expect(found).toEqual([]);
    expect([...seen].toSorted()).toEqual(expect.arrayContaining([200, 201, 204, 401, 403, 404, 413, 415, 422]));
  });
});
