import { expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sql } from "drizzle-orm";
import type { UserId } from "../src/auth/index.ts";
import { loadConfig } from "../src/config.ts";
import { connect } from "../src/db/connect.ts";
import { migrate, ping } from "../src/db/migrate.ts";
import { taskStore } from "../src/tasks/store.ts";

// Creating a Postgres takes seconds on a machine that does other things too.
setDefaultTimeout(60_000);

/** Admitted by the test itself. */
const SOMEBODY = "somebody" as UserId;

test("an embedded database keeps what it is given, and is open once at a time", async () => {
  const folder = mkdtempSync(join(tmpdir(), "tasks-api-"));
  const config = loadConfig({ DATABASE_URL: `pglite://${folder}/data` });

  const first = await connect(config);
  expect(first.label).toBe(`embedded Postgres in ${folder}/data`);
  expect(statSync(join(folder, "data")).mode & 0o777).toBe(0o700);
  expect(ping(first)).rejects.toThrow();
  await migrate(first);
  await migrate(first);
  await ping(first);
  const { id } = await taskStore(first)(SOMEBODY).create({ title: "kept" });
  expect(connect(config)).rejects.toThrow("in use by another process");
  await first.close();

  const second = await connect(config);
  await migrate(second);
  expect(await taskStore(second)(SOMEBODY).find(id)).toMatchObject({ title: "kept" });
  expect(await taskStore(second)("somebody else" as UserId).find(id)).toBeUndefined();
  await second.close();
  rmSync(folder, { recursive: true });
});

test("a directory that holds no database is an error, and is left free", async () => {
  const folder = mkdtempSync(join(tmpdir(), "tasks-api-"));
  const config = loadConfig({ DATABASE_URL: `pglite://${folder}` });
  writeFileSync(join(folder, "postgres"), "not a database");
  expect(connect(config)).rejects.toThrow();
  await connect(config).catch(() => {});
  rmSync(join(folder, "postgres"));
  const db = await connect(config);
  await db.close();
  rmSync(folder, { recursive: true });
});

test("a migration that can't be applied is told in Postgres's words, and leaves nothing behind", async () => {
  const db = await connect(loadConfig({ DATABASE_URL: "memory://" }));
  await db.orm.execute(sql`create table tasks (somebody_elses int)`);
  expect(migrate(db)).rejects.toThrow(`can't be brought up to date: relation "tasks" already exists`);
  await migrate(db).catch(() => {});
  await db.orm.execute(sql`drop table tasks`);
  await migrate(db);
  await ping(db);
  await db.close();
});
