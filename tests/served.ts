import type { Task } from "../src/tasks/model.ts";
import { COMMAND, SETTINGS, spawnService, type User } from "./harness.ts";

export type Settings = Record<string, string>;
export type Service = Awaited<ReturnType<typeof spawnService>>;

/** Starts the service, uses it once it is ready, and ends it, whatever happened. */
export async function served<Result>(settings: Settings, use: (service: Service) => Promise<Result>): Promise<Result> {
  const service = await spawnService(settings, "listening");
  try {
    await ready(service);
    return await use(service);
  } finally {
    await service.stop();
  }
}

/** Waits until the service is ready. If it never is, its log says why. */
export async function ready(service: Service, seconds = 20): Promise<void> {
  const began = performance.now();
  while ((await fetch(`${service.url}/health/ready`)).status !== 200) {
    if (performance.now() - began > seconds * 1000) throw new Error(`never ready:\n${said(service).join("\n")}`);
    await Bun.sleep(50);
  }
}

/** Its log, without the lines of requests. */
export const said = ({ lines }: Service) => lines.filter((line) => !line.includes('"message":"request"'));

/** Runs a command of the service to its end. */
export async function run(words: string[], settings: Settings) {
  const child = Bun.spawn([...COMMAND, ...words], {
    env: { PATH: process.env.PATH, ...SETTINGS, LOG_LEVEL: "INFO", ...settings },
    stdout: "pipe",
    stderr: "pipe",
  });
  const [out, err, exitCode] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { out, err, exitCode };
}

/** A list, page by page. */
export async function everyPage(user: User, query: string): Promise<Task[]> {
  const tasks: Task[] = [];
  let url: string | undefined = user.path(`?${query}`);
  while (url !== undefined) {
    const answer: Response = await fetch(url, { headers: { authorization: `Bearer ${user.token}` } });
    if (answer.status !== 200) throw new Error(`GET ${url} answered ${answer.status}`);
    tasks.push(...((await answer.json()) as Task[]));
    const next: string | undefined = /<([^>]+)>; *rel="next"/.exec(answer.headers.get("link") ?? "")?.[1];
    url = next && new URL(next, url).href;
  }
  return tasks;
}
