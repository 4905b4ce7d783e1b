import { describe, expect, test } from "bun:test";
import { connect } from "node:net";
import { encodeCursor } from "../../src/tasks/cursor.ts";
import type { Task } from "../../src/tasks/model.ts";
import { canQuery, queryDatabase, service, type User } from "../harness.ts";

const titles = async (answer: Response) => ((await answer.json()) as Task[]).map(({ title }) => title);
const next = (answer: Response) => /<([^>]+)>; rel="next"/.exec(answer.headers.get("link") ?? "")?.[1];
const search = (text: string) => `?search=${encodeURIComponent(text)}`;

async function userWith(...tasks: (string | object)[]): Promise<User> {
  const user = await service.newcomer();
  for (const task of tasks) await user.task(typeof task === "string" ? { title: task } : task);
  return user;
}

/** Gives the user as many tasks, each created a millisecond after the other, and changed a day later. */
const fill = (user: User, count: number, first = "2026-01-01") =>
  queryDatabase(
    `insert into tasks (user_id, title, created_at, updated_at)
      select $1::text, n, time, time + interval '1 day' from generate_series(0, $2::int - 1) n,
        cast($3::text::timestamptz + n * interval '1 millisecond' as timestamptz) as time`,
    [user.id, count, `${first}T00:00:00Z`],
  );

/** Every page from `query` on, as a client that follows the links sees them. */
async function pages(user: User, query: string, between = async () => {}): Promise<Task[][]> {
  const found: Task[][] = [];
  let url: string | undefined = user.path(query);
  while (url !== undefined && found.length < 100) {
    const answer = await fetch(url, { headers: { authorization: `Bearer ${user.token}` } });
    expect(answer.status).toBe(200);
    found.push((await answer.json()) as Task[]);
    const link = next(answer);
    url = link && new URL(link, url).href;
    await between();
  }
  return found;
}

describe("a list", () => {
  test("holds the user's own tasks, newest first, and no one else's", async () => {
    await userWith("somebody else's");
    const user = await userWith("first", "second", "third");
    const answer = await user.get();
    expect(answer.headers.get("x-total-count")).toBe("3");
    expect(answer.headers.get("link")).toBeNull();
    expect(await titles(answer)).toEqual(["third", "second", "first"]);
  });

  test("of a newcomer is empty", async () => {
    const answer = await (await service.newcomer()).get();
    expect([await answer.json(), answer.headers.get("x-total-count")]).toEqual([[], "0"]);
  });

  test.each([
    ["all", ["b", "a"]],
    ["pending", ["a"]],
    ["completed", ["b"]],
  ])("with status=%s", async (status, expected) => {
    const user = await userWith("a", { title: "b", completed: true });
    expect(await titles(await user.get(`?status=${status}`))).toEqual(expected);
  });

  test.skipIf(!canQuery)("has each time to the millisecond, whichever that is", async () => {
    const user = await service.newcomer();
    // So far from 1970, one in eight of the numbers of seconds is a little less than the millisecond it stands for.
    await fill(user, 1000, "9999-12-30");
    const tasks = (await (await user.get("?order=asc&limit=1000")).json()) as Task[];
    const time = (day: number, n: number) => new Date(Date.UTC(9999, 11, day, 0, 0, 0, n)).toISOString();
    expect(tasks.map(({ created_at, updated_at }) => [created_at, updated_at])).toEqual(
      tasks.map((_, n) => [time(30, n), time(31, n)]),
    );
    expect(tasks).toHaveLength(1000);
  });

  test.skipIf(!canQuery)("leads on from a time of any year, and a change may name it as its version", async () => {
    const user = await service.newcomer();
    for (const year of ["0001", "0099", "0999", "1969"])
      await queryDatabase(
        "insert into tasks (user_id, title, created_at, updated_at) select $1, $2, t, t from cast($3 as timestamptz) t",
        [user.id, year, `${year}-01-01T00:00:00.001Z`],
      );
    for (const sort of ["created_at", "updated_at"])
      expect((await pages(user, `?sort=${sort}&order=asc&limit=1`)).flat().map(({ title }) => title)).toEqual([
        "0001",
        "0099",
        "0999",
        "1969",
      ]);
    for (const { id } of (await (await user.get()).json()) as Task[]) {
      const etag = (await user.get(`/${id}`)).headers.get("etag") ?? "";
      expect((await user.put(id, { title: "x" }, { "if-match": etag })).status).toBe(200);
    }
  });

  test("ignores parameters that it does not know", async () => {
    const user = await userWith("a");
    expect(await titles(await user.get("?page=7&_=1&__proto__=x&sort[]=y"))).toEqual(["a"]);
  });
});

