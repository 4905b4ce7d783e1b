/** One client that harms others, for so many seconds: a process of its own, started by fairness.ts. */
import { readFileSync } from "node:fs";
import { asSent } from "./load.ts";
import type { Request } from "./scenarios.ts";

const [kind, port = "", seconds, file = ""] = process.argv.slice(2);
const requests: Request[] = JSON.parse(readFileSync(file, "utf8"));
const end = performance.now() + Number(seconds) * 1000;
const hostname = "127.0.0.1";
const statuses: Record<string, number> = {};
/** How long refusals (429 and 503) took, in milliseconds. */
const refusals: number[] = [];
let turn = 0;
const next = () => requests[turn++ % requests.length] as Request;

/** Keeps so many requests under way, each with a pause after the one before. */
const ask = (underWay: number, pause: number) =>
  times(underWay, async () => {
    const { path, method, headers, body } = next();
    const since = performance.now();
    const answer = await fetch(`http://${hostname}:${port}${path}`, {
      method,
      headers,
      ...(body && { body }),
    });
    await answer.arrayBuffer();
    statuses[answer.status] = (statuses[answer.status] ?? 0) + 1;
    if (answer.status === 429 || answer.status === 503) refusals.push(performance.now() - since);
    await Bun.sleep(pause);
  });

/** Sends a request on a new connection, reads nothing of the answer, and hangs up after so many milliseconds. */
const leave = (connections: number, after: number) =>
  times(connections, async () => {
    const socket = await Bun.connect({ hostname, port: Number(port), socket: { data() {}, error() {} } });
    socket.pause();
    socket.write(asSent(next(), Number(port)));
    await Bun.sleep(after);
    socket.terminate();
  });

const times = (number: number, work: () => Promise<void>) =>
  Promise.all(
    Array.from({ length: number }, async () => {
      while (performance.now() < end) await work();
    }),
  );

switch (kind) {
  case "hog":
    await ask(50, 20);
    break;
  case "unread":
    await leave(200, 2500);
    break;
  case "hang-up":
    await leave(20, 5);
    break;
  case "bombs":
    await ask(8, 0);
    break;
  case "flood":
    await ask(50, 100);
    break;
}
refusals.sort((a, b) => a - b);
const p99 = refusals[Math.floor(refusals.length * 0.99)];
process.stdout.write(`${JSON.stringify({ statuses, refused: refusals.length, p99 })}\n`);
process.exit();
