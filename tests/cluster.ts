import { existsSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { folder, freePort, unprivileged } from "./programs.ts";

const VERSIONS = "/usr/lib/postgresql";
const [newest] = existsSync(VERSIONS) ? readdirSync(VERSIONS).toSorted((a, b) => Number(b) - Number(a)) : [];

/** Whether this machine has the programs of a Postgres server, to start and kill one of our own. */
export const canStartPostgres = newest !== undefined;

interface Options {
  /** Lines of `pg_hba.conf`, looked at before the last one, which trusts whoever comes from here. */
  access?: string[];
  /** Speaks TLS too, with a certificate that it has made for itself. */
  tls?: boolean;
}

/** A Postgres server of the test's own, on a port of its own. (It refuses to run as root: then as `postgres`.) */
export async function startPostgres({ access = [], tls = false }: Options = {}) {
  const directory = folder("postgres");
  const data = join(directory, "db");
  const port = await freePort();
  const run = async (...command: string[]) => {
    const child = Bun.spawn(unprivileged(command), { cwd: directory, stdout: "ignore", stderr: "ignore" });
    if ((await child.exited) !== 0) throw new Error(`${command.join(" ")} failed`);
  };
  const program = (name: string) => join(VERSIONS, newest ?? "", "bin", name);
  const options = [
    `-p ${port} -k ${directory} -c listen_addresses=127.0.0.1`,
    ...(tls ? [`-c ssl=on -c ssl_cert_file=${directory}/cert.pem -c ssl_key_file=${directory}/key.pem`] : []),
  ].join(" ");
  const start = () => run(program("pg_ctl"), "-D", data, "-w", "-l", join(directory, "log"), "-o", options, "start");

  await run(program("initdb"), "-D", data, "-U", "tasks", "-A", "trust", "--locale=C.UTF-8", "--no-sync");
  writeFileSync(join(data, "pg_hba.conf"), [...access, "host all all 127.0.0.1/32 trust", ""].join("\n"));
  if (tls) await run("openssl", ...SELF_SIGNED);
  await start();
  return {
    port,
    url: `postgres://tasks@127.0.0.1:${port}/postgres`,
    start,
    /** As a crash does, or a power cut: nothing is finished, nothing is said. */
    crash: () => run(program("pg_ctl"), "-D", data, "-m", "immediate", "-w", "stop"),
    async remove() {
      await run(program("pg_ctl"), "-D", data, "-m", "immediate", "stop").catch(() => {});
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

const SELF_SIGNED =
  "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost -keyout key.pem -out cert.pem".split(
    " ",
  );