describe("what front ends of the FastAPI backend ask for", () => {
  const done = (title: string) => ({ title, completed: true });

  test.each([
    ...["ALL", "All"].map((word) => [`status=${word}`, "dcba"]),
    ...["incomplete", "active", "ACTIVE", "Pending", "PENDING"].map((word) => [`status=${word}`, "ca"]),
    ...["done", "Done", "COMPLETED"].map((word) => [`status=${word}`, "db"]),
    ["completed=true", "db"],
    ["completed=True", "db"],
    ["completed=false", "ca"],
    ["completed=false&status=active", "ca"],
    ["completed=true&status=DONE", "db"],
    ["sort=created&order=asc", "abcd"],
    ["sort=updated", "dcba"],
    ["sort=due_date", "dcba"],
    ["sort=due_date&order=asc", "dcba"],
    ["offset=1", "cba"],
    ["skip=1", "cba"],
    ["skip=1&offset=1", "cba"],
    ["offset=0", "dcba"],
    ["offset=4", ""],
    ["offset=10000", ""],
    ["offset=1&limit=2", "cb"],
    ["skip=3&limit=2", "a"],
    ["sort=title&order=asc&skip=2", "cd"],
    ["search=c&skip=1", ""],
    ["page=2&size=1", "dcba"],
  ])("?%s", async (query, expected) => {
    const user = await userWith("a", done("b"), "c", done("d"));
    const answer = await user.get(`?${query}`);
    expect((await titles(answer)).join("")).toBe(expected);
  });

  test.each([
    ["offset=1", 4],
    ["offset=1&limit=1", 4],
    ["offset=4", 4],
    ["skip=100&limit=1", 4],
    ["completed=true&skip=1", 2],
    ["completed=true&skip=7", 2],
    ["status=active", 2],
    ["status=active&limit=1", 2],
    ["status=completed&limit=1", 2],
    ["search=b&limit=1", 1],
    ["search=b&status=pending&limit=1", 0],
    ["search=b", 1],
    ["search=b&offset=1", 1],
    ["search=x", 0],
    ["search=x&offset=1", 0],
  ])("?%s counts what matches, wherever it begins", async (query, total) => {
    const user = await userWith("a", done("b"), "c", done("d"));
    expect((await user.get(`?${query}`)).headers.get("x-total-count")).toBe(String(total));
  });

  test.each(["offset", "skip"])("%s leads on by cursor, past what it skipped", async (name) => {
    const user = await userWith(..."abcdefg");
    const answer = await user.get(`?${name}=2&limit=2&completed=false&sort=created`);
    const link = new URL(next(answer) ?? "", service.url);
    expect(Object.fromEntries(link.searchParams)).toEqual({
      limit: "2",
      completed: "false",
      sort: "created",
      cursor: expect.any(String),
    });
    const rest = await pages(user, `?${name}=2&limit=2&completed=false&sort=created`);
    expect(rest.map((page) => page.map(({ title }) => title).join(""))).toEqual(["ed", "cb", "a"]);
  });

  test("a list by due date leads on in the default order, whatever order it names", async () => {
    const user = await userWith(..."abc");
    const found = await pages(user, "?sort=due_date&order=asc&limit=1");
    expect(found.flat().map(({ title }) => title)).toEqual(["c", "b", "a"]);
  });

  test("without the end of the list there is no link", async () => {
    const user = await userWith(..."abc");
    for (const query of ["?limit=3", "?limit=1&offset=2", "?offset=1&limit=2", "?limit=1000"])
      expect((await user.get(query)).headers.get("link")).toBeNull();
    for (const query of ["?limit=2", "?limit=1&offset=1"])
      expect((await user.get(query)).headers.get("link")).not.toBeNull();
  });
});

