"use client";

import { type FormEvent, useEffect, useState } from "react";
import { authClient } from "@/lib/auth-client";
import { createTask, deleteTask, listTasks, setCompleted, type Task, TasksError } from "@/lib/tasks";

export function TaskList({ userId, name, tasks: first }: { userId: string; name: string; tasks?: Task[] }) {
  const [tasks, setTasks] = useState(first);
  const [problem, setProblem] = useState("");

  /** Does it, shows the list as it is then, and says what went wrong. */
  async function attempt(action: () => Promise<unknown>) {
    try {
      await action();
      setTasks(await listTasks(userId));
      setProblem("");
      return true;
    } catch (error) {
      if (!(error instanceof TasksError)) throw error;
      setProblem(error.message);
      return false;
    }
  }

  // biome-ignore lint/correctness/useExhaustiveDependencies: once, where the server had no list to give.
  useEffect(() => {
    if (first === undefined) attempt(async () => {});
  }, []);

  async function add(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    const form = event.currentTarget;
    if (await attempt(() => createTask(userId, String(new FormData(form).get("title"))))) form.reset();
  }

  return (
    <>
      <p>
        Signed in as {name}.{" "}
        <button type="button" onClick={() => authClient.signOut()}>
          Sign out
        </button>
      </p>
      <form onSubmit={add}>
        <label>
          What is to be done? <input name="title" required />
        </label>
        <button type="submit">Add</button>
      </form>
      <p role="alert">{problem}</p>
      <ul>
        {tasks?.map(({ id, title, completed }) => (
          <li key={id}>
            <label>
              <input
                type="checkbox"
                checked={completed}
                onChange={() => attempt(() => setCompleted(userId, id, !completed))}
              />{" "}
              {title}
            </label>{" "}
            <button type="button" aria-label={`Delete ${title}`} onClick={() => attempt(() => deleteTask(userId, id))}>
              Delete
            </button>
          </li>
        ))}
      </ul>
    </>
  );
}
