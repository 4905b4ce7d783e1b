import { type BenchDatabase, makeDatabase, type User } from "./data.ts";
import { attempt, load, type Window } from "./load.ts";
import { median } from "./measure.ts";
import { table } from "./report.ts";
import { type Request, request, round, scenarios } from "./scenarios.ts";
import { type Server, type Side, start } from "./servers.ts";

const SIDES: Side[] = ["yardstick", "by hand, coalesced", "service"];

/** How many users page. Each begins where `RATE_LIMIT` lets them go on. */
const PAGERS = 40;

/** What reading one task costs while others page, 20 at a time, through lists of 10,000. Returns the table. */
export async function neighbour(seconds: number, rounds: number): Promise<string> {
  const sides: {
    name: Side;
    server: Server;
    database: BenchDatabase;
    quiet: Window[];
    beside: Window[];
    pages: number[];
  }[] = [];
  let pagers: User[] = [];
  for (const name of SIDES) {
    const database = await makeDatabase(name === "service" ? "service" : "by hand", {
      1000: 1,
      100: 500,
      20: 1,
      0: 1,
    });
    pagers = await database.add(PAGERS, 10_000);
    await database.tidy();
    sides.push({ name, server: await start(name, database.url), database, quiet: [], beside: [], pages: [] });
  }
  // The data is alike, so the yardstick's pages are everybody's.
  const [first] = sides;
  if (!first) throw new Error("there is a yardstick");
  const pages = await Promise.all(pagers.map((user) => pagesOf(user, first.server)));
  const light = scenarios(first.database.users).read;

  for (let n = 0; n < rounds; n++) {
    const turn = (n * 8) % PAGERS;
    const heavy = [...pages.slice(turn), ...pages.slice(0, turn)].flat();
    for (const { server, quiet, beside, pages } of sides) {
      quiet.push(await attempt(server.port, light, 16, seconds, 1));
      const [one, other] = await Promise.all([
        attempt(server.port, light, 16, seconds, 1),
        load(server.port, heavy, 8, seconds),
      ]);
      beside.push(one);
      pages.push(other.requests / other.seconds);
      for (const { refused, failed } of [...quiet, ...beside])
        if (refused + failed > 0) throw new Error(`${refused + failed} reads failed`);
    }
  }
  const of = (windows: Window[], what: keyof Window) => median(windows.map((window) => window[what])).toFixed(2);
  return table(
    ["one task", "alone, p50, ms", "p99", "beside the pages, p50, ms", "p99", "pages/s meanwhile"],
    sides.map(({ name, quiet, beside, pages }) => [
      name,
      of(quiet, "p50"),
      of(quiet, "p99"),
      of(beside, "p50"),
      of(beside, "p99"),
      Math.round(median(pages)).toLocaleString("en"),
    ]),
  );
}

/** All pages of the list, found as a client finds them: by following `next`. */
async function pagesOf(user: User, { port }: Server): Promise<Request[]> {
  const pages: Request[] = [];
  for (let page: Request | undefined = round([user], 1, (one) => request(one, "GET", "?limit=20"))[0]; page; ) {
    pages.push(page);
    const answer = await fetch(`http://127.0.0.1:${port}${page.path}`, { headers: page.headers });
    await answer.arrayBuffer();
    const path = /<(.*)>/.exec(answer.headers.get("link") ?? "")?.[1];
    page = path === undefined ? undefined : { ...page, path };
  }
  return pages;
}
