import { signedIn } from "@/lib/server-tasks";
import { SessionWatch } from "./session-watch";
import { SignIn } from "./sign-in";
import { TaskList } from "./task-list";

export default async function Page() {
  const user = await signedIn();
  return (
    <main>
      <h1>Tasks</h1>
      <SessionWatch userId={user?.userId} />
      {user ? <TaskList key={user.userId} {...user} /> : <SignIn />}
    </main>
  );
}
