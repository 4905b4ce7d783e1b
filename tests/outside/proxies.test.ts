import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { connect } from "node:net";
import type { Task } from "../../src/tasks/model.ts";
import { spawnService, User } from "../harness.ts";
import { hasHaproxy, hasNginx, NGINX, startHaproxy, startNginx } from "../proxies.ts";

setDefaultTimeout(60_000);

const proxies: [string, boolean, (url: string) => ReturnType<typeof startHaproxy>][] = [
  ["nginx that keeps connections but says that it closes them", hasNginx, (url) => startNginx(url, NGINX.plain)],
  ["nginx that keeps connections and compresses", hasNginx, (url) => startNginx(url, NGINX.keepingConnections)],
  ["HAProxy", hasHaproxy, startHaproxy],
];

describe.each(proxies)("behind %s", (_, isHere, start) => {
  describe.skipIf(!isHere)("", () => {
    let service: Awaited<ReturnType<typeof spawnService>>;
    let proxy: Awaited<ReturnType<typeof start>>;
    beforeAll(async () => {
      service = await spawnService({ RATE_LIMIT: "0" });
      proxy = await start(service.url);
    });
    afterAll(async () => {
      await proxy?.stop();
      await service?.stop();
    });

    /** A user whose requests go through the proxy. */
    const newcomer = async (id?: string) => {
      const { id: name, token } = await service.newcomer(id);
      return new User(proxy.url, name, token);
    };

    test("Location and Link lead on through it", async () => {
      const user = await newcomer();
      const made = await user.post({ title: "1" });
      const location = new URL(made.headers.get("location") ?? "", made.url).href;
      expect(location).toStartWith(proxy.url);
      const found = await fetch(location, { headers: { authorization: `Bearer ${user.token}` } });
      expect([found.status, await found.json()]).toEqual([200, await made.json()]);

      for (const title of ["2", "3", "4", "5"]) await user.task({ title });
      const titles: string[] = [];
      let url: string | undefined = user.path("?limit=2&order=asc");
      while (url !== undefined) {
        const answer: Response = await fetch(url, { headers: { authorization: `Bearer ${user.token}` } });
        titles.push(...((await answer.json()) as Task[]).map(({ title }) => title));
        const next: string | undefined = /<([^>]+)>/.exec(answer.headers.get("link") ?? "")?.[1];
        url = next && new URL(next, url).href;
        expect(url ?? proxy.url).toStartWith(proxy.url);
      }
      expect(titles).toEqual(["1", "2", "3", "4", "5"]);
    });

    test("a user's id is taken as it was sent", async () => {
      const user = await newcomer("auth0|a/b %2F 用户");
      const { id } = await user.task({ title: "mine" });
      expect(await (await user.get(`/${id}`)).json()).toMatchObject({ user_id: user.id, title: "mine" });
    });

    test("a request's id is the same in the answer and in the log", async () => {
      const user = await newcomer();
      const answer = await user.get();
      const id = answer.headers.get("x-request-id") ?? "";
      expect(id).toMatch(/^[\w.-]{1,64}$/);
      while (!service.lines.some((line) => line.includes(id))) await Bun.sleep(10);
    });

    test("a long list arrives whole", async () => {
      const writer = await service.newcomer();
      const user = await newcomer(writer.id);
      const description = "x".repeat(1000);
      for (let n = 0; n < 200; n += 20)
        await Promise.all(Array.from({ length: 20 }, (_, m) => writer.task({ title: `${n + m}`, description })));
      for (const encoding of ["gzip", "identity"]) {
        const answer = await user.get("", { "accept-encoding": encoding });
        expect(((await answer.json()) as Task[]).length).toBe(200);
      }
    });

    test("errors stay the service's own", async () => {
      const user = await newcomer();
      // Each again and again: whether an early answer reaches it is a matter of moments.
      for (let round = 0; round < 20; round++) {
        const tooLong = await user.post({ title: "x".repeat(70_000) });
        expect([tooLong.status, await tooLong.json()]).toEqual([413, expect.objectContaining({ status: 413 })]);
        const [path, headers] = [user.path(), { "content-type": "application/json" }];
        const stranger = await fetch(path, { method: "POST", body: JSON.stringify("x".repeat(500_000)), headers });
        expect([stranger.status, stranger.headers.get("www-authenticate")]).toEqual([401, "Bearer"]);
      }
      expect((await user.send("HEAD")).status).toBe(200);
    });

    // Bun closes the connections of requests that say `Connection: close`: nginx would use them again if it weren't
    // told.
    test("hundreds of requests at once are all answered, and each with its own", async () => {
      const users = await Promise.all([1, 2, 3].map(() => newcomer()));
      const results = new Map<string, number>();
      for (let round = 0; round < 3; round++)
        await Promise.all(
          users.flatMap((user) =>
            Array.from({ length: 100 }, async (_, n) => {
              const answer = await user.post({ title: `${n}` });
              const text = await answer.text();
              const result = text.includes(`"title":"${n}"`) ? "its own" : `${answer.status}: ${text}`;
              results.set(result, (results.get(result) ?? 0) + 1);
            }),
          ),
        );
      expect([...results]).toEqual([["its own", 900]]);
    });
  });
});

// nginx and AWS's balancer keep a connection for 60 s after its last request. Which end closes it first decides whether
// a POST that is sent at that moment is lost. It takes as long as it takes: CI waits beside its other work.
test.skipIf(process.env.TEST_SLOW === undefined)(
  "a connection that has been idle for longer than balancers keep theirs takes a POST",
  async () => {
    const service = await spawnService();
    const user = await service.newcomer();
    const post = (title: string) =>
      `POST /api/${user.id}/tasks HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${user.token}\r\nContent-Type: application/json\r\nContent-Length: ${title.length + 12}\r\n\r\n{"title":"${title}"}`;
    const connections = Array.from({ length: 4 }, () => {
      const socket = connect(Number(new URL(service.url).port), "127.0.0.1");
      const received: string[] = [];
      socket.on("data", (chunk) => received.push(chunk.toString())).on("error", () => received.push("lost"));
      socket.write(post("first"));
      return { socket, received };
    });
    await Bun.sleep(75_000);
    for (const { socket } of connections) socket.write(post("second"));
    await Bun.sleep(1000);
    for (const { socket, received } of connections) {
      expect(received.join("").match(/HTTP\/1.1 201/g)).toHaveLength(2);
      socket.destroy();
    }
    await service.stop();
  },
  120_000,
);
