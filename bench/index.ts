/**
 * `bun run bench`: what the service costs beside a server written by hand, and as there is more to do. See README.md.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { devDependencies } from "../package.json";
import { ablation } from "./ablation.ts";
import { contest, type Result } from "./compare.ts";
import { CROWD, dropDatabases, SMALL_CROWD } from "./data.ts";
import { fairness } from "./fairness.ts";
import { growth } from "./growth.ts";
import { memory } from "./memory.ts";
import { neighbour } from "./neighbour.ts";
import { circumstances, comparison, picture, save, titleOf } from "./report.ts";
import type { Scenario } from "./scenarios.ts";
import { PEERS, type Side, stopAll } from "./servers.ts";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    /** How long a window is, how many there are of each side, over how many connections. */
    seconds: { type: "string", default: "1" },
    rounds: { type: "string", default: "7" },
    connections: { type: "string", default: "64" },
    minutes: { type: "string", default: "10" },
    /** Puts the result into README.md, here. */
    save: { type: "boolean", default: false },
  },
});
const [command = "compare", ...only] = positionals;
const [seconds, rounds, connections] = [values.seconds, values.rounds, values.connections].map(Number) as [
  number,
  number,
  number,
];
const SIDES: Side[] = ["by hand, coalesced", "service"];
const { fastify, pg, hono, postgres } = devDependencies;

if (values.save && only.length > 0) throw new Error("--save is for all scenarios");
const built = Bun.spawnSync(["bun", "run", "build"], { cwd: join(import.meta.dir, "..") });
if (!built.success) throw new Error(built.stderr.toString());

let cleaned: Promise<void> | undefined;
const cleanUp = () => {
  cleaned ??= stopAll().then(dropDatabases);
  return cleaned;
};
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => cleanUp().finally(() => process.exit(1)));

try {
  const report = `${await run()}\n\n${circumstances()}`;
  process.stdout.write(`${report}\n`);
  if (values.save) save(command, report);
} finally {
  await cleanUp();
}

async function run(): Promise<string> {
  const windows = `Medians of ${rounds} pairs of ${seconds} s windows, and their range.`;
  switch (command) {
    case "compare": {
      const { scenarios, run } = await contest([...SIDES, ...PEERS]);
      const results: Result[] = [];
      for (const scenario of chosen(scenarios)) results.push(await run(scenario, { connections, seconds, rounds }));
      if (values.save) writeFileSync(join(import.meta.dir, "results.svg"), picture(results));
      const versions = `Fastify ${fastify}, pg ${pg}, Hono ${hono}, postgres.js ${postgres}.`;
      return `${comparison(results)}\n\n${connections} connections. ${windows} ${versions}`;
    }
    case "connections": {
      const { run } = await contest(SIDES);
      const results: (Result & { title: string })[] = [];
      for (const scenario of chosen(["read", "list20", "toggle", "mix"]))
        for (const connections of [1, 8, 64, 512]) {
          const result = await run(scenario, { connections, seconds, rounds });
          const { "by hand, one connection": _, ...samples } = result.samples;
          results.push({ ...result, samples, title: `${titleOf(scenario)}, over ${connections}` });
        }
      return `${comparison(results)}\n\n${windows}`;
    }
    case "neighbour":
      return `${await neighbour(seconds, rounds)}\n\nMedians of ${rounds} windows of ${seconds} s.`;
    case "fairness":
      return fairness(CROWD, Math.max(seconds, 10), { only });
    case "ablation":
      return ablation();
    case "growth":
      return growth();
    case "memory":
      return memory(Number(values.minutes));
    case "smoke": {
      const { ask } = await contest([...SIDES, ...PEERS], SMALL_CROWD);
      await ask(100);
      await stopAll();
      return fairness(SMALL_CROWD, 2, { strict: true });
    }
    default:
      throw new Error(
        `there is no "${command}": compare [SCENARIO…], connections, neighbour, fairness, growth, memory, ablation or smoke`,
      );
  }
}

function chosen(all: Scenario[]): Scenario[] {
  const unknown = only.find((name) => !all.some((scenario) => scenario === name));
  if (unknown !== undefined) throw new Error(`there is no "${unknown}", but ${all.join(", ")}`);
  return only.length === 0 ? all : all.filter((scenario) => only.includes(scenario));
}