describe("the address of the next page", () => {
  /** The head of the answer to a list of one, asked for in so many words. */
  const head = (user: User, version: string, host: string[]) =>
    new Promise<string>((resolve, reject) => {
      const lines = [
        `GET ${new URL(user.path()).pathname}?limit=1&a=1&a=2&b=%26 HTTP/${version}`,
        ...host,
        `Authorization: Bearer ${user.token}`,
        "Connection: close",
      ];
      const socket = connect(Number(new URL(service.url).port), "127.0.0.1", () =>
        socket.write(`${lines.join("\r\n")}\r\n\r\n`),
      );
      let answer = "";
      socket.on("data", (data) => {
        answer += data;
      });
      socket.on("close", () => resolve(answer.split("\r\n\r\n")[0] ?? "")).on("error", reject);
    });

  test.each([
    ["1.0", []],
    ["1.0", ["Host: localhost"]],
    ["1.1", ["Host: a:b"]],
    ["1.1", ["Host: ::1"]],
    ["1.1", ["Host: [::1]"]],
    ["1.1", ["Host: "]],
    ["1.1", ["Host: x"]],
    ["1.1", ["Host: a b"]],
    ["1.1", ["Host: tasks.example.com:8443"]],
  ])("is the same over HTTP/%s with %j", async (version, host) => {
    const user = await service.newcomer("a|b/ü c");
    await user.task();
    await user.task();
    const answer = await head(user, version, host);
    expect(answer).toStartWith("HTTP/1.1 200");
    const link = /^link: <([^>]*)>; rel="next"$/im.exec(answer)?.[1] ?? "";
    expect(link).toStartWith("/api/a%7Cb%2F%C3%BC%20c/tasks?limit=1&a=1&a=2&b=%26&cursor=");
    expect((await fetch(service.url + link, { headers: { authorization: `Bearer ${user.token}` } })).status).toBe(200);
  });
});

describe("a search", () => {
  const tasks = ["100% sure", "snake_case", "back\\slash", "ÉCOLE", { title: "x", description: "Привет, Milk" }];

  test.each([
    ["%", ["100% sure"]],
    ["_", ["snake_case"]],
    ["\\", ["back\\slash"]],
    ["école", ["ÉCOLE"]],
    ["ПРИВЕТ", ["x"]],
    ["milk", ["x"]],
    ["nowhere", []],
    ["'; --", []],
  ])("for %p finds it in titles and descriptions", async (text, expected) => {
    const user = await userWith(...tasks);
    const answer = await user.get(search(text));
    expect(answer.headers.get("x-total-count")).toBe(String(expected.length));
    expect(await titles(answer)).toEqual(expected);
  });

  test.each([
    ["straße", "STRASSE"],
    ["STRASSE", "straße"],
    ["Strasse", "STRAẞE"],
    ["σ", "ΟΔΌΣ και οδός"],
    ["ΟΔΌΣ", "οδός"],
    ["Café", "cafe\u0301"],
    ["CAFE\u0301", "café"],
  ])("for %p finds %p, which is the same in another form", async (text, title) => {
    const user = await userWith(title, "another");
    expect(await titles(await user.get(search(text)))).toEqual([title]);
  });

  test("takes each sign as it stands, for none means anything", async () => {
    const signs = String.fromCharCode(...Array.from({ length: 0x7f - 0x21 }, (_, n) => 0x21 + n)).replace(/\w/g, "");
    const user = await userWith(`a${signs}b`, "ab");
    for (const text of [...signs, "a|b", "^a", "b$", "a.*", "a{0}", "(a)", "[ab]", "\\m"])
      expect([text, (await titles(await user.get(search(text)))).length]).toEqual([
        text,
        `a${signs}b`.includes(text) ? 1 : 0,
      ]);
  });

  test("takes white space as it stands too", async () => {
    const user = await userWith("art history", "artist", "smart");
    expect(await titles(await user.get(search("art ")))).toEqual(["art history"]);
    expect(await titles(await user.get(search(" ")))).toEqual(["art history"]);
    expect(await titles(await user.get(search(" art")))).toEqual([]);
  });

  test("for nothing finds everything", async () => {
    const user = await userWith(...tasks);
    expect((await titles(await user.get("?search="))).length).toBe(5);
  });
});

