import { makeDatabase } from "./data.ts";
import { measure, ratio, type Sample } from "./measure.ts";
import { table, times } from "./report.ts";
import { type Server, start } from "./servers.ts";

/** What `/health` costs as one thing after another that the contract asks for is added. Returns the table. */
export async function ablation(): Promise<string> {
  const database = await makeDatabase("service", {});
  const steps: [string, () => Promise<Server>][] = [
    ["by hand", () => start("floor", database.url)],
    ["with a request id and three headers", () => start("floor", database.url, { WITH: "headers" })],
    ["and a line in the log", () => start("floor", database.url, { WITH: "headers,log" })],
    ["the service, without its log", () => start("service", database.url, { LOG_LEVEL: "ERROR" })],
    ["the service", () => start("service", database.url)],
  ];
  const servers: Server[] = [];
  const samples: Sample[][] = steps.map(() => []);
  for (const [, open] of steps) servers.push(await open());
  const requests = [{ method: "GET", path: "/health", headers: {} }];
  for (let round = 0; round < 12; round++)
    for (const [i, server] of servers.entries()) {
      const sample = await measure(server, requests, 64, 1);
      // The first is to warm up.
      if (round > 0) samples[i]?.push(sample);
    }
  return table(
    ["`/health`", "requests/s", "CPU"],
    steps.map(([name], i) => [
      name,
      times(ratio(samples[i] ?? [], samples[0] ?? [], "rate")),
      times(ratio(samples[i] ?? [], samples[0] ?? [], "cpu")),
    ]),
  );
}
