import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import {
  constants,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { dependencies } from "../../package.json";
import type { Task } from "../../src/tasks/model.ts";
import { databaseSettings, hasServer } from "../database.ts";
import { COMMAND, listening, SETTINGS, spawnService } from "../harness.ts";

// Processes and databases take their time on a machine that does other things too.
setDefaultTimeout(60_000);

const command = COMMAND.map((part) => (existsSync(part) ? resolve(part) : part));
const { BETTER_AUTH_SECRET } = SETTINGS;
const folders: string[] = [];
const emptyFolder = () => {
  const folder = mkdtempSync(join(tmpdir(), "tasks-api-"));
  folders.push(folder);
  return folder;
};
afterAll(() => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

/** Runs a command to its end, in an empty folder unless another is given. */
async function run(words: string[], settings: Record<string, string> = {}, cwd = emptyFolder()) {
  const began = performance.now();
  const child = Bun.spawn([...command, ...words], {
    cwd,
    env: { PATH: process.env.PATH, ...settings },
    stdout: "pipe",
    stderr: "pipe",
  });
  const [out, err, exitCode] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { out, err, exitCode, seconds: (performance.now() - began) / 1000 };
}

/** A newcomer's start: no settings but a port. Ends it after `use`. */
async function firstStart(cwd: string, use: (service: { url: string; welcome: () => string }) => Promise<void>) {
  const child = Bun.spawn([...command], {
    cwd,
    env: { PATH: process.env.PATH, PORT: "0" },
    stdout: "pipe",
    stderr: "pipe",
  });
  let welcome = "";
  let url = "";
  for await (const chunk of child.stderr.pipeThrough(new TextDecoderStream())) {
    welcome += chunk;
    url = /Tasks API\s+(\S+)/.exec(welcome)?.[1] ?? "";
    if (welcome.includes("Authorization") || welcome.includes("another process")) break;
  }
  try {
    await use({ url, welcome: () => welcome });
  } finally {
    child.kill("SIGINT");
    await child.exited;
  }
}

describe("the first start", () => {
  test("prints a curl that works as it stands, and what it made is kept for a second start", async () => {
    const cwd = emptyFolder();
    const curl = (text: string) => (/curl.*$/s.exec(text)?.[0] ?? "").trim();
    await firstStart(cwd, async ({ welcome }) => {
      const { stdout } = Bun.spawn(["sh", "-c", curl(welcome())], { stdout: "pipe", stderr: "ignore" });
      expect(JSON.parse(await stdout.text())).toMatchObject({ user_id: "demo", title: "Buy milk" });
      expect(welcome()).toContain("/docs");
      expect(welcome()).toContain(join(cwd, ".data"));
    });
    expect(statSync(join(cwd, ".data")).mode & 0o777).toBe(0o700);
    expect(statSync(join(cwd, ".data/secret")).mode & 0o777).toBe(0o600);
    const secret = readFileSync(join(cwd, ".data/secret"), "utf8");
    const { out: token } = await run(["token", "demo"], {}, cwd);
    await firstStart(cwd, async ({ url }) => {
      const answer = await fetch(`${url}/api/demo/tasks`, {
        headers: { authorization: `Bearer ${token.trim()}` },
      });
      expect(((await answer.json()) as Task[]).map(({ title }) => title)).toEqual(["Buy milk"]);
    });
    expect(readFileSync(join(cwd, ".data/secret"), "utf8")).toBe(secret);
  });

  test("that is killed at any moment leaves nothing that a second one stumbles over", async () => {
    const cwd = emptyFolder();
    for (const milliseconds of [300, 900, 1500, 2500]) {
      const child = Bun.spawn([...command], {
        cwd,
        env: { PATH: process.env.PATH, PORT: "0" },
        stdout: "ignore",
        stderr: "ignore",
      });
      await Bun.sleep(milliseconds);
      child.kill("SIGKILL");
      await child.exited;
    }
    await firstStart(cwd, async ({ url }) => {
      expect((await fetch(`${url}/health/ready`)).status).toBe(200);
    });
  });
});

describe("the embedded database", () => {
  test("loses nothing acknowledged in five kills under eight writers", async () => {
    const settings = { DATABASE_URL: `pglite://${emptyFolder()}/data` };
    const acknowledged: number[] = [];
    for (let round = 0; round < 5; round++) {
      const service = await spawnService(settings);
      const user = await service.newcomer("writer");
      const until = performance.now() + 400;
      const writers = Array.from({ length: 8 }, async () => {
        while (performance.now() < until + 1000) {
          const answer = await user.post({ title: "x" }).catch(() => undefined);
          if (answer === undefined) return;
          const task = (await answer.json().catch(() => undefined)) as Task | undefined;
          if (task === undefined) return;
          acknowledged.push(task.id);
        }
      });
      await Bun.sleep(400);
      service.child.kill("SIGKILL");
      await Promise.all([...writers, service.child.exited]);
    }
    const service = await spawnService(settings);
    const user = await service.newcomer("writer");
    const found = new Set<number>();
    for (let url: string | undefined = user.path("?limit=1000"); url !== undefined; ) {
      const answer: Response = await fetch(url, { headers: { authorization: `Bearer ${user.token}` } });
      for (const { id } of (await answer.json()) as Task[]) found.add(id);
      const link: string | undefined = /<([^>]+)>/.exec(answer.headers.get("link") ?? "")?.[1];
      url = link && new URL(link, url).href;
    }
    expect(acknowledged.length).toBeGreaterThan(40);
    expect(acknowledged.filter((id) => !found.has(id))).toEqual([]);
    expect(await service.stop()).toBe(0);
  });

  test("is refused to a second process, in a clear line, and free again after a kill", async () => {
    const settings = { DATABASE_URL: `pglite://${emptyFolder()}/data` };
    const first = await spawnService(settings);
    const second = await run(["serve"], { ...SETTINGS, ...settings, PORT: "0" });
    expect([second.exitCode, second.err]).toEqual([1, expect.stringMatching(/in use by another process.*\n$/)]);
    first.child.kill("SIGKILL");
    await first.child.exited;
    expect(await (await spawnService(settings)).stop()).toBe(0);
  });
});

describe("a start is refused", () => {
  test("once where a full disk left the made-up secret empty, and never again", async () => {
    const cwd = emptyFolder();
    mkdirSync(join(cwd, ".data"));
    writeFileSync(join(cwd, ".data/secret"), "");
    const refused = await run(["token", "demo"], {}, cwd);
    expect([refused.exitCode, refused.out, refused.err]).toEqual([1, "", expect.stringContaining("can't be kept")]);
    expect((await run(["token", "demo"], {}, cwd)).out).toStartWith("eyJ");
  });

  test("at once, with every mistake named", async () => {
    const bad = { ENVIRONMENT: "production", PORT: "x", LOG_LEVEL: "x", BETTER_AUTH_SECRET: "hunter2" };
    const { exitCode, out, err, seconds } = await run(["serve"], bad);
    expect([exitCode, out]).toEqual([1, ""]);
    for (const name of ["PORT", "LOG_LEVEL", "BETTER_AUTH_SECRET", "DATABASE_URL"]) expect(err).toContain(name);
    expect(err).not.toContain("hunter2");
    // Half a second, and room for a busy machine.
    expect(seconds).toBeLessThan(5);
  });

  test("on a port that is taken", async () => {
    const service = await spawnService();
    const { exitCode, err } = await run(["serve"], {
      ...SETTINGS,
      HOST: "127.0.0.1",
      PORT: new URL(service.url).port,
    });
    expect([exitCode, err]).toEqual([1, expect.stringContaining("port")]);
    await service.stop();
  });
});

describe("Bun itself refuses, with no word of ours and no line in the log,", () => {
  const head = "Host: localhost\r\nConnection: close\r\n";
  test.each([
    ["broken HTTP/1.1", `GET /health HTTP/1.1\r\n${head}no colon\r\n\r\n`, 400],
    ["headers over 16 KiB", `GET /health HTTP/1.1\r\n${head}X: ${"x".repeat(17_000)}\r\n\r\n`, 431],
    ["a body over 16 MiB", `POST /health HTTP/1.1\r\n${head}Content-Length: ${2 ** 24 + 1}\r\n\r\n`, 413],
  ])("%s", async (_, sent, status) => {
    const { url, lines, stop } = await spawnService();
    const answer: Buffer[] = [];
    const closed = Promise.withResolvers<void>();
    const socket = { data: (_: unknown, bytes: Buffer) => void answer.push(bytes), close: () => closed.resolve() };
    (await Bun.connect({ hostname: "localhost", port: Number(new URL(url).port), socket })).write(sent);
    await closed.promise;
    expect(Buffer.concat(answer).toString()).toMatch(new RegExp(`^HTTP/1.1 ${status} [^{]*$`));
    await Bun.sleep(300);
    expect(lines.filter((line) => line.includes('"request"') && !line.includes("/health/ready"))).toEqual([]);
    await stop();
  });
});

describe("readiness says what is missing:", () => {
  const ready = async (url: string) => {
    const answer = await fetch(`${url}/health/ready`);
    return [answer.status, ((await answer.json()) as { detail?: string }).detail];
  };

  test("the table, until somebody has migrated", async () => {
    const settings = await databaseSettings();
    const service = await spawnService({ ...settings, DB_MIGRATE_ON_START: "False" }, "listening");
    expect(await ready(service.url)).toEqual([503, expect.stringMatching(/table.*tasks-api migrate/)]);
    while (!service.lines.some((line) => line.includes("tasks-api migrate"))) await Bun.sleep(50);
    await Bun.sleep(1_500);
    expect(service.lines.filter((line) => line.includes("tasks-api migrate"))).toHaveLength(1);
    await service.stop();
  });

  test.skipIf(!hasServer)("nothing, once somebody has migrated", async () => {
    const settings = await databaseSettings();
    const service = await spawnService({ ...settings, DB_MIGRATE_ON_START: "False" }, "listening");
    expect((await ready(service.url))[0]).toBe(503);
    expect((await run(["migrate"], { ...SETTINGS, ...settings })).exitCode).toBe(0);
    while ((await ready(service.url))[0] !== 200) await Bun.sleep(100);
    await service.stop();
  });

  test("the database", async () => {
    const service = await spawnService({ DATABASE_URL: "postgres://nobody@127.0.0.1:1/none" }, "listening");
    expect(await ready(service.url)).toEqual([503, "The database does not answer"]);
    await service.stop();
  });

  test("the end of the start, though the table is there", async () => {
    const app = listening({ phase: () => "starting" });
    expect(await ready(app.url)).toEqual([503, "The service is starting"]);
    await app.stop();
  });
});

describe("in production", () => {
  const production = { ENVIRONMENT: "production", DATABASE_URL: "memory://", BETTER_AUTH_SECRET };

  test.each(["production", "staging"])(
    "(%s) nothing is printed but the log: no token, no curl; and METRICS=True is heeded",
    async (ENVIRONMENT) => {
      const taken = Bun.serve({ port: 0, fetch: () => new Response() });
      const { port } = taken;
      await taken.stop(true);
      const env = {
        PATH: process.env.PATH,
        ...production,
        ENVIRONMENT,
        METRICS: "True",
        HOST: "127.0.0.1",
        PORT: String(port),
      };
      const child = Bun.spawn([...command, "serve"], {
        cwd: emptyFolder(),
        env,
        stdout: "pipe",
        stderr: "pipe",
      });
      const isReady = () =>
        fetch(`http://127.0.0.1:${port}/health/ready`).then(
          ({ ok }) => ok,
          () => false,
        );
      while (!(await isReady())) await Bun.sleep(50);
      expect((await fetch(`http://127.0.0.1:${port}/metrics`)).status).toBe(200);
      // In development the welcome follows now.
      await Bun.sleep(500);
      child.kill("SIGINT");
      const log = await child.stdout.text();
      expect(await child.stderr.text()).toBe("");
      expect(log).not.toMatch(/curl|Bearer|eyJ/);
      for (const line of log.trim().split("\n")) expect(JSON.parse(line)).toMatchObject({ level: "INFO" });
    },
  );

  test("the token command refuses", async () => {
    const { exitCode, out, err } = await run(["token", "demo"], production);
    expect([exitCode, out, err]).toEqual([1, "", expect.stringContaining("Better Auth")]);
  });
});

describe("the log", () => {
  test("has a line for each request, with nothing in it that is anyone's business", async () => {
    const service = await spawnService({ LOG_LEVEL: "debug" });
    const user = await service.newcomer();
    const { id } = await user.task({ title: "a private title", description: "a private description" });
    await user.get("?search=private&x=y", { "x-request-id": "given" });
    await user.put(id, { title: 5 });
    await fetch(user.path(), { headers: { authorization: "Bearer private", "x-request-id": "refused" } });
    await service.stop();
    const lines = service.lines.map((line) => JSON.parse(line));
    expect(lines.find(({ request_id }) => request_id === "given")).toEqual({
      level: "INFO",
      time: expect.stringMatching(/^\d{4}-.*Z$/),
      method: "GET",
      path: `/api/${user.id}/tasks`,
      status: 200,
      duration_ms: expect.any(Number),
      request_id: "given",
      user_id: user.id,
      message: "request",
    });
    // Who it was is known only of those who were let in.
    expect(lines.find(({ request_id, message }) => request_id === "refused" && message === "request")).toEqual({
      level: "INFO",
      time: expect.any(String),
      method: "GET",
      path: `/api/${user.id}/tasks`,
      status: 401,
      duration_ms: expect.any(Number),
      request_id: "refused",
      message: "request",
    });
    // Why is a line before it, which is there with LOG_LEVEL=WARNING too.
    expect(lines.find(({ message }) => message.startsWith("refused: "))).toMatchObject({
      level: "WARNING",
      request_id: "refused",
    });
    const all = service.lines.join("\n");
    expect(all).not.toMatch(/private|search|select |insert /);
    expect(all).not.toContain(user.token);
    expect(all).not.toContain(BETTER_AUTH_SECRET);
  });

  test("holds little while nobody reads it: the service goes on, and the log says what it lacks", async () => {
    const pipe = join(emptyFolder(), "log");
    Bun.spawnSync(["mkfifo", pipe]);
    // Opened for reading as well, it doesn't wait for the other side.
    const reader = openSync(pipe, constants.O_RDWR | constants.O_NONBLOCK);
    const probe = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => new Response() });
    const { port = 0 } = probe;
    await probe.stop(true);
    const child = Bun.spawn([...command, "serve"], {
      env: { PATH: process.env.PATH, ...SETTINGS, LOG_LEVEL: "INFO", HOST: "127.0.0.1", PORT: `${port}` },
      stdout: openSync(pipe, "w"),
    });
    const url = `http://127.0.0.1:${port}`;
    while ((await fetch(`${url}/health`).catch(() => undefined))?.status !== 200) await Bun.sleep(50);
    const before = residentBytes(child.pid);

    const long = `/${"x".repeat(10_000)}`;
    for (let round = 0; round < 400; round++)
      await Promise.all(Array.from({ length: 100 }, () => fetch(url + long).then((answer) => answer.text())));
    expect((await fetch(`${url}/health`)).status).toBe(200);
    expect(residentBytes(child.pid) - before).toBeLessThan(100 * 1024 * 1024);

    let text = "";
    const buffer = new Uint8Array(64 * 1024);
    const read = () => {
      try {
        return readSync(reader, buffer);
      } catch {
        return 0;
      }
    };
    while (!text.includes("lines were dropped")) {
      const length = read();
      text += new TextDecoder().decode(buffer.subarray(0, length));
      if (length === 0) await Bun.sleep(10);
    }
    child.kill("SIGINT");
    expect(await child.exited).toBe(0);
    const lines = text
      .split("\n")
      .slice(0, -1)
      .map((line) => JSON.parse(line));
    const dropped: number = lines.find(({ level }) => level === "WARNING").dropped;
    const written = lines.filter(({ status }) => status === 404);
    expect(dropped).toBeGreaterThan(0);
    expect(written.length + dropped).toBeGreaterThanOrEqual(40_000);
    expect(written[0].path).toBe(`${long.slice(0, 200)}…`);
  });
});

