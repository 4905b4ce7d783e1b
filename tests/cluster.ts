import { chmodSync, existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

const VERSIONS = "/usr/lib/postgresql";
const [newest] = existsSync(VERSIONS) ? readdirSync(VERSIONS).toSorted((a, b) => Number(b) - Number(a)) : [];

/** Whether this machine has the programs of a Postgres server, to start and kill one of our own. */
export const canStartPostgres = newest !== undefined;

const freePort = () =>
  new Promise<number>((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => resolve(typeof address === "object" && address ? address.port : 0));
    });
  });

/** A Postgres server of the test's own, on a port of its own. (It refuses to run as root: then as `postgres`.) */
export async function startPostgres() {
  const data = mkdtempSync(join(tmpdir(), "postgres-"));
  const port = await freePort();
  const isRoot = process.getuid?.() === 0;
  chmodSync(data, 0o700);
  if (isRoot) Bun.spawnSync(["chown", "postgres", data]);
  const run = async (program: string, ...words: string[]) => {
    const command = [join(VERSIONS, newest ?? "", "bin", program), ...words];
    const child = Bun.spawn(
      isRoot ? ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", ...command] : command,
      {
        cwd: data,
        stdout: "ignore",
        stderr: "ignore",
      },
    );
    if ((await child.exited) !== 0) throw new Error(`${program} failed`);
  };
  const start = () =>
    run(
      "pg_ctl",
      "-D",
      join(data, "db"),
      "-w",
      "-l",
      join(data, "log"),
      "-o",
      `-p ${port} -k ${data} -c listen_addresses=127.0.0.1`,
      "start",
    );
  await run("initdb", "-D", join(data, "db"), "-U", "tasks", "-A", "trust", "--locale=C.UTF-8");
  await start();
  return {
    port,
    url: `postgres://tasks@127.0.0.1:${port}/postgres`,
    start,
    /** As a crash does, or a power cut: nothing is finished, nothing is said. */
    crash: () => run("pg_ctl", "-D", join(data, "db"), "-m", "immediate", "-w", "stop"),
    async remove() {
      await run("pg_ctl", "-D", join(data, "db"), "-m", "immediate", "stop").catch(() => {});
      rmSync(data, { recursive: true, force: true });
    },
  };
}
