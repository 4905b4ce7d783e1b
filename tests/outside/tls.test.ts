import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chownSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { SQL } from "bun";
import { sql } from "drizzle-orm";
import { loadConfig } from "../../src/config.ts";
import { connect } from "../../src/db/connect.ts";
import { canStartPostgres, startPostgres } from "../cluster.ts";
import { hasServer } from "../database.ts";

/** Whether the connection that these settings lead to is encrypted. */
async function encrypted(DATABASE_URL: string): Promise<boolean> {
  const db = await connect(loadConfig({ DATABASE_URL }));
  const statement = sql`select ssl from pg_stat_ssl where pid = pg_backend_pid()`;
  try {
    const [row] = Array.from((await db.orm.transaction((one) => one.execute(statement))) as Iterable<{ ssl: boolean }>);
    return row?.ssl === true;
  } finally {
    await db.close();
  }
}

describe.skipIf(!hasServer || !canStartPostgres)("a server with a certificate of its own making", () => {
  const PASSWORD = "p% @:/?#'\"ß";
  let server: Awaited<ReturnType<typeof startPostgres>>;
  let certificate: string;

  beforeAll(async () => {
    server = await startPostgres();
    const client = new SQL({ url: server.url, max: 1 });
    const [{ folder, hba }] = await client.unsafe(
      "select current_setting('data_directory') folder, current_setting('hba_file') hba",
    );
    certificate = join(folder, "server.crt");
    const key = join(folder, "server.key");
    const request = [
      "-x509",
      "-newkey",
      "rsa:2048",
      "-nodes",
      "-days",
      "2",
      "-subj",
      "/CN=localhost",
      "-addext",
      "subjectAltName=DNS:localhost",
    ];
    Bun.spawnSync(["openssl", "req", ...request, "-keyout", key, "-out", certificate]);
    const { uid, gid } = statSync(folder);
    for (const file of [certificate, key]) chownSync(file, uid, gid);
    await client.unsafe(`create role owner login password '${PASSWORD.replaceAll("'", "''")}'`);
    await client.unsafe("alter system set ssl = on");
    writeFileSync(hba, "hostssl all owner 127.0.0.1/32 scram-sha-256\n");
    await client.unsafe("select pg_reload_conf()");
    await client.close();
    await Bun.sleep(500);
  }, 60_000);
  afterAll(() => server?.remove());

  const url = (parameters: string, host = "localhost") =>
    `postgres://owner:${PASSWORD}@${host}:${server.port}/postgres${parameters}`;

  test("is reached over TLS where it insists on it, without a word of it in the URL", async () => {
    expect(await encrypted(url(""))).toBe(true);
    expect(await encrypted(url("?sslmode=require"))).toBe(true);
    await expect(encrypted(url("?sslmode=disable"))).rejects.toThrow();
  }, 30_000);

  test("is verified where the URL says so, by the certificates it names", async () => {
    await expect(encrypted(url("?sslmode=verify-full"))).rejects.toThrow();
    expect(await encrypted(url(`?sslmode=verify-full&sslrootcert=${certificate}`))).toBe(true);
    await expect(encrypted(url(`?sslmode=verify-full&sslrootcert=${certificate}`, "127.0.0.1"))).rejects.toThrow();
    expect(await encrypted(url(`?sslrootcert=${certificate}&sslmode=require`, "127.0.0.1"))).toBe(true);
  }, 30_000);
});