describe("paging", () => {
  const orders = ["created_at", "updated_at", "title"].flatMap((sort) => [
    [sort, "asc"] as const,
    [sort, "desc"] as const,
  ]);

  test.each(orders)("by %s %s gives every task once, in order, ties by id", async (sort, order) => {
    const user = await userWith("b", "a", "a", "Z", "é", "a", "b");
    const all = (await pages(user, `?sort=${sort}&order=${order}&limit=2`)).flat();
    const sign = order === "asc" ? 1 : -1;
    const key = (task: Task) => String(task[sort as keyof Task]);
    const sorted = all.toSorted(
      (a, b) => sign * (Buffer.compare(Buffer.from(key(a)), Buffer.from(key(b))) || a.id - b.id),
    );
    expect(all).toEqual(sorted);
    expect(new Set(all.map(({ id }) => id)).size).toBe(7);
  });

  test.each(orders)("by %s %s neither skips nor repeats while tasks come and go", async (sort, order) => {
    const user = await userWith(..."hfdbgeca");
    const lasting = ((await (await user.get()).json()) as Task[]).map(({ id }) => id).toSorted();
    const passing: number[] = [];
    const seen = await pages(user, `?sort=${sort}&order=${order}&limit=3`, async () => {
      await Promise.all(passing.splice(0).map((id) => user.delete(id)));
      for (const title of ["a", "z"]) passing.push((await user.task({ title })).id);
    });
    const ids = seen.flat().map(({ id }) => id);
    expect(ids.filter((id) => lasting.includes(id)).toSorted()).toEqual(lasting);
    expect(new Set(ids).size).toBe(ids.length);
  });

  test("keeps every other parameter in the link, and the address as it was written", async () => {
    const user = await service.newcomer("a/b c");
    for (const title of ["milk 1", "milk 2", "milk 3"]) await user.task({ title });
    const answer = await user.get("?limit=1&search=milk&status=pending&sort=title&order=asc&view=compact");
    const link = new URL(next(answer) ?? "", service.url);
    expect(link.pathname).toBe("/api/a%2Fb%20c/tasks");
    expect(Object.fromEntries(link.searchParams)).toEqual({
      limit: "1",
      search: "milk",
      status: "pending",
      sort: "title",
      order: "asc",
      view: "compact",
      cursor: expect.any(String),
    });
  });

  test.each(["😀", "\u0001", '"', "用"])("goes on after a title of 200 times %j", async (character) => {
    const user = await userWith(...[1, 2, 3].map(() => character.repeat(200)));
    for (const order of ["asc", "desc"]) {
      const found = await pages(user, `?sort=title&order=${order}&limit=1`);
      expect(new Set(found.flat().map(({ id }) => id)).size).toBe(3);
    }
  });

  test.each([
    ["?status=completed", "3"],
    ["?status=pending", "2"],
    ["?search=milk", "4"],
    ["?search=milk&status=completed", "2"],
  ])("counts what matches %s and nothing else, on every page", async (query, total) => {
    const user = await userWith(
      ...[1, 2].map((n) => ({ title: `milk ${n}`, completed: true })),
      ...[3, 4].map((n) => ({ title: `milk ${n}` })),
      { title: "bread", completed: true },
    );
    const first = await user.get(`${query}&limit=1`);
    const second = await user.get((next(first) ?? "").replace(/^[^?]*/, ""));
    expect([first, second].map((answer) => answer.headers.get("x-total-count"))).toEqual([total, total]);
  });

  test("has a link as long as something follows, and none when the last task ends the page", async () => {
    const user = await userWith("a", "b", "c", "d");
    const links = async (limit: number) => {
      const first = await user.get(`?limit=${limit}`);
      const second = await user.get((next(first) ?? "?status=all").replace(/^[^?]*/, ""));
      return [first, second].map((answer) => next(answer) !== undefined);
    };
    expect(await links(1)).toEqual([true, true]);
    expect(await links(2)).toEqual([true, false]);
    expect(await links(3)).toEqual([true, false]);
    expect(await links(4)).toEqual([false, false]);
  });

  test("goes on after the longest title there can be", async () => {
    // A control character takes the most room in JSON: six bytes.
    const longest = ["a", "b", "c"].map((end) => "\u0001".repeat(199) + end);
    const user = await userWith(...longest);
    const seen = await pages(user, "?sort=title&order=asc&limit=1");
    expect(seen.flat().map(({ title }) => title)).toEqual(longest);
  });

  test.skipIf(!canQuery)("counts to the last task, however many there are", async () => {
    const user = await service.newcomer();
    await fill(user, 1234);
    const answers = [await user.get("?limit=1"), await user.get("?limit=1000"), await user.get("?offset=1233")];
    answers.push(await user.get((next(answers[0] as Response) ?? "").replace(/^[^?]*/, "")));
    expect(answers.map((answer) => answer.headers.get("x-total-count"))).toEqual(["1234", "1234", "1234", "1234"]);
  });

  test("counts all that match, on every page", async () => {
    const user = await userWith("a", "b", "c");
    const first = await user.get("?limit=2");
    const second = await user.get(
      `?limit=2&cursor=${new URL(next(first) ?? "", service.url).searchParams.get("cursor")}`,
    );
    expect([first, second].map((answer) => answer.headers.get("x-total-count"))).toEqual(["3", "3"]);
    expect(second.headers.get("link")).toBeNull();
  });
});

