import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Request } from "./scenarios.ts";

/** What one window of load measured. Latencies are in milliseconds. */
export interface Window {
  requests: number;
  seconds: number;
  p50: number;
  p99: number;
  /** How many were not answered with 2xx, and how many of them with 5xx, late or not at all. */
  refused: number;
  failed: number;
}

const directory = mkdtempSync(join(tmpdir(), "tasks-api-bench-"));
process.on("exit", () => rmSync(directory, { recursive: true, force: true }));

const wrk = Bun.which("wrk");

/** What generates the load. `wrk` (apt install wrk, brew install wrk) costs the servers least. */
export const generator = wrk ? "wrk" : "Bun";

/** As below. Fails if one of the requests is refused. */
export async function load(port: number, requests: Request[], connections: number, seconds: number) {
  const window = await attempt(port, requests, connections, seconds);
  if (window.refused + window.failed > 0)
    throw new Error(
      `${window.refused} of ${window.requests} requests to port ${port} were refused, ${window.failed} failed`,
    );
  return window;
}

let files = 0;

/**
 * Sends the requests to the port, over and over, as fast as they are answered, or with a pause (in milliseconds) of
 * each connection in between.
 */
export async function attempt(
  port: number,
  requests: Request[],
  connections: number,
  seconds: number,
  pause = 0,
): Promise<Window> {
  const file = join(directory, `requests-${files++}`);
  writeFileSync(file, requests.map((request) => asSent(request, port)).join("\0"));
  const script = join(import.meta.dir, "wrk.lua");
  const command = wrk
    ? [wrk, "-t1", `-c${connections}`, `-d${seconds}s`, "--timeout", "20s", "-s", script]
    : ["bun", join(import.meta.dir, "generator.ts"), String(connections), String(seconds)];
  const child = Bun.spawn([...command, `http://127.0.0.1:${port}`], {
    env: { ...process.env, REQUESTS: file, PAUSE: String(pause) },
    stdout: "pipe",
    stderr: "inherit",
  });
  const output = await new Response(child.stdout).text();
  rmSync(file);
  const result = output.split("\n").findLast((line) => line.startsWith("{"));
  if ((await child.exited) !== 0 || result === undefined) throw new Error(`${command[0]} failed: ${output}`);
  return JSON.parse(result);
}

export const asSent = ({ method, path, headers, body }: Request, port: number) =>
  [
    `${method} ${path} HTTP/1.1`,
    `host: 127.0.0.1:${port}`,
    ...Object.entries(headers).map(([name, value]) => `${name}: ${value}`),
    ...(body === undefined ? [] : [`content-length: ${Buffer.byteLength(body)}`]),
    "",
    body ?? "",
  ].join("\r\n");
