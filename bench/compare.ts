import { deepStrictEqual } from "node:assert";
import { type BenchDatabase, CROWD, type Crowd, makeDatabase } from "./data.ts";
import { load } from "./load.ts";
import { measure, median, type Sample } from "./measure.ts";
import { type Request, refusals, type Scenario, scenarios, WRITES } from "./scenarios.ts";
import { isThere, PEERS, type Server, type Side, start } from "./servers.ts";

export interface Windows {
  connections: number;
  seconds: number;
  rounds: number;
}

/** One scenario by side, the yardstick first, with the number of connections that it was fastest with. */
export interface Result {
  scenario: Scenario;
  pool: number | undefined;
  samples: Record<string, Sample[]>;
}

interface Contender {
  name: string;
  server: Server;
  database: BenchDatabase;
}

/** How many connections the yardstick is tried with. */
const POOLS = [1, 3, 6, 10];
/** Two of them are measured in any case: one connection, and what Bun.SQL has unless it is told otherwise. */
const ALWAYS: Record<number, string> = { 1: "by hand, one connection", 10: "by hand, ten connections" };

const answersTo = (name: string, scenario: Scenario) =>
  !PEERS.some((peer) => peer === name) || ["list20", "read", "create"].includes(scenario);

/**
 * The yardstick and the sides, each on a database of its own. The yardstick has had its pool tuned for each scenario,
 * and stands there with one connection and with ten as well.
 */
export async function contest(wanted: Side[], crowd: Crowd = CROWD) {
  const byHand = await makeDatabase("by hand", crowd);
  const yardsticks: (Contender & { pool: number })[] = [];
  for (const pool of POOLS) {
    const server = await start("yardstick", byHand.url, { POOL: String(pool) });
    yardsticks.push({ name: "yardstick", server, database: byHand, pool });
  }
  const always = yardsticks.flatMap((one): Contender[] => {
    const name = ALWAYS[one.pool];
    return name === undefined ? [] : [{ ...one, name }];
  });
  const others: Contender[] = [];
  for (const name of wanted) {
    if (!isThere(name)) {
      process.stderr.write(`${name} is left out: it can't be started here\n`);
      continue;
    }
    const database = await makeDatabase(name.startsWith("service") ? "service" : "by hand", crowd);
    others.push({ name, server: await start(name, database.url), database });
  }
  const all = scenarios(byHand.users);
  await answerAlike([...always, ...others], all, refusals(byHand.users));

  /** Takes turns, window by window. */
  async function run(scenario: Scenario, { connections, seconds, rounds }: Windows): Promise<Result> {
    const requests: Request[] = all[scenario];
    const rates: number[] = [];
    if (scenario !== "health")
      for (const { server } of yardsticks) rates.push((await measure(server, requests, connections, seconds)).rate);
    const best = yardsticks[rates.indexOf(Math.max(...rates))];
    const yardstick = best ?? (yardsticks[0] as Contender);
    const contenders = [yardstick, ...(best ? always : []), ...others.filter(({ name }) => answersTo(name, scenario))];
    const samples: Record<string, Sample[]> = {};
    for (const { server } of contenders.slice(1)) await load(server.port, requests, connections, 1);
    for (let round = 0; round < rounds; round++)
      for (const { name, server, database } of contenders) {
        if (round === 0 || scenario === "create" || scenario === "mix") await database.tidy();
        samples[name] ??= [];
        samples[name].push(await measure(server, requests, connections, seconds));
      }
    if (WRITES.includes(scenario)) for (const { database } of contenders) await database.tidy();
    const shares = Object.entries(samples).map(
      ([name, of]) => `${name} ${Math.round(median(of.map(({ rate }) => rate)))}/s`,
    );
    process.stderr.write(`${scenario}, ${connections}: ${shares.join(", ")}\n`);
    return { scenario, pool: best?.pool, samples };
  }

  /** Each side is asked so much of each scenario, and must refuse none of it. */
  async function ask(number: number) {
    for (const { name, server } of [...always, ...others])
      for (const [scenario, requests] of Object.entries(all) as [Scenario, Request[]][])
        if (answersTo(name, scenario)) {
          const left = requests.slice(0, number);
          const one = async () => {
            for (let request = left.pop(); request; request = left.pop()) {
              const answer = await send(request, server.port);
              await answer.arrayBuffer();
              if (!answer.ok) throw new Error(`${name} answers ${answer.status} to ${request.path}`);
            }
          };
          await Promise.all(Array.from({ length: 16 }, one));
        }
  }

  return { scenarios: Object.keys(all) as Scenario[], run, ask };
}

/** Fails unless every side gives the same answers, but for what can't be the same. */
async function answerAlike(
  sides: Contender[],
  all: ReturnType<typeof scenarios>,
  refused: ReturnType<typeof refusals>,
) {
  const requests = (Object.entries(all) as [Scenario, Request[]][]).flatMap(([scenario, round]) =>
    round.slice(0, 3).map((request) => ({ scenario, request })),
  );
  for (const { scenario, request } of [
    ...requests,
    ...refused.map((request) => ({ scenario: "mix" as const, request })),
  ]) {
    const answers: [string, unknown][] = [];
    for (const { name, server, database } of sides) {
      if (!answersTo(name, scenario)) continue;
      const id = /tasks\/(\d+)/.exec(request.path)?.[1];
      if (id !== undefined)
        await database.sql`update tasks set title = 'As it was', completed = false where id = ${id}`;
      answers.push([name, await answerTo(request, server.port)]);
    }
    for (const [name, answer] of answers)
      deepStrictEqual(answer, answers[0]?.[1], `${name} answers ${request.method} ${request.path} otherwise`);
  }
}

const send = ({ method, path, headers, body }: Request, port: number) =>
  fetch(`http://127.0.0.1:${port}${path}`, { method, headers, ...(body && { body }) });

async function answerTo(request: Request, port: number) {
  const answer = await send(request, port);
  const text = await answer.text();
  // How a refusal is worded is the service's own affair.
  if (!answer.ok) return answer.status;
  const changed = request.method !== "GET";
  return {
    status: answer.status,
    type: answer.headers.get("content-type")?.split(";")[0],
    total: answer.headers.get("x-total-count"),
    link: answer.headers.get("link"),
    location: answer.headers.get("location")?.replace(/\d+$/, "…"),
    body: JSON.parse(text, (name, value) => {
      if (name === "updated_at" || (changed && (name === "id" || name === "created_at"))) return "…";
      // Python writes the same moment in another way.
      return name === "created_at" ? new Date(value).toISOString() : value;
    }),
  };
}