describe("what a list refuses", () => {
  const task: Task = {
    id: 1,
    user_id: "x",
    title: "t",
    description: null,
    completed: false,
    created_at: "2026-01-01T00:00:00.000Z",
    updated_at: "2026-01-01T00:00:00.000Z",
  };
  const forged = (...parts: unknown[]) => Buffer.from(JSON.stringify(parts)).toString("base64url");

  test.each([
    ...["0", "1001", "-1", "+1", "1.0", "1e2", "0x10", "%201", "01", "", "x", "9".repeat(40)].map((v) => [
      `limit=${v}`,
      "limit",
    ]),
    ...["", "open", "do", "all.", "pending,completed", "__proto__"].map((v) => [`status=${v}`, "status"]),
    ...["", "1", "yes", "completed"].map((v) => [`completed=${v}`, "completed"]),
    ...["offset", "skip"].flatMap((name) =>
      ["10001", "-1", "+1", "1.0", "1e2", "%201", "01", "", "x"].map((v) => [`${name}=${v}`, name]),
    ),
    ["offset=1&skip=2", "skip"],
    ["offset=0&skip=1", "skip"],
    ["completed=true&status=pending", "completed"],
    ["completed=true&status=active", "completed"],
    ["completed=false&status=done", "completed"],
    ["completed=true&status=all", "completed"],
    [`offset=1&cursor=${encodeCursor(task, "created_at", "desc")}`, "offset"],
    [`offset=0&cursor=${encodeCursor(task, "created_at", "desc")}`, "offset"],
    [`skip=1&cursor=${encodeCursor(task, "created_at", "desc")}`, "skip"],
    [`sort=due_date&order=asc&cursor=${encodeCursor(task, "created_at", "asc")}`, "cursor"],
    ["sort=due_date&order=up", "order"],
    ...["id", "Title", "due", "CREATED", "", "constructor"].map((v) => [`sort=${v}`, "sort"]),
    ...["ASC", "", "up"].map((v) => [`order=${v}`, "order"]),
    [`search=${"a".repeat(201)}`, "search"],
    ["search=%00", "search"],
    ...["", "abc", "%00", "a".repeat(3000)].map((v) => [`cursor=${v}`, "cursor"]),
    [`cursor=${encodeCursor(task, "title", "desc")}`, "cursor"],
    [`cursor=${encodeCursor(task, "created_at", "asc")}`, "cursor"],
    [`cursor=${encodeCursor(task, "updated_at", "desc")}`, "cursor"],
    ...[
      ["created_at", "desc", "0000-01-01T00:00:00.000Z", 1],
      ["created_at", "desc", "+012026-01-01T00:00:00.000Z", 1],
      ["created_at", "desc", "2026-02-30T00:00:00.000Z", 1],
      ["created_at", "desc", "now", 1],
      ["created_at", "desc", 5, 1],
      ["created_at", "desc", task.created_at, 1.5],
      ["created_at", "desc", task.created_at, 2 ** 60],
      ["created_at", "desc", task.created_at, "1; --"],
      ["created_at", "desc", task.created_at],
      ["created_at", "desc", task.created_at, 1, 1],
    ].map((parts) => [`cursor=${forged(...parts)}`, "cursor"]),
  ])("?%s", async (query, field) => {
    const answer = await (await service.newcomer()).get(`?${query}`);
    expect(answer.status).toBe(422);
    expect(await answer.json()).toMatchObject({ errors: [{ loc: ["query", field] }] });
  });

  test.each(["\0", "\ud800"])("a title cursor that Postgres could not read", async (title) => {
    const cursor = forged("title", "asc", title, 1);
    const answer = await (await service.newcomer()).get(`?sort=title&order=asc&cursor=${cursor}`);
    expect(answer.status).toBe(422);
  });

  test("what contradicts itself, all of it at once", async () => {
    const cursor = encodeCursor(task, "created_at", "desc");
    const answer = await (await service.newcomer()).get(
      `?completed=true&status=pending&offset=1&skip=2&cursor=${cursor}`,
    );
    const { errors } = (await answer.json()) as { errors: { loc: string[] }[] };
    expect(new Set(errors.map(({ loc }) => loc[1]))).toEqual(new Set(["completed", "offset", "skip"]));
  });

  test("all of it at once", async () => {
    const answer = await (await service.newcomer()).get("?limit=0&status=x&sort=x&order=x");
    const { errors } = (await answer.json()) as { errors: { loc: string[] }[] };
    expect(errors.map(({ loc }) => loc[1]).toSorted()).toEqual(["limit", "order", "sort", "status"]);
  });
});
