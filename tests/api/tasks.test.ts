import { describe, expect, test } from "bun:test";
import type { Task } from "../../src/tasks/model.ts";
import { service } from "../harness.ts";

const ISO = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;
const read = async (answer: Response) => (await answer.json()) as Task;

describe("creating", () => {
  test("answers 201 with the whole task and where it is", async () => {
    const user = await service.newcomer("auth0|crèche/1");
    const answer = await user.post({ title: "Buy milk", description: "Oat", completed: true });
    const task = await read(answer);
    expect(answer.status).toBe(201);
    expect(task).toEqual({
      id: expect.any(Number),
      user_id: user.id,
      title: "Buy milk",
      description: "Oat",
      completed: true,
      created_at: expect.stringMatching(ISO),
      updated_at: task.created_at,
    });
    const location = answer.headers.get("location") ?? "";
    expect(location).toBe(`/api/auth0%7Ccr%C3%A8che%2F1/tasks/${task.id}`);
    expect(await read(await user.get(`/${task.id}`))).toEqual(task);
  });

  test("needs a title only", async () => {
    const user = await service.newcomer();
    expect(await user.task({ title: "x" })).toMatchObject({ description: null, completed: false });
  });

  test("trims the title and keeps all other text as it is", async () => {
    const user = await service.newcomer();
    const description = "  <b>'; drop table tasks; --</b>\r\n\t\u202e𝒳  ";
    expect(await user.task({ title: " \u00a0a  b\u2003\n", description })).toMatchObject({
      title: "a  b",
      description,
    });
  });

  test("keeps a U+FEFF that begins a text, which is no white space", async () => {
    const user = await service.newcomer();
    const [title, description] = ["\ufeffx", "\ufeffd"];
    const { id } = await user.task({ title, description });
    expect(await read(await user.get(`/${id}`))).toMatchObject({ title, description });
    expect(await read(await user.get("?sort=title"))).toMatchObject([{ title, description }]);
  });

  test("does not count the white space around a title, however much there is", async () => {
    const user = await service.newcomer();
    const title = "😀".repeat(200);
    const { id } = await user.task({ title: `${" ".repeat(300)}${title}\n\u3000` });
    expect(await read(await user.get(`/${id}`))).toMatchObject({ title });
    expect(await read(await user.put(id, { title: `\t${title}${" ".repeat(300)}` }))).toMatchObject({ title });
  });

  test("takes for white space what Python does: not U+FEFF, but U+001C to U+001F and U+0085", async () => {
    const user = await service.newcomer();
    const [title, around] = ["x\ufeff", "\x1c\x1d\x1e\x1f\x85\u1680\u2028\u2029\u202f\u205f\u3000"];
    const task = await user.task({ title: around + title + around });
    expect(task.title).toBe(title);
    expect(await read(await user.put(task.id, { title: around + title + around }))).toMatchObject({ title });
  });

  test("ignores what it does not know, and what is not the client's to set", async () => {
    const user = await service.newcomer();
    const past = "2000-01-01T00:00:00.000Z";
    const theirs = { id: 1, user_id: "somebody", created_at: past, updated_at: past, priority: 1, tags: [] };
    const task = await user.task({ title: "x", ...theirs });
    expect(task.user_id).toBe(user.id);
    expect(task.created_at > past && task.updated_at > past).toBe(true);
    expect(Object.keys(task)).not.toContain("priority");
  });

  test("takes 200 emoji for a title and 1,000 for a description", async () => {
    const user = await service.newcomer();
    const [title, description] = ["😀".repeat(200), "👍".repeat(1000)];
    expect(await user.task({ title, description })).toMatchObject({ title, description });
  });
});

