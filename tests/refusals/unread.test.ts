import { expect, setDefaultTimeout, test } from "bun:test";
import { connect, type Socket } from "node:net";
import type { Context } from "elysia";
import { longAnswers } from "../../src/http/unread.ts";
import { canQuery, queryDatabase, start, type User } from "../harness.ts";

setDefaultTimeout(180_000);

/**
 * The whole list, over a socket of its own: after some thousand requests in one process, Bun's fetch sometimes stops
 * reading a body of megabytes half-way.
 */
async function whole(user: User): Promise<{ status: number; head: string; body: string }> {
  const socket = open(user, "Connection: close");
  const chunks: Buffer[] = [];
  for await (const chunk of socket) chunks.push(chunk);
  const text = Buffer.concat(chunks).toString();
  const end = text.indexOf("\r\n\r\n");
  const head = text.slice(0, end).toLowerCase();
  const body = text.slice(end + 4);
  return { status: Number(head.slice(9, 12)), head, body: head.includes("chunked") ? joined(body) : body };
}

/** A socket on which the list has been asked for. */
function open(user: User, header = "X-Nothing: 0") {
  const { hostname, port } = new URL(user.url);
  const socket = connect(Number(port), hostname);
  socket.write(
    `GET ${user.path().slice(user.url.length)} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${user.token}\r\n${header}\r\n\r\n`,
  );
  return socket;
}

/** A socket on which the list has begun to come, and is read no further. */
const begun = (user: User) =>
  new Promise<Socket>((resolve, reject) => {
    const socket = open(user)
      .on("error", reject)
      .once("data", () => resolve(socket.pause()));
  });

/** What stands in the chunks (RFC 9112, section 7.1). */
function joined(chunked: string): string {
  let body = "";
  for (let at = 0; at < chunked.length; ) {
    const start = chunked.indexOf("\r\n", at) + 2;
    const size = Number.parseInt(chunked.slice(at, start), 16);
    body += chunked.slice(start, start + size);
    at = start + size + 2;
  }
  return body;
}

/** Gives a user the longest list that there can be: 7 MB, and over 1 MB when it is gzipped. */
async function fill(user: User) {
  // Six bytes each in JSON. A line of its own for each task, for gzip not to find them again.
  const text = (length: number) => {
    const bytes = crypto.getRandomValues(new Uint8Array(length));
    return String.fromCharCode(...bytes.map((byte) => 0x0e + (byte % 18)));
  };
  for (let round = 0; round < 20; round++)
    await Promise.all(
      Array.from({ length: 50 }, () => user.task({ title: `x${text(198)}x`, description: text(1_000) })),
    );
}

/** Asks until the answer has this status. */
async function until(status: number, user: User) {
  for (;;) {
    const answer = await whole(user);
    if (answer.status === status) return answer;
    await Bun.sleep(20);
  }
}

test("who leaves long answers unread gets no more of them; short ones, and others, go on", async () => {
  const service = await start();
  const user = await service.newcomer();
  const other = await service.newcomer();
  await fill(user);
  const { body: before } = await whole(user);
  expect(JSON.parse(before)).toHaveLength(1_000);
  const readers = await Promise.all([begun(user), begun(user)]);
  const refused = await whole(user);
  expect(refused.status).toBe(429);
  expect(refused.head).toContain("retry-after: 5");
  expect(JSON.parse(refused.body)).toMatchObject({ status: 429, detail: expect.stringContaining("unread") });
  const gzipped = await user.get("", { "accept-encoding": "gzip" });
  expect(gzipped.status).toBe(429);
  const NAMES = ["content-encoding", "etag", "link", "x-total-count"];
  expect(NAMES.map((name) => gzipped.headers.get(name))).toEqual([null, null, null, null]);
  expect(gzipped.headers.get("cache-control")).toBe("no-store");
  expect(await gzipped.json()).toMatchObject({ status: 429 });
  expect((await user.get("?limit=1")).status).toBe(200);
  expect((await other.get()).status).toBe(200);
  for (const reader of readers) reader.destroy();
  expect((await until(200, user)).body).toBe(before);
  // A client that hangs up, or asks for the head alone, leaves nothing behind.
  for (let n = 0; n < 5; n++) await user.send("HEAD", "", undefined, { "accept-encoding": "identity" });
  for (let n = 0; n < 5; n++) {
    const hangUp = new AbortController();
    const answer = await fetch(user.path(), {
      headers: { authorization: `Bearer ${user.token}`, "accept-encoding": "identity" },
      signal: hangUp.signal,
    });
    expect(answer.status).toBe(200);
    hangUp.abort();
    await Bun.sleep(50);
  }
  expect((await whole(user)).status).toBe(200);
  await service.stop();
});

test.skipIf(!canQuery)("while all together leave 64 MiB unread, only who leaves none gets a long answer", async () => {
  const service = await start();
  const [tidy, modest] = [await service.newcomer(), await service.newcomer()];
  const greedy = await Promise.all(Array.from({ length: 5 }, () => service.newcomer()));
  // 7 MB in JSON: two of them are more than one user may leave.
  for (const { id } of [tidy, modest, ...greedy])
    await queryDatabase(
      `insert into tasks (user_id, title, description)
        select $1, repeat(chr(1), 200), repeat(chr(1), 1000) from generate_series(1, 1000)`,
      [id],
    );
  const readers = await Promise.all([modest, ...greedy].map(begun));
  readers.push(...(await Promise.all(greedy.map(begun))));
  for (const user of [modest, ...greedy]) expect((await whole(user)).status).toBe(429);
  expect((await whole(tidy)).status).toBe(200);
  for (const reader of readers) reader.destroy();
  await until(200, modest);
  await service.stop();
});

// Over a loopback the kernel takes megabytes of an answer that nobody reads: what is left of it can't be seen there.
test.each([
  ["64 KiB of ASCII", "x".repeat(65_536), 129],
  ["64 KiB of Chinese", "\u4efb".repeat(21_846), 128],
  ["gzipped ones of 64 KiB", new Uint8Array(65_536), 129],
  ["ones of 64 KiB less a byte", "x".repeat(65_535), 200],
])("%s, unread, are refused beyond 8 MiB, unless the kernel holds them", async (_, response, answered) => {
  let refused = 0;
  const hook = longAnswers(() => {
    refused++;
  });
  const ask = async () => {
    const set: Context["set"] = { headers: {} };
    const given = typeof response === "string" ? response : new Response(response);
    await hook({ request: new Request("http://x"), set, userId: "ada", response: given });
    return set.status ?? 200;
  };
  const statuses: unknown[] = [];
  for (let n = 0; n < 200; n++) statuses.push(await ask());
  expect(statuses.filter((status) => status === 200)).toHaveLength(answered);
  expect(refused).toBe(200 - answered);
});
