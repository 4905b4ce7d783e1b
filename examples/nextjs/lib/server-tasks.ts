import { headers } from "next/headers";
import { auth } from "./auth";
import type { Task } from "./tasks";

/** Who is signed in, and their tasks, fetched on this server. Without `tasks` when the service doesn't answer. */
export async function signedIn(): Promise<{ userId: string; name: string; tasks?: Task[] } | undefined> {
  const session = await auth.api.getSession({ headers: await headers() });
  if (session === null) return undefined;
  const { id: userId, name } = session.user;
  const { token } = await auth.api.getToken({ headers: await headers() });
  const address = `${process.env.NEXT_PUBLIC_API_URL}/api/${encodeURIComponent(userId)}/tasks`;
  try {
    const answer = await fetch(address, {
      headers: { authorization: `Bearer ${token}` },
      cache: "no-store",
      signal: AbortSignal.timeout(5_000),
    });
    return answer.ok ? { userId, name, tasks: await answer.json() } : { userId, name };
  } catch {
    return { userId, name };
  }
}