const residentBytes = (pid: number) =>
  Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) * 1024;

describe("a command", () => {
  test.each([
    [["nonsense"], 2, /no command "nonsense"/],
    [["--nonsense"], 2, /no option --nonsense/],
    [["token"], 2, /USER_ID/],
    [["token", "ada", "eve"], 2, /takes USER_ID/],
    [["migrate", "now"], 2, /no argument/],
    [["health", "http://127.0.0.1:1/", "more"], 2, /takes \[URL\]/],
    [["health", "http://127.0.0.1:1/"], 1, /./],
  ])("%p exits %d and says why", async (words, code, why) => {
    const { exitCode, out, err } = await run(words);
    expect([exitCode, out, err]).toEqual([code, "", expect.stringMatching(why)]);
  });

  test.each([
    "--help",
    "serve --help",
    "migrate --help",
    "token --help",
    "health --help",
    "openapi --help",
    "licenses --help",
    "--version",
  ])("%s exits 0 and prints", async (words) => {
    const { exitCode, out } = await run(words.split(" "));
    expect([exitCode, out.trim().length > 0]).toEqual([0, true]);
  });

  test("token makes up no secret where a JWKS is set", async () => {
    const cwd = emptyFolder();
    const { exitCode, out, err } = await run(["token", "demo"], { BETTER_AUTH_JWKS_URL: "http://127.0.0.1:1/" }, cwd);
    expect([exitCode, out, err]).toEqual([1, "", expect.stringContaining("a JWKS holds no private key")]);
    expect(existsSync(join(cwd, ".data"))).toBe(false);
  });

  test("health tells whether the service is up", async () => {
    const service = await spawnService();
    const { port } = new URL(service.url);
    expect((await run(["health"], { PORT: port })).exitCode).toBe(0);
    expect((await run(["health", `${service.url}/nope`])).exitCode).toBe(1);
    await service.stop();
    expect((await run(["health"], { PORT: port })).exitCode).toBe(1);
  });

  test("health gives up on what takes the request and says nothing", async () => {
    const silent = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      idleTimeout: 60,
      fetch: () => Bun.sleep(15_000).then(() => new Response()),
    });
    const { exitCode, out, err } = await run(["health", silent.url.href]);
    expect([exitCode, out, err]).toEqual([1, "", expect.stringContaining("timed out")]);
    await silent.stop(true);
  });

  test("health asks the service on this machine, whatever proxy is set and whatever address it has", async () => {
    const elsewhere = { HTTP_PROXY: "http://127.0.0.1:1", http_proxy: "http://127.0.0.1:1" };
    const service = await spawnService({ HOST: "::1" });
    const { port } = new URL(service.url);
    expect((await run(["health"], { PORT: port, HOST: "::1", ...elsewhere })).exitCode).toBe(0);
    await service.stop();
  });

  test("health asks whether the process is up, not whether its database is", async () => {
    const service = await spawnService({ DATABASE_URL: "postgres://nobody@127.0.0.1:1/none" }, "listening");
    expect((await fetch(`${service.url}/health/ready`)).status).toBe(503);
    expect((await run(["health"], { PORT: new URL(service.url).port })).exitCode).toBe(0);
    await service.stop();
  });

  test("licenses prints those of Bun, PostgreSQL and every dependency, with its version and text", async () => {
    const { exitCode, out } = await run(["licenses"]);
    expect(exitCode).toBe(0);
    expect(out).toStartWith("Bun 1.");
    expect(out).toMatch(/^PostgreSQL 18.*\n\nPortions Copyright/m);
    for (const [name, version] of Object.entries(dependencies))
      expect(out).toMatch(new RegExp(`^${name} ${version} \\([\\w.-]+\\)\\n\\n\\s*\\S`, "m"));
    // One that only another dependency needs.
    expect(out).toMatch(/^cookie [\d.]+ \(MIT\)\n\n\(The MIT License\)/m);
    expect(out).not.toMatch(/undefined|^@biomejs/m);
  });

  test("openapi prints the document that is served", async () => {
    const service = await spawnService();
    const served = await (await fetch(`${service.url}/openapi.json`)).json();
    expect(JSON.parse((await run(["openapi"])).out)).toEqual(served);
    // A pipe takes it piece by piece.
    const file = join(emptyFolder(), "openapi.json");
    const words = [...command, "openapi"].map((word) => `'${word}'`).join(" ");
    await Bun.spawn(["sh", "-c", `${words} | (sleep 0.2; cat) > ${file}`], { env: { PATH: process.env.PATH } }).exited;
    expect(await Bun.file(file).json()).toEqual(served);
    await service.stop();
  });
});

test.skipIf(process.env.TEST_COMMAND === undefined)(
  "the built program takes nothing from the folder it starts in",
  async () => {
    const cwd = emptyFolder();
    writeFileSync(join(cwd, ".env"), "PORT=nonsense\n");
    writeFileSync(join(cwd, "bunfig.toml"), 'preload = ["./preload.ts"]\n');
    writeFileSync(join(cwd, "preload.ts"), "process.exit(7);\n");
    const { exitCode, out } = await run(["token", "demo"], { BETTER_AUTH_SECRET }, cwd);
    expect([exitCode, out]).toEqual([0, expect.stringMatching(/^eyJ/)]);
  },
);
