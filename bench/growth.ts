import { relay } from "../tests/relay.ts";
import type { BenchDatabase, User } from "./data.ts";
import { measure, type Sample } from "./measure.ts";
import { table, titleOf } from "./report.ts";
import { type Request, request, scenarios } from "./scenarios.ts";
import { type Server, start } from "./servers.ts";

const WINDOW = 3;

/** What a request costs as there is more of everything. Returns the tables. */
export async function growth(database: BenchDatabase): Promise<string> {
  const { users } = await database.populate();
  const service = await start("binary", database.url);
  const near = scenarios(users);
  const rows: string[][] = [];
  const add = async (what: string, requests: Request[], server = service, connections = 64) => {
    await measure(server, requests, connections, 1);
    rows.push([what, ...figures(await measure(server, requests, connections, WINDOW))]);
    process.stderr.write(`${what}\n`);
  };

  for (const tasks of [20, 1000, 10_000]) {
    const some = await database.add(10, tasks);
    await database.tidy(Number.MAX_SAFE_INTEGER);
    await add(`first page of 10, list of ${tasks.toLocaleString("en")}`, pages(some));
    if (tasks < 1000) continue;
    const hundredth = await Promise.all(some.map((user) => pageOf(user, 100, service)));
    await add(`100th page of 10, list of ${tasks.toLocaleString("en")}`, hundredth);
  }

  const kinds = ["list20", "read", "create", "toggle"] as const;
  for (const kind of kinds) await add(`${titleOf(kind)}, 0.2 million rows`, near[kind]);
  await database.add(19_000, 100);
  await database.tidy(Number.MAX_SAFE_INTEGER);
  for (const kind of kinds) await add(`${titleOf(kind)}, 2 million rows`, near[kind]);

  for (const connections of [1, 64, 512])
    for (const kind of ["read", "mix"] as const)
      await add(
        `${titleOf(kind)}, ${connections} ${connections === 1 ? "connection" : "connections"}`,
        near[kind],
        service,
        connections,
      );

  const second = await start("binary", database.url);
  await measure(second, near.read, 32, 1);
  const pair = await Promise.all([service, second].map((one) => measure(one, near.read, 32, WINDOW)));
  rows.push([`${titleOf("read")}, 64 connections, two processes`, ...figures(together(pair))]);
  await Promise.all([service.stop(), second.stop()]);

  for (const distance of [5, 20]) {
    const { hostname, port } = new URL(database.url);
    const network = relay(Number(port || 5432), { hostname, roundTrip: distance });
    const url = Object.assign(new URL(database.url), { host: `127.0.0.1:${network.port}` }).href;
    const far = await start("binary", url);
    for (const kind of ["read", "mix"] as const)
      await add(`${titleOf(kind)}, Postgres ${distance} ms away`, near[kind], far);
    await far.stop();
    network.stop();
  }

  return table(["", "requests/s", "CPU, µs", "Postgres's CPU, µs", "p50, ms", "p99, ms"], rows);
}

/** Of servers that were measured at the same time. Postgres's CPU is all of it, for each of them. */
const together = (samples: Sample[]): Sample => {
  const mean = (what: keyof Sample) => samples.reduce((sum, s) => sum + s[what], 0) / samples.length;
  return {
    rate: mean("rate") * samples.length,
    cpu: mean("cpu"),
    postgres: mean("postgres") / samples.length,
    p50: mean("p50"),
    p99: Math.max(...samples.map(({ p99 }) => p99)),
  };
};

const figures = ({ rate, cpu, postgres, p50, p99 }: Sample) => [
  Math.round(rate).toLocaleString("en"),
  cpu.toFixed(0),
  postgres.toFixed(0),
  p50.toFixed(2),
  p99.toFixed(2),
];

const pages = (users: User[]) => users.map((user) => request(user, "GET", "?limit=10"));

/** The request for the nth page, found as a client finds it: by following `next`. */
async function pageOf(user: User, n: number, { port }: Server): Promise<Request> {
  let page = request(user, "GET", "?limit=10");
  for (let i = 1; i < n; i++) {
    const answer = await fetch(`http://127.0.0.1:${port}${page.path}`, { headers: page.headers });
    const path = /<(.*)>/.exec(answer.headers.get("link") ?? "")?.[1];
    if (path === undefined) throw new Error(`there is no page ${i + 1}`);
    page = { ...page, path };
  }
  return page;
}