describe("updating", () => {
  test("changes the fields given and keeps the others", async () => {
    const user = await service.newcomer();
    const task = await user.task({ title: "a", description: "b", completed: true });
    const changed = await read(await user.put(task.id, { title: " c " }));
    expect(changed).toEqual({ ...task, title: "c", updated_at: changed.updated_at });
    expect(await read(await user.put(task.id, { completed: false }))).toMatchObject({
      title: "c",
      description: "b",
      completed: false,
    });
  });

  test("clears the description for a null", async () => {
    const user = await service.newcomer();
    const task = await user.task({ title: "a", description: "b" });
    expect(await read(await user.put(task.id, { description: null }))).toMatchObject({ description: null });
  });

  test("never applies an id, an owner or a time", async () => {
    const user = await service.newcomer();
    const task = await user.task();
    const theirs = { id: 1, user_id: "x", created_at: "2000-01-01T00:00:00.000Z", title: "new" };
    expect(await read(await user.put(task.id, theirs))).toMatchObject({
      id: task.id,
      user_id: user.id,
      created_at: task.created_at,
    });
  });

  test("moves updated_at for whatever it changes, and only that time", async () => {
    const user = await service.newcomer();
    const task = await user.task();
    let before = task.updated_at;
    for (const change of [
      () => user.put(task.id, { title: "x" }),
      () => user.put(task.id, { description: null }),
      () => user.put(task.id, { completed: true }),
      () => user.complete(task.id),
      () => user.complete(task.id, { completed: false }),
    ]) {
      const changed = await read(await change());
      expect(changed.updated_at > before).toBe(true);
      expect(changed.created_at).toBe(task.created_at);
      expect(await read(await user.get(`/${task.id}`))).toEqual(changed);
      before = changed.updated_at;
    }
  });

  test("moves updated_at every time, even within a millisecond", async () => {
    const user = await service.newcomer();
    const { id } = await user.task();
    const answers = await Promise.all(Array.from({ length: 20 }, () => user.put(id, { title: "same" })));
    const times = await Promise.all(answers.map(async (answer) => (await read(answer)).updated_at));
    expect(new Set(times).size).toBe(20);
  });
});

describe("completing", () => {
  test("toggles without a body, with an empty one, and with nothing but a content type", async () => {
    const user = await service.newcomer();
    const { id } = await user.task();
    const json = { "content-type": "application/json" };
    expect(await read(await user.complete(id))).toMatchObject({ completed: true });
    expect(await read(await user.complete(id, {}))).toMatchObject({ completed: false });
    expect(await read(await user.send("PATCH", `/${id}/complete`, undefined, json))).toMatchObject({
      completed: true,
    });
  });

  test("sets the state that is given, as often as it is asked to", async () => {
    const user = await service.newcomer();
    const { id, updated_at } = await user.task();
    const once = await read(await user.complete(id, { completed: true }));
    const twice = await read(await user.complete(id, { completed: true }));
    expect([once.completed, twice.completed]).toEqual([true, true]);
    expect(updated_at < once.updated_at && once.updated_at < twice.updated_at).toBe(true);
  });

  test("loses none of 200 toggles at once", async () => {
    const user = await service.newcomer();
    const { id } = await user.task();
    const answers = await Promise.all(Array.from({ length: 200 }, () => user.complete(id)));
    const states = await Promise.all(answers.map(async (answer) => (await read(answer)).completed));
    expect(states.filter(Boolean).length).toBe(100);
    expect(await read(await user.get(`/${id}`))).toMatchObject({ completed: false });
  });
});

describe("deleting", () => {
  test("answers 204 with nothing, and the task is gone", async () => {
    const user = await service.newcomer();
    const { id } = await user.task();
    const answer = await user.delete(id);
    expect([answer.status, await answer.text()]).toEqual([204, ""]);
    expect((await user.get(`/${id}`)).status).toBe(404);
    expect((await user.delete(id)).status).toBe(404);
  });

  test("does not mind a content type without a body, or a body", async () => {
    const user = await service.newcomer();
    const [one, two] = [await user.task(), await user.task()];
    const json = { "content-type": "application/json" };
    expect((await user.send("DELETE", `/${one.id}`, undefined, json)).status).toBe(204);
    expect((await user.send("DELETE", `/${two.id}`, "{not json")).status).toBe(204);
  });
});

describe("every resource", () => {
  test("answers HEAD as it answers GET, without the body", async () => {
    const user = await service.newcomer();
    const { id } = await user.task();
    for (const path of [user.path(), user.path(`/${id}`), `${service.url}/health`, `${service.url}/docs`]) {
      const headers = { authorization: `Bearer ${user.token}` };
      const [get, head] = [await fetch(path, { headers }), await fetch(path, { method: "HEAD", headers })];
      expect([head.status, await head.text()]).toEqual([get.status, ""]);
      expect(head.headers.get("content-type")).toBe(get.headers.get("content-type"));
    }
  });

  test("is reached with a trailing slash too", async () => {
    const user = await service.newcomer();
    const { id } = await user.task();
    expect((await user.get("/")).status).toBe(200);
    expect((await user.get(`/${id}/`)).status).toBe(200);
    expect((await user.send("PATCH", `/${id}/complete/`)).status).toBe(200);
    expect((await fetch(`${service.url}/health/`)).status).toBe(200);
  });

  test("probes answer without a token", async () => {
    for (const path of ["/health", "/health/live", "/health/ready"]) {
      const answer = await fetch(service.url + path);
      expect([answer.status, await answer.json()]).toEqual([200, { status: "healthy" }]);
    }
  });
});
