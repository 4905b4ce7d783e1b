/** `bun run bench`: what the service costs beside a server written by hand, and as there is more to do. See README.md. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { devDependencies } from "../package.json";
import { ablation } from "./ablation.ts";
import { compare } from "./compare.ts";
import { makeDatabase } from "./data.ts";
import { growth } from "./growth.ts";
import { memory } from "./memory.ts";
import { circumstances, comparison, picture, save } from "./report.ts";
import { type Side, stopAll } from "./servers.ts";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    /** Of the comparison: how long a window is, how many there are of each side, over how many connections. */
    seconds: { type: "string", default: "3" },
    rounds: { type: "string", default: "7" },
    connections: { type: "string", default: "64" },
    minutes: { type: "string", default: "10" },
    /** Puts the result into README.md. */
    save: { type: "boolean", default: false },
  },
});
const [command = "compare", ...only] = positionals;

if (values.save && only.length > 0) throw new Error("--save is for all scenarios");
const built = Bun.spawnSync(["bun", "run", "build"], { cwd: join(import.meta.dir, "..") });
if (!built.success) throw new Error(built.stderr.toString());

const database = await makeDatabase();
let cleaned: Promise<void> | undefined;
const cleanUp = () => {
  cleaned ??= stopAll().then(database.drop);
  return cleaned;
};
for (const signal of ["SIGINT", "SIGTERM"])
  process.on(signal, () => cleanUp().finally(() => process.exit(1)));

try {
  const report = await run();
  process.stdout.write(`${report}\n`);
  if (values.save) save(command, report);
} finally {
  await cleanUp();
}

async function run(): Promise<string> {
  const [seconds, rounds] = [Number(values.seconds), Number(values.rounds)];
  const connections = Number(values.connections);
  const load = { seconds, rounds, connections };
  const windows = `${connections} connections; medians of ${rounds} pairs of ${seconds} s windows, and their range.`;
  switch (command) {
    case "compare": {
      const sides: Side[] = ["yardstick", "source", "binary"];
      const results = await compare(database, { sides, only, ...load });
      if (values.save) writeFileSync(join(import.meta.dir, "results.svg"), picture(results));
      return `${comparison(results)}\n\n${circumstances(database)} ${windows}`;
    }
    case "peers": {
      const sides: Side[] = ["yardstick", "binary", "Fastify + pg", "Hono + postgres.js"];
      const three = ["list20", "read", "create"];
      const results = await compare(database, { sides, only: three, partial: true, ...load });
      const { fastify, pg, hono, postgres } = devDependencies;
      const versions = `Fastify ${fastify}, pg ${pg}, Hono ${hono}, postgres.js ${postgres}.`;
      return `${comparison(results)}\n\n${circumstances(database)} ${versions} ${windows}`;
    }
    case "ablation":
      return `${await ablation(database)}\n\n${circumstances(database)}`;
    case "growth":
      return `${await growth(database)}\n\n${circumstances(database)}`;
    case "memory":
      return `${await memory(database, Number(values.minutes))}\n\n${circumstances(database)}`;
    default:
      throw new Error(`there is no "${command}": compare [SCENARIO…], peers, ablation, growth or memory`);
  }
}
