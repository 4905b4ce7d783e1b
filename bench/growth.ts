import { neonProxy } from "../tests/neon-proxy.ts";
import { relay } from "../tests/relay.ts";
import { CROWD, makeDatabase, type User } from "./data.ts";
import { measure, type Sample } from "./measure.ts";
import { table, titleOf } from "./report.ts";
import { type Request, request, scenarios } from "./scenarios.ts";
import { type Server, start } from "./servers.ts";

const WINDOW = 2;

/** What a request costs as there is more of everything. Returns the tables. */
export async function growth(): Promise<string> {
  const database = await makeDatabase("service", CROWD);
  const service = await start("service", database.url);
  const near = scenarios(database.users);
  const rows: string[][] = [];
  const add = async (what: string, requests: Request[], server = service, connections = 64) => {
    await measure(server, requests, connections, 1);
    rows.push([what, ...figures(await measure(server, requests, connections, WINDOW))]);
    process.stderr.write(`${what}\n`);
  };

  for (const [tasks, users] of [
    [20, 1000],
    [1000, 200],
    [10_000, 40],
  ] as const) {
    const some = await database.add(users, tasks);
    await database.tidy();
    await add(`first page of 10, list of ${tasks.toLocaleString("en")}`, pages(some));
    if (tasks < 1000) continue;
    const hundredth = await Promise.all(some.map((user) => pageOf(user, 100, service)));
    await add(`100th page of 10, list of ${tasks.toLocaleString("en")}`, hundredth);
  }

  const kinds = ["list20", "read", "create", "toggle"] as const;
  for (const more of [0, 20_000]) {
    if (more > 0) await database.add(more, 100);
    await database.tidy();
    const millions = (database.rows() / 1e6).toFixed(1);
    for (const kind of kinds) await add(`${titleOf(kind)}, ${millions} million rows`, near[kind]);
  }

  const second = await start("service", database.url);
  await measure(second, near.read, 32, 1);
  const pair = await Promise.all([service, second].map((one) => measure(one, near.read, 32, WINDOW)));
  rows.push([`${titleOf("read")}, 64 connections, two processes`, ...figures(together(pair))]);
  await Promise.all([service.stop(), second.stop()]);

  const proxy = neonProxy();
  const drivers: [string, Record<string, string>][] = [
    ["Bun's driver", {}],
    ["Neon's driver", { NEON_WSPROXY: proxy.address, DB_DRIVER: "neon" }],
  ];
  for (const distance of [0, 5, 20])
    for (const [driver, settings] of drivers) {
      const { hostname, port } = new URL(database.url);
      const network = relay(Number(port || 5432), { hostname, roundTrip: distance });
      const url = Object.assign(new URL(database.url), { host: `127.0.0.1:${network.port}` }).href;
      const far = await start("service", url, settings);
      for (const kind of ["read", "list20", "toggle", "mix"] as const)
        await add(`${titleOf(kind)}, ${driver}, ${distance} ms away`, near[kind], far);
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
    together: mean("together"),
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
