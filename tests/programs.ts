import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Where Debian puts servers, which is not on everybody's path. */
const PATH = `${process.env.PATH}:/usr/sbin:/usr/local/sbin`;

/** Where a program is on this machine, if it is. */
export const findProgram = (name: string): string | undefined => Bun.which(name, { PATH }) ?? undefined;

/** A port of loopback that nobody listens on. */
export const freePort = () =>
  new Promise<number>((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => resolve(typeof address === "object" && address ? address.port : 0));
    });
  });

const isRoot = process.getuid?.() === 0;

/** The command as a user who is not root, since Postgres and PgBouncer refuse to be run by root. */
export const unprivileged = (command: string[]) =>
  isRoot ? ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", ...command] : command;

/** A folder that such a command may write to. */
export function folder(name: string): string {
  const path = mkdtempSync(join(tmpdir(), `${name}-`));
  chmodSync(path, 0o700);
  if (isRoot) Bun.spawnSync(["chown", "postgres", path]);
  return path;
}

/** Starts a server and waits until it listens. It writes only into `directory`, which goes when it is stopped. */
export async function startProgram(command: string[], port: number, directory: string) {
  const child = Bun.spawn(command, { cwd: directory, stdin: "ignore", stdout: "ignore", stderr: "pipe" });
  const said = child.stderr.text();
  while (!(await listens(port))) {
    if (child.exitCode !== null) throw new Error(`${command.join(" ")} ended:\n${await said}`);
    await Bun.sleep(20);
  }
  return {
    async stop() {
      child.kill("SIGTERM");
      await Promise.race([child.exited, Bun.sleep(2000)]);
      child.kill("SIGKILL");
      await child.exited;
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

const listens = (port: number) =>
  new Promise<boolean>((resolve) => {
    const socket = connect(port, "127.0.0.1", () => resolve(true));
    socket.on("connect", () => socket.destroy()).on("error", () => resolve(false));
  });
