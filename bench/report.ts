import { readFileSync, writeFileSync } from "node:fs";
import { cpus, totalmem } from "node:os";
import { join } from "node:path";
import type { Results } from "./compare.ts";
import type { BenchDatabase } from "./data.ts";
import { generator } from "./load.ts";
import { median, ratio, type Sample } from "./measure.ts";

/** What a scenario asks for, in the words of the table. */
const TITLES: Record<string, string> = {
  health: "health",
  list20: "a page of 20 of 100",
  all20: "a list of 20",
  list1000: "a list of 1,000",
  read: "one task",
  create: "create",
  toggle: "toggle",
  put: "put",
  mix: "80/20 mix",
};

export const titleOf = (scenario: string) => TITLES[scenario] ?? scenario;

export const table = (head: string[], rows: string[][]) =>
  [head, head.map((_, i) => (i === 0 ? "---" : "--:")), ...rows]
    .map((row) => `| ${row.join(" | ")} |`)
    .join("\n");

/** Where this was measured, when and with what. */
export const circumstances = ({ version, host }: BenchDatabase) =>
  `${new Date().toISOString().slice(0, 10)}, ${cpus().length} cores (${cpus()[0]?.model.trim()}), ` +
  `${Math.round(totalmem() / 2 ** 30)} GiB, Bun ${Bun.version}, load from ${generator}, ` +
  `PostgreSQL ${version} at ${host}.`;

/** Nothing, where there was nothing to measure: Postgres's CPU, if it is on another machine. */
export const times = ({ median, least, most }: ReturnType<typeof ratio>) =>
  Number.isNaN(median) ? "" : `**${median.toFixed(2)}** (${least.toFixed(2)}–${most.toFixed(2)})`;

/** Every side but the yardstick, as ratios to it; and the yardstick's own figures, to put them in scale. */
export function comparison(results: Results): string {
  const rows = Object.entries(results).flatMap(([scenario, { yardstick = [], ...sides }]) =>
    Object.entries(sides).map(([side, samples], i) => [
      i === 0 ? titleOf(scenario) : "",
      side,
      ...(["rate", "cpu", "postgres", "p50", "p99"] as const).map((what) =>
        what === "postgres" && scenario === "health" ? "" : times(ratio(samples, yardstick, what)),
      ),
      i === 0 ? inScale(yardstick) : "",
    ]),
  );
  return table(["", "", "requests/s", "CPU", "Postgres's CPU", "p50", "p99", "the yardstick itself"], rows);
}

const inScale = (samples: Sample[]) => {
  const [rate, cpu, p99] = (["rate", "cpu", "p99"] as const).map((what) =>
    median(samples.map((s) => s[what])),
  );
  return `${Math.round(rate ?? 0).toLocaleString("en")}/s, ${cpu?.toFixed(0)} µs, p99 ${p99?.toFixed(1)} ms`;
};

/** Throughput of each side as bars, with a line where the yardstick stands. */
export function picture(results: Results): string {
  const sides = Object.keys(Object.values(results)[0] ?? {}).filter((side) => side !== "yardstick");
  const colors = ["#2f81f7", "#8957e5", "#bf8700", "#57606a"];
  const [left, unit, bar] = [150, 260, 9];
  const group = sides.length * bar + 12;
  const height = Object.keys(results).length * group + 50;
  const bars = Object.entries(results).flatMap(([scenario, { yardstick = [], ...samples }], i) => {
    const top = 10 + i * group;
    return [
      `<text x="${left - 8}" y="${top + (sides.length * bar) / 2 + 4}" text-anchor="end">${titleOf(scenario)}</text>`,
      ...sides.map((side, n) => {
        const { median: share } = ratio(samples[side] ?? [], yardstick, "rate");
        const [y, width] = [top + n * bar, Math.round(share * unit)];
        return `<rect x="${left}" y="${y}" width="${width}" height="${bar - 1}" fill="${colors[n]}"/><text x="${left + width + 4}" y="${y + 8}" font-size="9">${share.toFixed(2)}</text>`;
      }),
    ];
  });
  const legend = sides.map(
    (side, n) =>
      `<rect x="${left + n * 90}" y="${height - 14}" width="9" height="9" fill="${colors[n]}"/><text x="${left + n * 90 + 14}" y="${height - 6}">${side}</text>`,
  );
  return `<svg xmlns="http://www.w3.org/2000/svg" width="640" height="${height}" font-family="system-ui, sans-serif" font-size="11">
<title>Requests a second, as a share of what the hand-written server answers</title>
<style>text{fill:#57606a}@media(prefers-color-scheme:dark){text{fill:#adbac7}}</style>
${bars.join("\n")}
<line x1="${left + unit}" y1="4" x2="${left + unit}" y2="${height - 28}" stroke="#cf222e" stroke-dasharray="3 3"/>
<text x="${left + unit}" y="${height - 18}" text-anchor="middle">1 = the hand-written server</text>
${legend.join("\n")}
</svg>
`;
}

/** Puts a report into its place in the README. */
export function save(name: string, report: string) {
  const path = join(import.meta.dir, "../README.md");
  const [begin, end] = [`<!-- bench ${name} -->`, `<!-- /bench ${name} -->`];
  const [before, rest] = readFileSync(path, "utf8").split(begin);
  const after = rest?.split(end)[1];
  if (before === undefined || after === undefined) throw new Error(`README.md has no place for ${name}`);
  writeFileSync(path, `${before}${begin}\n\n${report}\n\n${end}${after}`);
}
