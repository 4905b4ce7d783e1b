import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { get, type IncomingMessage } from "node:http";
import { gunzipSync } from "node:zlib";
import { service, start, type User } from "../harness.ts";

// Processes and databases take their time on a machine that does other things too.
setDefaultTimeout(60_000);

const LONG = { title: "x".repeat(200), description: "y".repeat(1000) };

async function userWith(tasks: number): Promise<User> {
  const user = await service.newcomer();
  await Promise.all(Array.from({ length: tasks }, () => user.task(LONG)));
  return user;
}

/** The answer's bytes as they came. */
const fetchRaw = (url: string, token: string, encoding?: string, method = "GET") =>
  fetch(url, {
    method,
    // Bun's fetch asks for several encodings unless it is told otherwise.
    headers: { authorization: `Bearer ${token}`, "accept-encoding": encoding ?? "" },
    decompress: false,
  });

describe("a long list", async () => {
  const user = await userWith(20);
  const list = (encoding?: string, method?: string) => fetchRaw(user.path(), user.token, encoding, method);
  const plain = await (await list()).bytes();

  test.each([
    "gzip",
    "GZIP",
    "gzip, deflate, br, zstd",
    "br;q=1.0, gzip;q=0.8, *;q=0.1",
    "gzip;q=0.001",
    "*",
    "identity;q=0.5, gzip;q=0.5",
    "identity;q=0, gzip",
    "deflate;q=1, *;q=0.5",
  ])("is gzipped for %s", async (encoding) => {
    const answer = await list(encoding);
    expect(answer.headers.get("content-encoding")).toBe("gzip");
    expect(answer.headers.get("content-type")).toBe("application/json;charset=utf-8");
    expect(answer.headers.get("vary")).toBe("Origin, Accept-Encoding");
    expect(answer.headers.get("x-total-count")).toBe("20");
    const bytes = await answer.bytes();
    expect(bytes.length).toBeLessThan(plain.length / 10);
    expect(gunzipSync(bytes).equals(plain)).toBe(true);
  });

  test("is whole, gzipped or not, for one who asks for a range: it is no file", async () => {
    for (const encoding of ["gzip", "identity"]) {
      const headers = { authorization: `Bearer ${user.token}`, "accept-encoding": encoding, range: "bytes=0-9" };
      const answer = await fetch(user.path(), { headers });
      expect(answer.status).toBe(200);
      expect([answer.headers.get("accept-ranges"), answer.headers.get("content-range")]).toEqual([null, null]);
      expect(await answer.bytes()).toEqual(plain);
    }
  });

  test.each([
    "",
    "identity",
    "gzip;q=0",
    "gzip; q=0.000, *",
    "gzip;Q=0",
    "*;q=0",
    "gzip;q=0.5, identity",
    "gzip;q=0.5, *",
    "gzip;q=0.5, identity;q=0.7",
    "br",
    "x-gzipped",
    "gzip;q=x",
    "deflate, br",
  ])("is not for %j", async (encoding) => {
    const answer = await list(encoding);
    expect(answer.headers.get("content-encoding")).toBeNull();
    expect(answer.headers.get("vary")).toBe("Origin, Accept-Encoding");
    expect(Buffer.from(await answer.bytes()).equals(plain)).toBe(true);
  });

  test.each(["gzip", "identity"])("has the same headers for HEAD, %s", async (encoding) => {
    const [get, head] = [await list(encoding), await list(encoding, "HEAD")];
    for (const name of ["content-encoding", "content-type", "content-length", "vary", "x-total-count", "link"])
      expect([name, head.headers.get(name)]).toEqual([name, get.headers.get(name)]);
    expect(Number(head.headers.get("content-length"))).toBe((await get.bytes()).length);
    expect((await head.bytes()).length).toBe(0);
  });

  test("is left to a proxy with COMPRESSION=False", async () => {
    const there = await start({ COMPRESSION: "False" });
    const answer = await fetchRaw(`${there.url}/openapi.json`, "", "gzip");
    expect([answer.headers.get("content-encoding"), answer.headers.get("vary")]).toEqual([null, "Origin"]);
    expect((await answer.bytes()).length).toBeGreaterThan(8192);
    const script = await fetchRaw(`${there.url}/docs/swagger-ui.css`, "", "gzip");
    expect(script.headers.get("content-encoding")).toBeNull();
    await there.stop();
  });
});

