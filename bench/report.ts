import { readFileSync, writeFileSync } from "node:fs";
import { cpus, totalmem } from "node:os";
import { join } from "node:path";
import type { Result } from "./compare.ts";
import { host, version } from "./data.ts";
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
  [head, head.map((_, i) => (i === 0 ? "---" : "--:")), ...rows].map((row) => `| ${row.join(" | ")} |`).join("\n");

/** Where this was measured, when and with what. */
export const circumstances = () =>
  `${new Date().toISOString().slice(0, 10)}, ${cpus().length} cores (${cpus()[0]?.model.trim()}), ` +
  `${Math.round(totalmem() / 2 ** 30)} GiB, Bun ${Bun.version}, load from ${generator}, ` +
  `PostgreSQL ${version} at ${host}.`;

/** Nothing, where there was nothing to measure: Postgres's CPU, if it is on another machine. */
export const times = ({ median, least, most }: ReturnType<typeof ratio>) =>
  Number.isNaN(median) ? "" : `**${median.toFixed(2)}** (${least.toFixed(2)}–${most.toFixed(2)})`;

/** Every side but the yardstick, as ratios to it; and the yardstick's own figures, to put them in scale. */
export function comparison(results: (Result & { title?: string })[]): string {
  const rows = results.flatMap(({ scenario, title, pool, samples: { yardstick = [], ...sides } }) =>
    Object.entries(sides).map(([side, samples], i) => [
      i === 0 ? (title ?? titleOf(scenario)) : "",
      side,
      ...(["rate", "cpu", "postgres", "together", "p50", "p99"] as const).map((what) =>
        scenario === "health" && ["postgres", "together"].includes(what) ? "" : times(ratio(samples, yardstick, what)),
      ),
      i === 0 ? inScale(yardstick, pool) : "",
    ]),
  );
  const head = ["", "", "requests/s", "CPU", "Postgres's CPU", "both", "p50", "p99", "the yardstick itself"];
  return table(head, rows);
}

const inScale = (samples: Sample[], pool: number | undefined) => {
  const of = (what: keyof Sample) => median(samples.map((sample) => sample[what]));
  const cpu = `${of("cpu").toFixed(0)}${pool === undefined ? "" : ` + ${of("postgres").toFixed(0)}`} µs`;
  return (
    `${Math.round(of("rate")).toLocaleString("en")}/s, ${cpu}, p99 ${of("p99").toFixed(1)} ms` +
    (pool === undefined ? "" : `, pool of ${pool}`)
  );
};

/** Throughput of each side as bars, with a line where the yardstick stands. */
export function picture(results: Result[]): string {
  const sides = [...new Set(results.flatMap(({ samples }) => Object.keys(samples)))].filter(
    (side) => side !== "yardstick",
  );
  const colors = ["#57606a", "#8957e5", "#2f81f7", "#bf8700", "#1a7f37", "#bf3989"];
  const [left, unit, bar] = [150, 160, 9];
  let top = 10;
  const bars = results.flatMap(({ scenario, samples: { yardstick = [], ...samples } }) => {
    const shown = Object.entries(samples);
    const y = top;
    top += shown.length * bar + 12;
    return [
      `<text x="${left - 8}" y="${y + (shown.length * bar) / 2 + 4}" text-anchor="end">${titleOf(scenario)}</text>`,
      ...shown.map(([side, of], n) => {
        const { median: share } = ratio(of, yardstick, "rate");
        const width = Math.round(share * unit);
        return `<rect x="${left}" y="${y + n * bar}" width="${width}" height="${bar - 1}" fill="${colors[sides.indexOf(side)]}"/><text x="${left + width + 4}" y="${y + n * bar + 8}" font-size="9">${share.toFixed(2)}</text>`;
      }),
    ];
  });
  const legend = sides.map((side, n) => {
    const [x, y] = [20 + (n % 3) * 210, top + 24 + Math.floor(n / 3) * 16];
    return `<rect x="${x}" y="${y}" width="9" height="9" fill="${colors[n]}"/><text x="${x + 14}" y="${y + 8}">${side}</text>`;
  });
  const height = top + 24 + Math.ceil(sides.length / 3) * 16;
  return `<svg xmlns="http://www.w3.org/2000/svg" width="720" height="${height}" font-family="system-ui, sans-serif" font-size="11">
<title>Requests a second, as a share of what the hand-written server answers</title>
<style>text{fill:#57606a}@media(prefers-color-scheme:dark){text{fill:#adbac7}}</style>
${bars.join("\n")}
<line x1="${left + unit}" y1="4" x2="${left + unit}" y2="${top}" stroke="#cf222e" stroke-dasharray="3 3"/>
<text x="${left + unit}" y="${top + 12}" text-anchor="middle">1 = the hand-written server</text>
${legend.join("\n")}
</svg>
`;
}

/** Puts a report into its place in bench/README.md. */
export function save(name: string, report: string) {
  const path = join(import.meta.dir, "README.md");
  const [begin, end] = [`<!-- bench ${name} -->`, `<!-- /bench ${name} -->`];
  const [before, rest] = readFileSync(path, "utf8").split(begin);
  const after = rest?.split(end)[1];
  if (before === undefined || after === undefined) throw new Error(`bench/README.md has no place for ${name}`);
  writeFileSync(path, `${before}${begin}\n\n${report}\n\n${end}${after}`);
}
