import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { findProgram, folder, freePort, startProgram, unprivileged } from "./programs.ts";

const program = findProgram("pgbouncer");

/** Whether this machine has PgBouncer. */
export const hasPgBouncer = program !== undefined;

/** What tests set in its `pgbouncer.ini`. All else is as it comes. */
interface Settings {
  pool_mode?: "session" | "transaction";
  default_pool_size?: number;
  ignore_startup_parameters?: string;
  [setting: string]: string | number | undefined;
}

/** From 1.21 on it can keep track of prepared statements (`max_prepared_statements`); Debian 12 has 1.18. */
export const tracksStatements =
  program !== undefined && Number(/1\.(\d+)/.exec(Bun.spawnSync([program, "--version"]).stdout.toString())?.[1]) >= 21;

/**
 * A PgBouncer on a port of its own, in front of the server that `url` names, with every database of it. All of
 * its settings are those it comes with, except for where it listens and that it trusts everybody whom the server knows.
 */
export async function startPgBouncer(url: string, settings: Settings = {}) {
  if (program === undefined) throw new Error("no PgBouncer");
  const server = new URL(url);
  const directory = folder("pgbouncer");
  const port = await freePort();
  const user = decodeURIComponent(server.username);
  const all = {
    listen_addr: "127.0.0.1",
    listen_port: port,
    unix_socket_dir: "",
    auth_type: "trust",
    auth_file: join(directory, "users"),
    // Looks up who else there is.
    auth_user: user,
    ...settings,
  };
  const file = join(directory, "pgbouncer.ini");
  writeFileSync(join(directory, "users"), `"${user}" "${decodeURIComponent(server.password)}"\n`);
  writeFileSync(
    file,
    `[databases]\n* = host=${server.hostname} port=${server.port || 5432}\n[pgbouncer]\n${Object.entries(all)
      .map(([name, value]) => `${name} = ${value}`)
      .join("\n")}\n`,
  );
  const running = await startProgram(unprivileged([program, "-q", file]), port, directory);
  const through = new URL(url);
  through.hostname = "127.0.0.1";
  through.port = String(port);
  return { port, url: through.href, stop: running.stop };
}

// `bun tests/pgbouncer.ts COMMAND…` does it with the tests' server behind a PgBouncer in transaction mode.
if (import.meta.main) {
  const server = process.env.TEST_DATABASE_URL ?? "";
  const pooler = await startPgBouncer(server, { pool_mode: "transaction" });
  const child = Bun.spawn(process.argv.slice(2), {
    env: { ...process.env, TEST_DATABASE_URL: pooler.url, TEST_ADMIN_URL: server },
    stdio: ["ignore", "inherit", "inherit"],
  });
  process.exitCode = await child.exited;
  await pooler.stop();
}