describe("what is short is sent as it is", () => {
  test.each([0, 1, 5])("a list of %d", async (tasks) => {
    const user = await userWith(tasks);
    const answer = await fetchRaw(user.path(), user.token, "gzip");
    expect([answer.headers.get("content-encoding"), answer.headers.get("vary")]).toEqual([null, "Origin"]);
    expect(answer.headers.get("content-type")).toBe("application/json;charset=utf-8");
    expect(await answer.json()).toHaveLength(tasks);
  });

  test("a single task, however long, and a failure", async () => {
    const user = await service.newcomer();
    const { id } = await user.task({ title: "用".repeat(200), description: "\u0001".repeat(1000) });
    for (const rest of [`/${id}`, "/0", `?search=${"x".repeat(201)}`]) {
      const answer = await fetchRaw(user.path(rest), user.token, "gzip");
      expect(answer.headers.get("content-encoding")).toBeNull();
    }
  });

  test("8 KiB is the limit, in bytes", async () => {
    const user = await service.newcomer();
    const { id } = await user.task();
    await Promise.all(Array.from({ length: 3 }, () => user.task({ title: "x", description: "用".repeat(800) })));
    const missing = 8192 - (await (await user.get()).bytes()).length;
    const longest = (description: string) => user.put(id, { description });
    const encoding = async () => (await fetchRaw(user.path(), user.token, "gzip")).headers.get("content-encoding");
    // In place of null, a text in quotes.
    await longest("x".repeat(missing + 2));
    expect((await (await user.get()).bytes()).length).toBe(8192);
    expect(await encoding()).toBeNull();
    await longest("x".repeat(missing + 3));
    expect(await encoding()).toBe("gzip");
  });

  test("whatever goes to who says nothing of what is accepted", async () => {
    const user = await userWith(20);
    const headers = { authorization: `Bearer ${user.token}` };
    const heads = ["", "?limit=x"].map(
      (rest) =>
        new Promise<IncomingMessage>((resolve, reject) => {
          get(user.path(rest), { headers }, (answer) => resolve(answer.resume())).on("error", reject);
        }),
    );
    const [list, failure] = (await Promise.all(heads)).map((answer) => answer.headers);
    expect([list?.["content-encoding"], list?.vary]).toEqual([undefined, "Origin, Accept-Encoding"]);
    expect(failure?.["content-type"]).toBe("application/json");
  });
});

describe("the document and what the page loads", () => {
  test.each([
    ["/openapi.json", "application/json;charset=utf-8"],
    ["/docs/swagger-ui.css", "text/css; charset=utf-8"],
    ["/docs/swagger-ui.js", "text/javascript; charset=utf-8"],
  ])("%s comes as it is asked for", async (path, type) => {
    const [gzipped, plain, unasked, head] = await Promise.all([
      fetchRaw(service.url + path, "", "gzip, deflate"),
      fetchRaw(service.url + path, "", "identity"),
      fetchRaw(service.url + path, ""),
      fetchRaw(service.url + path, "", "gzip", "HEAD"),
    ]);
    expect(gzipped.headers.get("content-encoding")).toBe("gzip");
    expect(head.headers.get("content-encoding")).toBe("gzip");
    expect(plain.headers.get("content-encoding")).toBeNull();
    expect(unasked.headers.get("content-encoding")).toBeNull();
    for (const answer of [gzipped, plain, unasked, head]) {
      expect([answer.status, answer.headers.get("content-type")]).toEqual([200, type]);
      expect(answer.headers.get("vary")).toBe("Origin, Accept-Encoding");
    }
    const bytes = await plain.bytes();
    expect(gunzipSync(await gzipped.bytes()).equals(bytes)).toBe(true);
    expect(Buffer.from(await unasked.bytes()).equals(bytes)).toBe(true);
  });

  test.each(["GET", "HEAD"])("/ leads to it: %s", async (method) => {
    const answer = await fetch(service.url, { method, redirect: "manual" });
    expect([answer.status, answer.headers.get("location")]).toEqual([307, "/docs"]);
    expect(answer.headers.get("x-request-id")).not.toBeNull();
    expect((await fetch(service.url, { method: "POST" })).headers.get("allow")).toBe("GET, HEAD");
  });
});
