import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync, cpSync, mkdtempSync, readdirSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sql } from "drizzle-orm";
import type { UserId } from "../../src/auth/index.ts";
import { loadConfig } from "../../src/config.ts";
import { connect } from "../../src/db/connect.ts";
import { causeOf } from "../../src/db/errors.ts";
import { migrate, requireSchema } from "../../src/db/migrate.ts";
import { taskStore } from "../../src/tasks/store.ts";
import { COMMAND, SETTINGS } from "../harness.ts";

// Creating a Postgres takes seconds on a machine that does other things too.
setDefaultTimeout(60_000);

/** Admitted by the test itself. */
const SOMEBODY = "somebody" as UserId;

const does = (...command: string[]) => {
  try {
    return Bun.spawnSync(command).exitCode === 0;
  } catch {
    return false;
  }
};

/** Words before a command that make it somebody's whom permissions bind: root they don't. */
const NOBODY = process.getuid?.() === 0 ? ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] : [];
const canBeNobody = does(...NOBODY, ...COMMAND, "--version");

const canMount = does(
  "sh",
  "-c",
  'd=$(mktemp -d); mount -t tmpfs tmpfs "$d" && umount "$d"; r=$?; rmdir "$d"; exit $r',
);

/** A disk of its own, that can be filled without harm. */
function smallDisk(size: string) {
  const path = mkdtempSync(join(tmpdir(), "tasks-api-disk-"));
  Bun.spawnSync(["mount", "-t", "tmpfs", "-o", `size=${size}`, "tmpfs", path]);
  const remove = () => {
    // PGlite does not close its files when it fails.
    Bun.spawnSync(["umount", "-l", path]);
    rmSync(path, { recursive: true });
  };
  return { path, remove };
}

test("an embedded database keeps what it is given, and is open once at a time", async () => {
  const folder = mkdtempSync(join(tmpdir(), "tasks-api-"));
  const config = loadConfig({ DATABASE_URL: `pglite://${folder}/data` });

  const first = await connect(config);
  expect(first.label).toBe(`embedded Postgres in ${folder}/data`);
  expect(statSync(join(folder, "data")).mode & 0o777).toBe(0o700);
  expect(requireSchema(first)).rejects.toThrow("tasks-api migrate");
  await migrate(first);
  await migrate(first);
  await requireSchema(first);
  const { id } = await taskStore(first.query)(SOMEBODY).create({ title: "kept" });
  expect(connect(config)).rejects.toThrow("in use by another process");
  await first.close();

  const second = await connect(config);
  await migrate(second);
  expect(await taskStore(second.query)(SOMEBODY).find(id)).toMatchObject({ title: "kept" });
  expect(await taskStore(second.query)("somebody else" as UserId).find(id)).toBeUndefined();
  await second.close();
  rmSync(folder, { recursive: true });
});

test("an embedded database is in use until it is closed, however long that takes", async () => {
  const folder = mkdtempSync(join(tmpdir(), "tasks-api-"));
  const config = loadConfig({ DATABASE_URL: `pglite://${folder}` });
  const first = await connect(config);
  // Drizzle's client, which its type doesn't name here: it is PGlite.
  const { $client: files } = first.orm as unknown as { $client: { close(): Promise<void> } };
  const close = files.close.bind(files);
  files.close = () => Bun.sleep(500).then(close);
  const closed = first.close();
  await Bun.sleep(100);
  await expect(connect(config)).rejects.toThrow("in use by another process");
  await closed;
  await (await connect(config)).close();
  rmSync(folder, { recursive: true });
});

test("a first start is made aside: one that is killed on the way leaves no database behind", async () => {
  const folder = mkdtempSync(join(tmpdir(), "tasks-api-"));
  const { BETTER_AUTH_SECRET } = SETTINGS;
  const child = Bun.spawn([...COMMAND, "migrate"], {
    env: { PATH: process.env.PATH, DATABASE_URL: `pglite://${folder}`, BETTER_AUTH_SECRET },
    stderr: "inherit",
  });
  const made = () => readdirSync(folder).filter((name) => name.startsWith("postgres"));
  while (made().length === 0) await Bun.sleep(1);
  child.kill("SIGKILL");
  await child.exited;
  expect(made()).toEqual(["postgres.unfinished"]);
  const db = await connect(loadConfig({ DATABASE_URL: `pglite://${folder}` }));
  expect(made()).toEqual(["postgres"]);
  await db.close();
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
  await requireSchema(db);
  await db.close();
});

test("what the database lacks is said, with what to do about it", async () => {
  const db = await connect(loadConfig({ DATABASE_URL: "memory://" }));
  await expect(requireSchema(db)).rejects.toThrow(
    "the table tasks is missing from the schema public, and the table task_idempotency_keys is missing from the schema public: run `tasks-api migrate`",
  );
  await migrate(db);
  await requireSchema(db);
  await db.orm.execute(sql`alter table tasks drop column description`);
  await expect(requireSchema(db)).rejects.toThrow("the column tasks.description is missing: run");
  await expect(migrate(db)).rejects.toThrow(
    "All migrations are applied, yet the column tasks.description is missing: it was taken away by hand",
  );
  await db.orm.execute(sql`set search_path to nowhere`);
  await expect(requireSchema(db)).rejects.toThrow("search_path names no schema that is there");
  await db.close();
});

