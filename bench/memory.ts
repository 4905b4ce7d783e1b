import { makeDatabase } from "./data.ts";
import { load } from "./load.ts";
import { table } from "./report.ts";
import { scenarios } from "./scenarios.ts";
import { memoryOf, start } from "./servers.ts";

/** How long a window of load is, in seconds. */
const WINDOW = 10;

/** What is resident over so many minutes of the mix, with the tokens of ten thousand users. Returns the table. */
export async function memory(minutes: number): Promise<string> {
  const database = await makeDatabase("service", { 1000: 10, 100: 5000, 20: 5000, 0: 1000 });
  const { mix } = scenarios(database.users);
  const service = await start("service", database.url);
  const points: { minute: number; mib: number }[] = [];
  const began = performance.now();
  const minute = () => (performance.now() - began) / 60_000;
  const look = () => points.push({ minute: minute(), mib: memoryOf(service.pid) });
  const idle = memoryOf(service.pid);
  const timer = setInterval(look, 1000);
  while (minute() < minutes) {
    service.emptyLog();
    await load(service.port, mix, 64, WINDOW);
  }
  clearInterval(timer);
  const loaded = memoryOf(service.pid);
  await Bun.sleep(30_000);
  const after = memoryOf(service.pid);
  await service.stop();

  const late = points.filter((point) => point.minute > minutes / 5);
  const mean = (pick: (point: (typeof points)[number]) => number) =>
    late.reduce((sum, point) => sum + pick(point), 0) / late.length;
  const [x, y] = [mean((point) => point.minute), mean((point) => point.mib)];
  const slope = mean((p) => (p.minute - x) * (p.mib - y)) / mean((p) => (p.minute - x) ** 2);
  return table(
    ["", "MiB"],
    [
      ["before the first request", idle.toFixed(0)],
      [`the mean from minute ${minutes / 5} on`, y.toFixed(0)],
      ["the most", Math.max(...points.map(({ mib }) => mib)).toFixed(0)],
      [`at the end, after ${minutes} minutes`, loaded.toFixed(0)],
      ["half a minute later", after.toFixed(0)],
      [`growth a minute, from minute ${minutes / 5} on`, slope.toFixed(2)],
    ],
  );
}
