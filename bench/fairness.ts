import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Crowd, makeDatabase, type User } from "./data.ts";
import { attempt, type Window } from "./load.ts";
import { table } from "./report.ts";
import { type Request, request, round, someTask } from "./scenarios.ts";
import { memoryOf, type Server, start } from "./servers.ts";

/** What the attacker did, and how soon it was refused, in milliseconds. */
interface Attack {
  statuses: Record<string, number>;
  refused: number;
  p99?: number;
}

/**
 * What other users have of it while one client behaves badly. They are sixteen that read a task, read a page and toggle
 * in turn, each 5 ms after its last answer. Returns the table; `strict` fails if one of them gets a 5xx or a refusal,
 * or readiness falls.
 */
export async function fairness(
  crowd: Crowd,
  seconds: number,
  { only = [], strict = false }: { only?: string[]; strict?: boolean } = {},
): Promise<string> {
  const database = await makeDatabase("service", crowd);
  const [hog] = await database.add(1, strict ? 10_000 : 100_000);
  await database.tidy();
  const [large = [], others = [], small = [], [flooder] = []] = [1000, 100, 20, 0].map((n) => database.users[n]);
  if (!hog || !flooder) throw new Error("there is a user of each kind");
  const kinds = [
    (user: User, n: number) => request(user, "GET", someTask(user, n)),
    (user: User) => request(user, "GET", "?limit=20"),
    (user: User, n: number) => request(user, "PATCH", `${someTask(user, n)}/complete`),
  ];
  const victims = round(others, 3000, (user, n) => kinds[n % 3]?.(user, n) ?? request(user, "GET"));
  const attacks: [string, string, Request[]][] = [
    ["hog", "50 searches, pages and sorts of 100,000 tasks under way", heavy(hog)],
    ["unread", "200 lists of 1,000 that nobody reads", large.map((user) => request(user, "GET"))],
    [
      "hang-up",
      "20 clients that hang up after 5 ms",
      large.flatMap((user) => [request(user, "GET", "?sort=title"), request(user, "GET")]),
    ],
    [
      "bombs",
      "8 bodies under way made to cost much",
      round(small, 1000, (user, n) => ({
        ...request(user, "POST", "", {}),
        body: BOMBS[n % BOMBS.length] ?? "",
      })),
    ],
    ["flood", "one user at ten times the limit", [request(flooder, "GET", "?limit=20")]],
  ];

  const server = await start("service", database.url);
  const watch = watching(server);
  await attempt(server.port, victims, 16, 1);
  const rows: string[][] = [];
  const add = (what: string, victim: Window, attack?: Attack) => {
    const { fallen, ready, mib } = watch.look();
    const share = ((victim.refused + victim.failed) / victim.requests) * 100;
    const did = Object.entries(attack?.statuses ?? {}).map(([status, number]) => `${number} × ${status}`);
    rows.push([
      ...[what, victim.p50.toFixed(2), victim.p99.toFixed(2), share === 0 ? "0" : `${share.toFixed(3)} %`],
      ...[`${fallen} of ${ready}`, mib.toFixed(0), did.join(", "), attack?.p99?.toFixed(1) ?? ""],
    ]);
    process.stderr.write(`${rows.at(-1)?.join(" | ")}\n`);
    if (strict && share + fallen > 0)
      throw new Error(
        `${what}: ${victim.refused} refused and ${victim.failed} failed of others, readiness fell ${fallen} times`,
      );
  };
  add("nothing", await attempt(server.port, victims, 16, seconds, 5));
  for (const [kind, what, requests] of attacks) {
    if (only.length > 0 && !only.includes(kind)) continue;
    const done = attack(kind, server, seconds + 1, requests);
    await Bun.sleep(500);
    const victim = await attempt(server.port, victims, 16, seconds, 5);
    add(what, victim, await done);
    server.emptyLog();
    if (!strict) await Bun.sleep(2000);
  }
  watch.stop();
  await server.stop();
  const head = [
    "meanwhile",
    "p50, ms",
    "p99, ms",
    "not answered",
    "not ready",
    "MiB",
    "what it was answered",
    "p99 of its 429 and 503, ms",
  ];
  return table(head, rows);
}

/** Everything that costs the database much. */
const heavy = (user: User) =>
  [
    "?search=corner&limit=20",
    "?search=no-such-thing",
    "?limit=1",
    "?sort=title&limit=20",
    "?sort=updated_at&order=asc&limit=20",
    "?offset=10000&limit=20",
    "?status=completed&search=day%209&sort=title",
    "",
  ].map((query) => request(user, "GET", query));

/** Bodies of 64 KiB at most that a careless server works on for long. */
const BOMBS = [
  `{"title": ${"[".repeat(32_000)}${"]".repeat(32_000)}}`,
  `{"title": "x", "more": ${'{"a":'.repeat(10_000)}1${"}".repeat(10_000)}}`,
  `{${Array.from({ length: 5000 }, (_, n) => `"k${n}":${n}`).join()}}`,
  `{"title": [${"[],".repeat(20_000)}[]]}`,
  `{"title": "${"\\ud83d\\ude00".repeat(5000)}"}`,
  `{"title": ${"9".repeat(60_000)}}`,
  "[".repeat(65_000),
];

async function attack(kind: string, { port }: Server, seconds: number, requests: Request[]): Promise<Attack> {
  const directory = mkdtempSync(join(tmpdir(), "tasks-api-attack-"));
  const file = join(directory, "requests");
  writeFileSync(file, JSON.stringify(requests));
  const command = ["bun", join(import.meta.dir, "attacks.ts"), kind, String(port), String(seconds), file];
  const child = Bun.spawn(command, { stdout: "pipe", stderr: "inherit" });
  const output = await new Response(child.stdout).text();
  rmSync(directory, { recursive: true });
  if ((await child.exited) !== 0) throw new Error(`${kind} failed`);
  return JSON.parse(output);
}

/** Asks for readiness and looks at the memory, ten times a second. */
function watching({ pid, port }: Server) {
  let [fallen, ready, mib] = [0, 0, 0];
  const timer = setInterval(async () => {
    mib = Math.max(mib, memoryOf(pid));
    const ok = await fetch(`http://127.0.0.1:${port}/health/ready`, {
      signal: AbortSignal.timeout(2000),
    }).then(
      (answer) => answer.arrayBuffer().then(() => answer.ok),
      () => false,
    );
    ready++;
    if (!ok) fallen++;
  }, 100);
  return {
    /** Since it was looked at before. */
    look() {
      const seen = { fallen, ready, mib };
      [fallen, ready, mib] = [0, 0, 0];
      return seen;
    },
    stop: () => clearInterval(timer),
  };
}
