import { authClient } from "./auth-client";

const API = process.env.NEXT_PUBLIC_API_URL ?? "http://localhost:8000";

export interface Task {
  id: number;
  user_id: string;
  title: string;
  description: string | null;
  completed: boolean;
  created_at: string;
  updated_at: string;
}

/** What to show to a person. `status` is that of the answer, or 0 where there was none. */
export class TasksError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

/** A token is good for 15 minutes, and for one user: another may sign in while this page is open. */
let cached: { userId: string; token: string; until: number } | undefined;

async function tokenOf(userId: string): Promise<string> {
  if (cached?.userId === userId && cached.until > Date.now()) return cached.token;
  const { data, error } = await authClient.token().catch(() => {
    throw new TasksError(0, NO_CONNECTION);
  });
  if (!data?.token) throw new TasksError(error?.status ?? 0, sentence(error?.status ?? 0));
  cached = { userId, token: data.token, until: Date.now() + 10 * 60_000 };
  return cached.token;
}

/** Calls the service for a user. `path` is what follows `/tasks`. Throws a `TasksError`. */
export async function tasks<Answer>(userId: string, path = "", init: RequestInit = {}): Promise<Answer> {
  const send = async () =>
    fetch(`${API}/api/${encodeURIComponent(userId)}/tasks${path}`, {
      ...init,
      headers: { authorization: `Bearer ${await tokenOf(userId)}`, "content-type": "application/json" },
      signal: AbortSignal.timeout(15_000),
    }).catch(() => {
      throw new TasksError(0, NO_CONNECTION);
    });

  let answer = await send();
  if (refused(answer)) {
    // Nothing was done. The token has expired, or is another user's: once more, with a new one.
    cached = undefined;
    answer = await send();
  }
  if (refused(answer)) cached = undefined;
  if (answer.status === 204) return undefined as Answer;
  const body = await answer.json().catch(() => undefined);
  if (answer.ok && body !== undefined) return body;
  throw new TasksError(answer.status, sentence(answer.status, answer.headers.get("retry-after"), body?.detail));
}

const refused = ({ status }: Response) => status === 401 || status === 403;

const NO_CONNECTION = "The service can't be reached: check your connection and try again.";

/** `detail` is the service's own sentence. A proxy's answer has none. */
function sentence(status: number, retryAfter: string | null = null, detail?: unknown): string {
  const seconds = Number(retryAfter);
  const later = seconds > 1 ? `in ${Math.ceil(seconds)} seconds` : "in a moment";
  if (status === 0) return NO_CONNECTION;
  if (status === 401) return "You are not signed in any more: reload this page and sign in.";
  if (status === 403) return "Somebody else has signed in meanwhile: reload this page.";
  if (status === 412) return "This task has been changed elsewhere: reload this page to see it.";
  if (status === 429) return `That was a lot at once: try again ${later}.`;
  // Without `Retry-After` what was asked for may have been done, and the service says so.
  if (status === 503 && retryAfter !== null) return `The service is busy: try again ${later}.`;
  return typeof detail === "string" ? detail : "The service is not quite there: try again in a moment.";
}

export const listTasks = (userId: string) => tasks<Task[]>(userId);

export const createTask = (userId: string, title: string) =>
  tasks<Task>(userId, "", { method: "POST", body: JSON.stringify({ title }) });

/** Names the state rather than toggle it, so that doing it twice does no harm. */
export const setCompleted = (userId: string, id: number, completed: boolean) =>
  tasks<Task>(userId, `/${id}/complete`, { method: "PATCH", body: JSON.stringify({ completed }) });

export const deleteTask = (userId: string, id: number) => tasks<void>(userId, `/${id}`, { method: "DELETE" });
