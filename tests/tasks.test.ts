import { expect, test } from "bun:test";
import { service } from "./harness.ts";

test("a task is created, and found again", async () => {
  const user = await service.newcomer();
  const task = await user.task({ title: "Buy milk" });
  const answer = await user.get(`/${task.id}`);
  expect(answer.status).toBe(200);
  expect(await answer.json()).toEqual(task);
});