describe("what stands in the way of an embedded database is told with its folder and its cause", () => {
  const opening = (directory: string) =>
    connect(loadConfig({ DATABASE_URL: `pglite://${directory}` })).then(
      (db) => db.close(),
      (error: Error) => error.message,
    );
  const refusal = (directory: string, cause: string) =>
    expect.stringMatching(
      new RegExp(`^The embedded database in ${directory} can't be opened: ${cause}.*DATABASE_URL\\.$`),
    );

  test("a database that was damaged", async () => {
    const folder = mkdtempSync(join(tmpdir(), "tasks-api-"));
    expect(await opening(`${folder}/data`)).toBeUndefined();
    const damaged = (name: string, damage: (files: string) => void) => {
      cpSync(`${folder}/data`, `${folder}/${name}`, { recursive: true });
      damage(`${folder}/${name}/postgres`);
      return opening(`${folder}/${name}`);
    };
    const wal = (files: string) => `${files}/pg_wal/000000010000000000000001`;
    const control = (files: string) => `${files}/global/pg_control`;
    const [cut, gone, empty, older, rest] = [
      await damaged("cut", (files) => truncateSync(wal(files), 1_000_000)),
      await damaged("gone", (files) => rmSync(wal(files))),
      await damaged("empty", (files) => truncateSync(control(files))),
      await damaged("older", (files) => writeFileSync(`${files}/PG_VERSION`, "16\n")),
      await damaged("rest", (files) => rmSync(`${files}/PG_VERSION`)),
    ];
    expect(cut).toEqual(refusal(`${folder}/cut`, "could not locate a valid checkpoint record"));
    expect(gone).toEqual(refusal(`${folder}/gone`, "could not locate a valid checkpoint record"));
    expect(empty).toEqual(refusal(`${folder}/empty`, 'could not read file "global/pg_control"'));
    expect(older).toEqual(refusal(`${folder}/older`, "database files are incompatible.* version 16"));
    expect(rest).toEqual(refusal(`${folder}/rest`, `there is no database in ${folder}/rest/postgres`));
    rmSync(folder, { recursive: true });
  });

  test("a file in its place", async () => {
    const folder = mkdtempSync(join(tmpdir(), "tasks-api-"));
    writeFileSync(`${folder}/file`, "");
    expect(await opening(`${folder}/file`)).toEqual(refusal(`${folder}/file`, "EEXIST"));
    rmSync(folder, { recursive: true });
  });

  test.skipIf(!canBeNobody)("a folder that may not be written (needs setpriv, or not to be root)", async () => {
    const folder = mkdtempSync(join(tmpdir(), "tasks-api-"));
    chmodSync(folder, 0o555);
    const start = (url: string) => {
      const env = {
        PATH: process.env.PATH,
        HOME: "/tmp",
        DATABASE_URL: url,
        BETTER_AUTH_SECRET: SETTINGS.BETTER_AUTH_SECRET,
      };
      const { exitCode, stderr } = Bun.spawnSync([...NOBODY, ...COMMAND, "migrate"], { env });
      return { exitCode, said: stderr.toString().trim() };
    };
    expect(start(`pglite://${folder}`)).toEqual({
      exitCode: 1,
      said: refusal(folder, "EACCES: permission denied"),
    });
    expect(start(`pglite://${folder}/data`)).toEqual({
      exitCode: 1,
      said: refusal(`${folder}/data`, "EACCES: permission denied"),
    });
    rmSync(folder, { recursive: true });
  });

  test.skipIf(!canMount)("a disk that is full, at the first start (needs mount)", async () => {
    const disk = smallDisk("8m");
    expect(await opening(`${disk.path}/data`)).toEqual(refusal(`${disk.path}/data`, "no space is left on the disk"));
    // What it had written is gone again, and with it the next start's reason to fail.
    expect(readdirSync(`${disk.path}/data`)).toEqual(["lock"]);
    disk.remove();
  });

  test.skipIf(!canMount)(
    "a disk that fills up while it serves: the first statements say so, and all after",
    async () => {
      const disk = smallDisk("60m");
      const db = await connect(loadConfig({ DATABASE_URL: `pglite://${disk.path}/data` }));
      await migrate(db);
      const fill =
        "insert into tasks (user_id, title, description) select 'x', 'y', repeat('z', 1000) from generate_series(1, 40000)";
      const errors = [
        await db.query({ name: "fill", text: fill }, []).catch((error) => error),
        await taskStore(db.query)(SOMEBODY)
          .find(1)
          .catch((error) => error),
      ];
      for (const error of errors) {
        expect(causeOf(error).outage).toBe(true);
        expect(error.message).toMatch(`${disk.path}/data has stopped: could not write`);
        expect(error.message).toMatch("No space left on device");
      }
      await db.close();
      disk.remove();
    },
  );
});
