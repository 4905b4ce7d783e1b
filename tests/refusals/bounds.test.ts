import { describe, expect, setDefaultTimeout, test } from "bun:test";
import fc from "fast-check";
import { service, type User } from "../harness.ts";

setDefaultTimeout(120_000);

const KIB = 1024;

/** Milliseconds of CPU that this process (the service is in it, unless TEST_COMMAND names another) spends on it. */
async function cpuOf(work: () => Promise<unknown>): Promise<number> {
  const before = process.cpuUsage();
  await work();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
}

/** The cheapest of three tries: what else the process does, such as collecting garbage, is not the request's. */
async function cheapest(work: () => Promise<unknown>): Promise<number> {
  const costs: number[] = [];
  while (costs.length < 3 && !costs.some((cost) => cost < 20)) costs.push(await cpuOf(work));
  return Math.min(...costs);
}

const nested = (depth: number, open: string, close: string, core = "0") =>
  open.repeat(depth) + core + close.repeat(depth);
const repeated = (length: number, member: (i: number) => string) => {
  const members: string[] = [];
  for (let size = 0; size < length; size += (members.at(-1)?.length ?? 0) + 1) members.push(member(members.length));
  return members.join();
};

/** JSON values of about so many bytes, each large in a way of its own. */
const SHAPES: Record<string, (bytes: number) => string> = {
  "nested lists": (n) => nested(n / 2, "[", "]"),
  "nested objects": (n) => nested(n / 6, '{"a":', "}"),
  "lists and objects in turn": (n) => nested(n / 8, '[{"a":', "}]"),
  "nested lists with neighbours": (n) => nested(n / 6, "[0,", ",0]"),
  "nested objects named by numbers": (n) => nested(n / 6, '{"1":', "}"),
  "many keys": (n) => `{${repeated(n, (i) => `"${i.toString(36)}x":0`)}}`,
  "many numbers for keys": (n) => `{${repeated(n, (i) => `"${i * 99_991}":0`)}}`,
  "one key, again and again": (n) => `{${repeated(n, () => '"title":0')}}`,
  "many members, each nested": (n) => `{${repeated(n, (i) => `"${i}":${nested(40, "[", "]")}`)}}`,
  "a long list": (n) => `[${repeated(n, () => "{}")}]`,
  "a list of lists": (n) => `[${repeated(n, () => nested(50, "[", "]"))}]`,
  "a long list, deep in lists": (n) =>
    nested(
      90,
      "[",
      "]",
      repeated(n - 200, () => "[]"),
    ),
  "a long key": (n) => `{"${"k".repeat(n)}":0}`,
  "a long text": (n) => `"${"x".repeat(n)}"`,
  "a text of escapes": (n) => `"${"\\u0001".repeat(n / 6)}"`,
  "a text of surrogates": (n) => `"${"\\ud83d\\ude00".repeat(n / 12)}"`,
  "a text of lone surrogates": (n) => `"${"\\ud83d".repeat(n / 6)}"`,
  "a text of emoji": (n) => `"${"😀".repeat(n / 4)}"`,
  "a text of white space": (n) => `"${" ".repeat(n - 1)}."`,
  "a number of many digits": (n) => "9".repeat(n),
  "a fraction of many digits": (n) => `0.${"1".repeat(n)}`,
  "a number beyond all": (n) => `1e${"9".repeat(n)}`,
};

/** Where in a body the value stands. */
const PLACES: Record<string, (value: string) => string> = {
  body: (value) => value,
  title: (value) => `{"title":${value}}`,
  description: (value) => `{"title":"x","description":${value}}`,
  completed: (value) => `{"completed":${value}}`,
  "a member that is not known": (value) => `{"title":"x","tags":${value},"completed":5}`,
  "every member": (value) => `{"title":${value},"description":${value},"completed":${value}}`,
};

const send = async (user: User, method: string, body: string) => {
  const answer = await user.send(method, { POST: "", PUT: "/1" }[method] ?? "/1/complete", body);
  await answer.bytes();
  return answer.status;
};

