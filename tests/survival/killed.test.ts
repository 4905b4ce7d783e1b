import { expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Task } from "../../src/tasks/model.ts";
import { databaseSettings, hasServer, proxy } from "../database.ts";
import { spawnService, User } from "../harness.ts";
import { relay } from "../relay.ts";

// A service is killed and started again and again.
setDefaultTimeout(240_000);

const directory = mkdtempSync(join(tmpdir(), "tasks-api-killed-"));

const DATABASES = [
  ["an embedded database", { settings: { DATABASE_URL: `pglite://${directory}` }, kills: 2, each: 10 }],
  ...(hasServer ? ([["a server", { settings: await databaseSettings(), kills: 15, each: 20 }]] as const) : []),
] as const;

const TITLE = "title of the first";
const DESCRIPTION = "description of the second";

const all = async (user: User) => (await (await user.get()).json()) as Task[];
const tagged = async (user: User, id: number) => {
  const answer = await user.get(`/${id}`);
  return { task: (await answer.json()) as Task, headers: { "if-match": answer.headers.get("etag") ?? "" } };
};

/** A client's requests, each of which is the same when it is sent again. */
async function requestsOf(user: User, name: string, each: number) {
  const [edited, editedByTwo, toggled] = await Promise.all(
    [each, each, each].map(async (n) => {
      const tasks = await Promise.all(Array.from({ length: n / 2 }, () => user.task({ title: "made before" })));
      return Promise.all(tasks.map(({ id }) => tagged(user, id)));
    }),
  );
  const put = (tasks = edited) =>
    (tasks ?? []).map(({ task, headers }) => ({
      task,
      send: (as: User) => as.put(task.id, { title: TITLE }, headers),
    }));
  return {
    posts: Array.from({ length: each }, (_, i) => ({
      title: `${name}/${i}`,
      send: (as: User) => as.post({ title: `${name}/${i}` }, { "idempotency-key": `${name}/${i}` }),
    })),
    edits: put(edited),
    editsOfTwo: put(editedByTwo),
    toggles: (toggled ?? []).map(({ task, headers }) => ({
      task,
      send: (as: User) => as.send("PATCH", `/${task.id}/complete`, undefined, headers),
    })),
  };
}

test.each(DATABASES)(
  "killed before it can answer, it has done nothing twice when all is sent again, and no edit is lost: %s",
  async (_, { settings, kills, each }) => {
    let service = await spawnService(settings);
    const { id, token } = await service.newcomer();
    const titles: string[] = [];
    let doneBefore = 0;
    for (let kill = 0; kill < kills; kill++) {
      const user = new User(service.url, id, token);
      const { posts, edits, editsOfTwo, toggles } = await requestsOf(user, `${kill}`, each);
      titles.push(...posts.map(({ title }) => title));
      const before = (await all(user)).length;

      const network = relay(Number(new URL(service.url).port));
      network.deafen();
      const unheard = new User(`http://localhost:${network.port}`, id, token);
      const lost = [...posts, ...edits, ...editsOfTwo, ...toggles].map(({ send }) =>
        send(unheard).then(
          ({ status }) => status,
          () => "no answer",
        ),
      );
      // Now some of it is done, and the rest is under way.
      while ((await all(user)).length <= before + ((kill * 7) % each)) await Bun.sleep(1);
      await service.stop("SIGKILL");
      expect(new Set(await Promise.all(lost))).toEqual(new Set(["no answer"]));
      await network.stop();

      service = await spawnService(settings);
      const [first, second] = [new User(service.url, id, token), new User(service.url, id, token)];
      await Promise.all(
        editsOfTwo.map(async ({ task }) => {
          const { headers } = await tagged(second, task.id);
          expect((await second.put(task.id, { description: DESCRIPTION }, headers)).status).toBe(200);
        }),
      );
      const again = await Promise.all(posts.map(({ send }) => send(first)));
      expect(again.map(({ status }) => status)).toEqual(posts.map(() => 201));
      doneBefore += again.filter(({ headers }) => headers.has("idempotency-replayed")).length;
      expect(await Promise.all(again.map(async (answer) => ((await answer.json()) as Task).title))).toEqual(
        posts.map(({ title }) => title),
      );
      const [edited, refused, toggled] = await Promise.all(
        [edits, editsOfTwo, toggles].map((sent) =>
          Promise.all(sent.map(async ({ send }) => (await send(first)).status)),
        ),
      );
      expect(new Set([...(edited ?? []), ...(toggled ?? [])]).isSubsetOf(new Set([200, 412]))).toBe(true);
      expect(new Set(refused)).toEqual(new Set([412]));

      const tasks = new Map((await all(first)).map((task) => [task.id, task]));
      for (const { task } of edits) expect(tasks.get(task.id)?.title).toBe(TITLE);
      for (const { task } of editsOfTwo) expect(tasks.get(task.id)?.description).toBe(DESCRIPTION);
      for (const { task } of toggles) expect(tasks.get(task.id)?.completed).toBe(true);
      const made = [...tasks.values()].map(({ title }) => title).filter((title) => title.includes("/"));
      expect(made.toSorted()).toEqual(titles.toSorted());
    }
    expect(doneBefore).toBeGreaterThan(kills);
    await service.stop();
    rmSync(directory, { recursive: true, force: true });
  },
);

// Through the proxy of Neon's driver there is no port to put a relay before.
test.skipIf(!hasServer || proxy !== undefined)(
  "cut off from its server while answers are on their way, it has done nothing twice when all is sent again",
  async () => {
    const url = new URL((await databaseSettings()).DATABASE_URL ?? "");
    const network = relay(Number(url.port || 5432), { hostname: url.hostname });
    url.host = `127.0.0.1:${network.port}`;
    const service = await spawnService({ DATABASE_URL: url.href });
    const user = await service.newcomer();
    const titles: string[] = [];
    const statuses: number[] = [];
    const untilDone = async (send: (as: User) => Promise<Response>) => {
      let answer = await send(user);
      for (; answer.status === 503; answer = await send(user)) await Bun.sleep(20);
      return answer.status;
    };
    for (let round = 0; round < 12; round++) {
      const { posts, edits, editsOfTwo, toggles } = await requestsOf(user, `${round}`, 10);
      titles.push(...posts.map(({ title }) => title));
      const requests = [...posts, ...edits, ...editsOfTwo, ...toggles];
      const answers = requests.map(({ send }) => send(user));
      await Bun.sleep(round * 2);
      network.deafen();
      await Bun.sleep(10);
      network.cut();
      statuses.push(...(await Promise.all(answers)).map(({ status }) => status));
      network.restore();
      expect(await Promise.all(posts.map(({ send }) => untilDone(send)))).toEqual(posts.map(() => 201));
      await Promise.all([...edits, ...editsOfTwo, ...toggles].map(({ send }) => untilDone(send)));
      const tasks = new Map((await all(user)).map((task) => [task.id, task]));
      for (const { task } of [...edits, ...editsOfTwo]) expect(tasks.get(task.id)?.title).toBe(TITLE);
      for (const { task } of toggles) expect(tasks.get(task.id)?.completed).toBe(true);
      const made = [...tasks.values()].map(({ title }) => title).filter((title) => title.includes("/"));
      expect(made.toSorted()).toEqual(titles.toSorted());
    }
    // How many were answered before depends on the machine.
    expect(new Set(statuses).isSubsetOf(new Set([200, 201, 503]))).toBe(true);
    expect(statuses).toContain(503);
    await service.stop();
    await network.stop();
  },
);
