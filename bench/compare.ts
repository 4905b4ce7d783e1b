import { deepStrictEqual } from "node:assert";
import type { BenchDatabase } from "./data.ts";
import { load } from "./load.ts";
import { measure, type Sample } from "./measure.ts";
import { type Request, refusals, scenarios } from "./scenarios.ts";
import { type Server, type Side, start } from "./servers.ts";

export interface Options {
  /** The first is the one that the others are measured by. */
  sides: Side[];
  connections: number;
  seconds: number;
  rounds: number;
  /** The scenarios; none for all. */
  only: string[];
  /** Whether there are sides that answer nothing but these scenarios. */
  partial?: boolean;
}

/** By scenario, and by side. */
export type Results = Record<string, Record<string, Sample[]>>;

/** One side against others, in windows that take turns. */
export async function compare(
  database: BenchDatabase,
  { sides, connections, seconds, rounds, only, partial = false }: Options,
): Promise<Results> {
  const { users, last } = await database.populate();
  const servers: Server[] = [];
  for (const name of sides) servers.push(await start(name, database.url));
  const all = scenarios(users);
  const unknown = only.find((name) => !(name in all));
  if (unknown !== undefined) throw new Error(`there is no "${unknown}", but ${Object.keys(all).join(", ")}`);
  const asked = Object.entries(all).filter(([scenario]) => only.length === 0 || only.includes(scenario));
  const alike = (partial ? asked : Object.entries(all)).flatMap(([, round]) => round.slice(0, 3));
  await answerAlike(servers, partial ? alike : [...alike, ...refusals(users)], database);

  const results: Results = {};
  for (const [scenario, requests] of asked) {
    const samples: Record<string, Sample[]> = Object.fromEntries(servers.map(({ name }) => [name, []]));
    for (const server of servers) await load(server.port, requests, connections, 1);
    for (let round = 0; round < rounds; round++)
      for (const server of servers) {
        await database.tidy(last);
        samples[server.name]?.push(await measure(server, requests, connections, seconds));
      }
    results[scenario] = samples;
    process.stderr.write(`${scenario} measured\n`);
  }
  return results;
}

/** Fails unless every side gives the same answers, but for what can't be the same. */
async function answerAlike(servers: Server[], requests: Request[], { sql }: BenchDatabase) {
  for (const request of requests) {
    const answers: unknown[] = [];
    for (const { port } of servers) {
      const id = /tasks\/(\d+)/.exec(request.path)?.[1];
      // Each side changes the same task, which must be as it was for the next.
      if (id !== undefined)
        await sql`update tasks set title = 'As it was', completed = false where id = ${id}`;
      answers.push(await answerTo(request, port));
    }
    for (const answer of answers) deepStrictEqual(answer, answers[0], `${request.method} ${request.path}`);
  }
}

async function answerTo({ method, path, headers, body }: Request, port: number) {
  const answer = await fetch(`http://127.0.0.1:${port}${path}`, { method, headers, ...(body && { body }) });
  const text = await answer.text();
  // How a refusal is worded is the service's own affair.
  if (!answer.ok) return answer.status;
  const made = answer.status === 201;
  return {
    status: answer.status,
    type: answer.headers.get("content-type")?.split(";")[0],
    total: answer.headers.get("x-total-count"),
    link: answer.headers.get("link"),
    location: answer.headers.get("location")?.replace(/\d+$/, "…"),
    body:
      made || method !== "GET"
        ? text.replace(/("updated_at":|"created_at":|"id":)("[^"]*"|\d+)/g, "$1…")
        : text,
  };
}
