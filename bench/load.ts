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
}

const directory = mkdtempSync(join(tmpdir(), "tasks-api-bench-"));
process.on("exit", () => rmSync(directory, { recursive: true, force: true }));

const wrk = Bun.which("wrk");

/** What generates the load. `wrk` (apt install wrk, brew install wrk) costs the servers least. */
export const generator = wrk ? "wrk" : "Bun";

/** Sends the requests to the port, over and over, as fast as they are answered. Fails if one of them is refused. */
export async function load(
  port: number,
  requests: Request[],
  connections: number,
  seconds: number,
): Promise<Window> {
  const file = join(directory, `requests-${port}`);
  writeFileSync(file, requests.map((request) => asSent(request, port)).join("\0"));
  const command = wrk
    ? [
        wrk,
        "-t1",
        `-c${connections}`,
        `-d${seconds}s`,
        "--timeout",
        "20s",
        "-s",
        join(import.meta.dir, "wrk.lua"),
      ]
    : ["bun", join(import.meta.dir, "generator.ts"), String(connections), String(seconds)];
  const child = Bun.spawn([...command, `http://127.0.0.1:${port}`], {
    env: { ...process.env, REQUESTS: file },
    stdout: "pipe",
    stderr: "inherit",
  });
  const output = await new Response(child.stdout).text();
  const result = output.split("\n").findLast((line) => line.startsWith("{"));
  if ((await child.exited) !== 0 || result === undefined) throw new Error(`${command[0]} failed: ${output}`);
  const { errors, ...window } = JSON.parse(result);
  if (errors > 0) throw new Error(`${errors} of ${window.requests} requests to ${port} failed`);
  return window;
}

const asSent = ({ method, path, headers, body }: Request, port: number) =>
  [
    `${method} ${path} HTTP/1.1`,
    `host: 127.0.0.1:${port}`,
    ...Object.entries(headers).map(([name, value]) => `${name}: ${value}`),
    ...(body === undefined ? [] : [`content-length: ${Buffer.byteLength(body)}`]),
    "",
    body ?? "",
  ].join("\r\n");
