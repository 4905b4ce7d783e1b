import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { loadConfig } from "../../src/config.ts";
import { COMMAND, service } from "../harness.ts";

setDefaultTimeout(120_000);

const README = readFileSync("README.md", "utf8");
/** What stands between a heading with this word and the next heading of its level or above. */
const section = (word: string) =>
  new RegExp(`^(#+)[^\\n]*\\b${word}\\b[\\s\\S]*?(?=^#{1,2} |$(?![\\s\\S]))`, "im").exec(README)?.[0] ?? "";
/** The rows of its tables, cell by cell. */
const rows = (markdown: string) =>
  [...markdown.matchAll(/^\|(.*)\|$/gm)]
    .map(([, row]) => (row ?? "").split("|").map((cell) => cell.trim()))
    .filter(([first]) => !/^:?-+:?$/.test(first ?? ""));
const inBackticks = (cell = "") => [...cell.matchAll(/`([^`]+)`/g)].map(([, text]) => text ?? "");

describe("the commands in README", () => {
  const blocks = [...README.matchAll(/^```(?:sh|bash|shell)\n(.*?)^```/gms)].map(([, block]) => block ?? "");

  /** What is not run here, and why. */
  const ELSEWHERE: [RegExp, string][] = [
    [/run check\b/, "this test is part of it; .ci/run takes the line from README and runs it"],
    [/run bench\b|\bwrk\b/, "it is minutes of load; .ci/run runs it with short windows"],
    [/^docker |^docker-compose |compose up/m, "it needs Docker; CI builds and runs the image"],
    [/railway|^fly /m, "it needs an account"],
    [/neon\.tech/, "it needs a Neon database"],
    [/^(apt|apt-get|brew|git clone) /m, "it changes the machine, or fetches from elsewhere"],
    [/^(npm|npx|bunx|pnpm) (?!-y bun@)/m, "it makes a front end: the tests of the recipe do so"],
  ];
  const here = blocks.filter((block) => !ELSEWHERE.some(([words]) => words.test(block)));
  const starts = here.filter((block) => /\brun (start|dev)\b/.test(block));
  const calls = here.filter((block) => !starts.includes(block));

  const copy = mkdtempSync(join(tmpdir(), "tasks-api-readme-"));
  const env = {
    PATH: `${dirname(process.execPath)}:${process.env.PATH}`,
    HOME: process.env.HOME,
    PORT: "0",
    CURL_HOME: copy,
  };
  beforeAll(() => {
    Bun.spawnSync([
      "sh",
      "-c",
      `git ls-files -z --cached --others --exclude-standard | xargs -0 tar cf - | tar xf - -C ${copy}`,
    ]);
    // An answer that is an error is a failed command.
    writeFileSync(join(copy, ".curlrc"), "silent\nfail-with-body\n");
  });
  afterAll(() => rmSync(copy, { recursive: true, force: true }));

  /**
   * Starts the service by a block of README, in a fresh copy of this tree. The block is as it stands, but for
   * `npx -y bun@…`: that is this `bun` (.ci/run takes npx).
   */
  async function started(block: string) {
    const command = block.replace(/npx -y bun@[\d.]+/g, "bun");
    // A group of its own, since a signal to `bun run` ends only that.
    const child = Bun.spawn(["sh", "-euc", command], {
      cwd: copy,
      env,
      stdout: "ignore",
      stderr: "pipe",
      detached: true,
    });
    let said = "";
    for await (const chunk of child.stderr.pipeThrough(new TextDecoderStream())) {
      said += chunk;
      if (said.includes("Authorization")) break;
    }
    const stop = async () => {
      process.kill(-child.pid, "SIGINT");
      await child.exited;
    };
    return { port: /Docs\s+http:\/\/localhost:(\d+)/.exec(said)?.[1] ?? said, stop };
  }

  test("start the service, and call it: each line succeeds, and answers JSON", async () => {
    expect(starts.length).toBeGreaterThan(0);
    expect(calls.length).toBeGreaterThan(0);
    for (const start of starts) {
      rmSync(join(copy, ".data"), { recursive: true, force: true });
      const { port, stop } = await started(start);
      for (const call of calls) {
        const lines = call.replaceAll("localhost:8000", `localhost:${port}`);
        const { exitCode, stdout, stderr } = Bun.spawnSync(["sh", "-euc", lines], { cwd: copy, env });
        expect([exitCode, stderr.toString()]).toEqual([0, ""]);
        expect(stdout.toString()).toContain("demo");
      }
      await stop();
    }
  });

  test("name this bun, and this version of it", () => {
    const { devDependencies } = JSON.parse(readFileSync("package.json", "utf8"));
    const named = [...README.matchAll(/bun@([\d.]+)/g)].map(([, version]) => version);
    expect(new Set(named)).toEqual(new Set([devDependencies["bun-types"]]));
  });
});

describe("the tables in README", () => {
  /** Each setting with its default, where that is a value. */
  const settings = rows(section("Settings"))
    .filter(([name]) => /^`[A-Z_]+`/.test(name ?? ""))
    .flatMap(([name, fallback = ""]) => {
      const names = inBackticks(name);
      const values = fallback.split(", ").map((value) => /^`?([\w.:/]+)`?$/.exec(value)?.[1]);
      return names.map((name, at) => ({
        name,
        value: values.length === names.length ? values[at] : undefined,
      }));
    });
  const NO_VALUE = ["unset"];

  test("name every setting that is read, and no other; so does .env.example", () => {
    const read = new Set<string>();
    const watched = new Proxy<Record<string, string>>({}, { get: (_, name) => void read.add(String(name)) });
    loadConfig(watched);
    const names = [...read].filter((name) => !name.endsWith("_FILE")).toSorted();
    expect(settings.map(({ name }) => name).toSorted()).toEqual(names);
    const example = [...readFileSync(".env.example", "utf8").matchAll(/^# ([A-Z_]+)=/gm)].map(([, name]) => name);
    expect(example.toSorted()).toEqual(names);
  });

  test("have the right defaults; so has .env.example", () => {
    const example = readFileSync(".env.example", "utf8");
    const known = settings.filter(({ value }) => value !== undefined && !NO_VALUE.includes(value));
    expect(known.length).toBeGreaterThan(12);
    for (const { name, value } of known) {
      expect({ name, config: loadConfig({ [name]: value }) }).toEqual({ name, config: loadConfig({}) });
      expect(example).toMatch(new RegExp(`^# ${name}=${value}\\b`, "m"));
    }
  });

  test("name every operation of the document, and no other", async () => {
    const document = (await (await fetch(`${service.url}/openapi.json`)).json()) as {
      paths: Record<string, object>;
    };
    const operations = Object.entries(document.paths).flatMap(([path, item]) =>
      Object.keys(item)
        .filter((key) => key !== "parameters")
        .map((method) => `${method.toUpperCase()} ${path}`),
    );
    const named = rows(README).flatMap(([first = ""]) => {
      const method = /^`(GET|POST|PUT|PATCH|DELETE) \//.exec(first)?.[1];
      const paths = method === undefined ? [] : inBackticks(first);
      return paths.map((path) => `${method} ${path.replace(/^[A-Z]+ /, "").replace(/\?.*/, "")}`);
    });
    const OUTSIDE = ["GET /", "GET /docs", "GET /metrics", "GET /openapi.json"];
    expect([...new Set(named)].filter((one) => !OUTSIDE.includes(one)).toSorted()).toEqual(operations.toSorted());
  });
});

test("README names every command, and no other", () => {
  const help = Bun.spawnSync([...COMMAND, "--help"]).stdout.toString();
  const commands = Array.from(help.matchAll(/^ {2}([a-z]+)/gm), ([, name]) => name ?? "");
  const [, named = ""] = /Commands:([^.]*)\./.exec(README) ?? [];
  expect(inBackticks(named).toSorted()).toEqual(commands.toSorted());
});

test("the code tour names every file of src in its folder, and no other", () => {
  const tour = /^## Code tour\n\n```text\n(.*?)```/ms.exec(README)?.[1] ?? "";
  const folders = Array.from(tour.matchAll(/^(src\/\S*)(.*(?:\n .*)*)/gm), ([, folder = "", names = ""]) =>
    names
      .replace(/\([^)]*\)/g, "")
      .split(/[·,\n]/)
      .map((name) => `${folder}${name.trim()}.ts`),
  );
  const files = Array.from(new Bun.Glob("src/**/*.ts").scanSync()).filter((path) => !path.endsWith(".d.ts"));
  expect(folders.flat().toSorted()).toEqual(files.toSorted());
});

test("what README shows a front end is done once, changed as it was read, and cleared", async () => {
  const [, block = ""] = /^```js\n(.*?)^```/ms.exec(README) ?? [];
  const user = await service.newcomer();
  const headers = { authorization: `Bearer ${user.token}`, "content-type": "application/json" };
  const run = new AsyncFunction("tasks", "headers", `${block}\nreturn { id, changed, deleted };`);
  const { id, changed, deleted } = await run(user.path(""), headers);
  expect({ id, status: changed.status, deleted }).toEqual({
    id: expect.any(Number),
    status: 200,
    deleted: 1,
  });
  expect((await user.get(`/${id}`)).status).toBe(404);
});

/** The constructor of an `async` function, which has no name of its own. */
const AsyncFunction = (async () => {}).constructor as new (
  ...source: string[]
) => (tasks: string, headers: object) => Promise<{ id: number; changed: Response; deleted: number }>;
