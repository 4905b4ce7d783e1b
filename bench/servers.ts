import { closeSync, openSync, readdirSync, readFileSync, rmSync, truncateSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SETTINGS } from "./data.ts";

const root = join(import.meta.dir, "..");

const python = ["/usr/bin/python3", join(import.meta.dir, "peers/fastapi_app.py")];

/** What is measured, and how it is started. */
const SIDES = {
  yardstick: { command: ["bun", join(import.meta.dir, "yardstick.ts")] },
  "by hand, coalesced": {
    command: ["bun", join(import.meta.dir, "yardstick.ts")],
    settings: { COALESCE: "1", POOL: "6" },
  },
  service: { command: [join(root, "dist/tasks-api"), "serve"] },
  "service from source": { command: ["bun", join(root, "src/index.ts"), "serve"] },
  "Fastify + pg": { command: ["bun", join(import.meta.dir, "peers/fastify.ts")] },
  "Hono + postgres.js": { command: ["bun", join(import.meta.dir, "peers/hono.ts")] },
  "FastAPI + SQLModel": { command: python },
  floor: { command: ["bun", join(import.meta.dir, "floor.ts")] },
} satisfies Record<string, { command: string[]; settings?: Record<string, string> }>;

export type Side = keyof typeof SIDES;

/** Answer no more than three of the scenarios. */
export const PEERS: Side[] = ["Fastify + pg", "Hono + postgres.js", "FastAPI + SQLModel"];

/** Whether it can be started here: FastAPI needs Debian's packages (see README.md). */
export const isThere = (side: Side) =>
  side !== "FastAPI + SQLModel" || Bun.spawnSync([...python, "--check"], { stderr: "ignore" }).success;

export interface Server {
  name: Side;
  pid: number;
  port: number;
  /** Empties its log, which would fill the disk. */
  emptyLog(): void;
  stop(): Promise<void>;
}

const started = new Set<Server>();

/** Ends what is still running. */
export const stopAll = () => Promise.all([...started].map((server) => server.stop()));

/** Starts a server on a port of its own, as an operator would: its output goes to a file. */
export async function start(name: Side, databaseUrl: string, settings: Record<string, string> = {}): Promise<Server> {
  const port = freePort();
  const file = join(tmpdir(), `tasks-api-bench-${process.pid}-${port}.log`);
  const log = openSync(file, "a");
  const side: { command: string[]; settings?: Record<string, string> } = SIDES[name];
  const child = Bun.spawn(side.command, {
    env: {
      PATH: process.env.PATH,
      ...SETTINGS,
      DATABASE_URL: databaseUrl,
      HOST: "127.0.0.1",
      PORT: String(port),
      ...side.settings,
      ...settings,
    },
    stdout: log,
    stderr: "inherit",
  });
  closeSync(log);
  const server: Server = {
    name,
    pid: child.pid,
    port,
    emptyLog: () => truncateSync(file),
    async stop() {
      started.delete(server);
      child.kill("SIGINT");
      await child.exited;
      rmSync(file);
    },
  };
  started.add(server);
  // Those that have no such path are up when they say so.
  const isUp = () =>
    fetch(`http://127.0.0.1:${port}/health/ready`).then(
      ({ status }) => status !== 503,
      () => false,
    );
  for (let tries = 0; child.exitCode === null && tries < 200; tries++) {
    if (await isUp()) return server;
    await Bun.sleep(50);
  }
  throw new Error(`${name} does not start`);
}

/** On a port that is taken another server would be measured. */
function freePort(): number {
  const probe = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
  probe.stop(true);
  return probe.port;
}

/** CPU time that the process has used so far, user and system, in microseconds (10 ms apart). See proc(5). */
export function cpuOf(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) * 10_000;
}

/** The same, of each process of Postgres on this machine. None, if it is on another. */
export function cpuOfPostgres(): Map<string, number> {
  const used = new Map<string, number>();
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name)))
    try {
      if (readFileSync(`/proc/${pid}/comm`, "utf8").trim() === "postgres") used.set(pid, cpuOf(Number(pid)));
    } catch {} // It has ended meanwhile.
  return used;
}

/** Memory that the process has resident, in MiB. */
export const memoryOf = (pid: number) =>
  Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1024;
