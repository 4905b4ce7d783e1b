/** What stands in for wrk where there is none: sends the requests of REQUESTS in turn over so many connections. */
import { readFileSync } from "node:fs";

const [connections = "1", seconds = "1", url = ""] = process.argv.slice(2);
const { hostname, port } = new URL(url);
const requests = readFileSync(process.env.REQUESTS ?? "")
  .toString("latin1")
  .split("\0");

const latencies: number[] = [];
const pause = Number(process.env.PAUSE);
let refused = 0;
let failed = 0;
let next = 0;
const began = performance.now();
const end = began + Number(seconds) * 1000;

await Promise.all(Array.from({ length: Number(connections) }, () => run()));
const took = (performance.now() - began) / 1000;
latencies.sort((a, b) => a - b);
const at = (share: number) => latencies[Math.floor(latencies.length * share)] ?? 0;
process.stdout.write(
  `${JSON.stringify({ requests: latencies.length, seconds: took, p50: at(0.5), p99: at(0.99), refused, failed })}\n`,
);

/** One connection, with one request on its way at a time. */
function run(): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  let since = 0;
  let received = "";
  const send = (socket: Bun.Socket) => {
    since = performance.now();
    if (since > end) return void socket.end();
    socket.write(Buffer.from(requests[next++ % requests.length] ?? "", "latin1"));
  };
  Bun.connect({
    hostname,
    port: Number(port),
    socket: {
      open: send,
      data(socket, chunk) {
        received += chunk.toString("latin1");
        const head = received.indexOf("\r\n\r\n");
        if (head < 0) return;
        const length = Number(/content-length: (\d+)/i.exec(received.slice(0, head))?.[1] ?? 0);
        if (received.length < head + 4 + length) return;
        latencies.push(performance.now() - since);
        if (received.slice(9, 12) >= "500") failed++;
        else if (received.slice(9, 12) >= "300") refused++;
        received = "";
        if (pause > 0) setTimeout(send, pause, socket);
        else send(socket);
      },
      close: () => resolve(),
      error: () => void failed++,
    },
  }).catch(() => {
    failed++;
    resolve();
  });
  return promise;
}