describe("a body costs no more than its size explains", () => {
  const cases = Object.keys(SHAPES).flatMap((shape) => Object.keys(PLACES).map((place) => [shape, place]));

  test.each(cases)("%s as %s, 64 KiB", async (shape, place) => {
    const user = await service.newcomer();
    const share = place === "every member" ? 3 : 1;
    const body = PLACES[place]?.(SHAPES[shape]?.((63 * KIB) / share) ?? "") ?? "";
    expect(Buffer.byteLength(body)).toBeLessThanOrEqual(64 * KIB);
    for (const method of ["POST", "PUT", "PATCH"]) {
      let status = 0;
      const cost = await cheapest(async () => {
        status = await send(user, method, body);
      });
      expect([200, 201, 400, 404, 422]).toContain(status);
      expect(cost).toBeLessThan(40);
    }
  });

  test.each([
    [90, "POST", [422]],
    [110, "POST", [400]],
    [20_000, "POST", [400]],
    [20_000, "PUT", [400]],
    [30_000, "POST", [400]],
    [32_000, "PUT", [400]],
  ] as const)("a title %d deep, by %s", async (depth, method, statuses) => {
    const user = await service.newcomer();
    const answer = await user.send(method, method === "PUT" ? "/1" : "", `{"title":${nested(depth, "[", "]")}}`);
    expect(statuses).toContain(answer.status as never);
    expect((await answer.text()).length).toBeLessThan(1000);
  });

  test.each([
    ["many lists side by side", `{"title":"x","tags":[${"[],".repeat(500)}[{}]]}`],
    ["brackets in a text", `{"title":"${"[".repeat(40)}\\"${"{".repeat(150)}"}`],
  ])("%s are not deep", async (_, body) => {
    const user = await service.newcomer();
    expect(await send(user, "POST", body)).toBe(201);
  });

  test("whatever is put together", async () => {
    const user = await service.newcomer();
    const shape = fc.constantFrom(...Object.values(SHAPES));
    const place = fc.constantFrom(...Object.values(PLACES));
    const parts = fc.array(fc.tuple(shape, fc.string({ unit: "binary", maxLength: 20 })), {
      minLength: 1,
      maxLength: 8,
    });
    const together = parts.map((found) => {
      const size = (60 * KIB) / found.length;
      return `{${found.map(([make, key]) => `${JSON.stringify(key)}:${make(size)}`)}}`;
    });
    const core = fc.oneof(
      together,
      fc.tuple(shape, fc.nat(60 * KIB)).map(([make, size]) => make(size + 2)),
    );
    const before = process.memoryUsage.rss();
    await fc.assert(
      fc.asyncProperty(core, place, fc.constantFrom("POST", "PUT", "PATCH"), async (value, put, method) => {
        const body = put(value);
        let status = 0;
        const cost = await cheapest(async () => {
          status = await send(user, method, body);
        });
        expect(status).toBeLessThan(500);
        expect(cost).toBeLessThan(40);
      }),
      { numRuns: 100 },
    );
    expect(process.memoryUsage.rss() - before).toBeLessThan(256 * KIB * KIB);
  });
});

describe("a URL costs no more than its size explains", () => {
  // Bun refuses more than 16 KiB by itself.
  const long = 14 * KIB;
  test.each([
    ["a parameter again and again", repeated(long, () => "status=x").replaceAll(",", "&"), 422],
    ["a good one again and again", repeated(long, () => "status=all").replaceAll(",", "&"), 200],
    ["many that are not known", repeated(long, (i) => `a${i}=x`).replaceAll(",", "&"), 200],
    ["brackets", repeated(long, () => "a[]=[1]").replaceAll(",", "&"), 200],
    ["a known one as a list", repeated(long, () => "limit[]=[1]").replaceAll(",", "&"), 200],
    ["a nested list", `search=${"[".repeat(long)}`, 422],
    ["a nested name", `a${"[a]".repeat(long / 3)}=1`, 200],
    ["a long search", `search=${"a".repeat(10_000)}`, 422],
    ["a long search of escapes", `search=${"%F0%9F%98%80".repeat(1000)}`, 422],
    ["a long search of escapes that are none", `search=${"%F0%9F".repeat(2000)}`, 422],
    ["a long cursor", `cursor=${"W".repeat(long)}`, 422],
    ["separators", "&".repeat(long), 200],
    ["equals signs", "=".repeat(long), 200],
    ["spaces", `search=${"+".repeat(long)}`, 422],
  ])("%s", async (_, query, status) => {
    const user = await service.newcomer();
    let answer = new Response();
    const cost = await cheapest(async () => {
      answer = await user.get(`?${query}`);
    });
    expect(answer.status).toBe(status);
    expect((await answer.text()).length).toBeLessThan(1000);
    expect(cost).toBeLessThan(40);
  });

  test.each([
    ["a long id", `/${"9".repeat(long)}`],
    ["a deep path", "/1".repeat(long / 2)],
    ["many slashes", "/".repeat(long)],
    ["a long path of escapes", `/${"%F0%9F%98%80".repeat(1000)}`],
    ["a long path of escapes that are none", `/${"%zz".repeat(4000)}`],
    ["dots", "/...".repeat(long / 4)],
  ])("%s", async (_, rest) => {
    const user = await service.newcomer();
    let status = 0;
    const cost = await cheapest(async () => {
      ({ status } = await user.get(rest));
    });
    expect([401, 403, 404, 422]).toContain(status);
    expect(cost).toBeLessThan(40);
  });
});
