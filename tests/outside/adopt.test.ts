import { afterAll, beforeAll, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { SQL } from "bun";
import { loadConfig } from "../../src/config.ts";
import { adopt, findOldTable } from "../../src/db/adopt.ts";
import { connect } from "../../src/db/connect.ts";
import { migrate } from "../../src/db/migrate.ts";
import { databaseSettings, hasServer } from "../database.ts";
import { COMMAND, SETTINGS, spawnService, until } from "../harness.ts";

// Processes and databases take their time on a machine that does other things too.
setDefaultTimeout(60_000);

/** As SQLAlchemy 1.4 writes it for PostgreSQL, for SQLModel's `class Task(SQLModel, table=True)`. */
const sqlModel = (table: string, columns: Record<string, string> = {}) => {
  const types = {
    id: "SERIAL NOT NULL",
    user_id: "VARCHAR NOT NULL",
    title: "VARCHAR NOT NULL",
    description: "VARCHAR",
    completed: "BOOLEAN NOT NULL",
    created_at: "TIMESTAMP WITHOUT TIME ZONE NOT NULL",
    updated_at: "TIMESTAMP WITHOUT TIME ZONE NOT NULL",
    ...columns,
  };
  return `
    CREATE TABLE ${table} (
      ${Object.entries(types)
        .map(([name, type]) => `${name} ${type}`)
        .join(",\n      ")},
      PRIMARY KEY (id)
    );
    CREATE INDEX ix_${table.replace(/.*\./, "")}_user_id ON ${table} (user_id)`;
};

const MILK = "('ann', 'Buy milk', NULL, false, '2025-06-01 12:00:00.123456', '2025-06-02 12:00:00.5')";
const COLUMNS = "user_id, title, description, completed, created_at, updated_at";

describe.skipIf(!hasServer)("adopting a FastAPI app's tasks", () => {
  let settings: Record<string, string>;
  let client: SQL;
  const run = (text: string) => client.unsafe(text).simple();
  const rows = (text: string) => client.unsafe(text);

  beforeAll(async () => {
    settings = await databaseSettings();
    client = new SQL({ url: settings.DATABASE_URL ?? "", max: 1 });
    const name = new URL(settings.DATABASE_URL ?? "").pathname.slice(1);
    await run(`ALTER DATABASE ${name} SET timezone = 'America/New_York'`);
    await run(`ALTER DATABASE ${name} SET default_transaction_isolation = 'serializable'`);
  });
  beforeEach(async () => {
    await run(`DROP SCHEMA IF EXISTS drizzle, old, public CASCADE; CREATE SCHEMA public`);
  });
  afterAll(() => client?.close());

  /** The command, to its end. */
  async function command(words: string, more: Record<string, string> = {}) {
    const child = Bun.spawn([...COMMAND, ...words.split(" ")], {
      env: { PATH: process.env.PATH, ...SETTINGS, ...settings, ...more },
      stdout: "pipe",
      stderr: "pipe",
    });
    const [out, err, exitCode] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
    return { lines: out.trim().split("\n"), err: err.trim(), exitCode };
  }

  test("keeps ids and texts, reads naive times as UTC, and goes on counting where the old table had", async () => {
    await run(`${sqlModel("task")};
      INSERT INTO task (${COLUMNS}) VALUES ${MILK}, ('bob', '用户 🙂', '%_\\', true, '2025-01-01', '2025-01-01'), ${MILK};
      DELETE FROM task WHERE id = 3`);
    expect(await command("adopt")).toEqual({
      lines: ["2 rows of task have been taken over; compared one by one, they are the same."],
      err: "",
      exitCode: 0,
    });
    const service = await spawnService(settings);
    const ann = await service.newcomer("ann");
    const bob = await service.newcomer("bob");
    expect(await (await ann.get()).json()).toEqual([
      {
        id: 1,
        user_id: "ann",
        title: "Buy milk",
        description: null,
        completed: false,
        created_at: "2025-06-01T12:00:00.123Z",
        updated_at: "2025-06-02T12:00:00.500Z",
      },
    ]);
    expect(await (await bob.get("/2")).json()).toMatchObject({
      title: "用户 🙂",
      description: "%_\\",
      completed: true,
    });
    expect((await bob.task()).id).toBe(4);
    await service.stop();
    expect(await rows("select id from task order by id")).toHaveLength(2);
  });

  test("renames a foreign table named tasks, which migrate says to do, and drops nothing of it", async () => {
    await run(`${sqlModel("tasks")}; INSERT INTO tasks (${COLUMNS}) VALUES ${MILK};
      CREATE TABLE tag (task_id INTEGER REFERENCES tasks (id)); INSERT INTO tag VALUES (1)`);
    expect((await command("migrate")).err).toContain("tasks-api adopt");
    const { lines, exitCode } = await command("adopt");
    expect(lines).toEqual([
      "1 rows of tasks_before_adoption have been taken over; compared one by one, they are the same. Its name was tasks before.",
    ]);
    expect(exitCode).toBe(0);
    expect(await rows("select t.title from tag join tasks_before_adoption t on t.id = task_id")).toHaveLength(1);
    expect((await command("migrate")).exitCode).toBe(0);
    expect((await command("adopt")).lines).toEqual([
      "tasks_before_adoption has been adopted before, up to id 1. Nothing has been changed.",
    ]);
  });

  test("lists by id what today's limits refuse, leaves it, and takes it once it has been mended", async () => {
    await run(`${sqlModel("task", { user_id: "VARCHAR", title: "VARCHAR", completed: "BOOLEAN" })};
      COMMENT ON TABLE task IS 'What Ann''s app made';
      INSERT INTO task (${COLUMNS}) SELECT 'ann', 'Task ' || n, NULL, false, now(), now() FROM generate_series(1, 12) n;
      UPDATE task SET title = E' \\t\\u00a0\\u3000' WHERE id = 2; UPDATE task SET title = NULL WHERE id = 3;
      UPDATE task SET title = repeat('🙂', 200) WHERE id = 4; UPDATE task SET title = repeat('🙂', 201) WHERE id = 5;
      UPDATE task SET description = repeat('🙂', 1000) WHERE id = 6; UPDATE task SET description = repeat('x', 1001) WHERE id = 7;
      UPDATE task SET user_id = '' WHERE id = 8; UPDATE task SET user_id = repeat('u', 256) WHERE id = 9;
      UPDATE task SET created_at = 'infinity' WHERE id = 10; UPDATE task SET id = -1 WHERE id = 11;
      UPDATE task SET completed = NULL WHERE id = 12;
      ALTER TABLE task DROP CONSTRAINT task_pkey, ALTER id DROP NOT NULL; UPDATE task SET id = NULL WHERE id = -1`);
    const left = [
      "Left in task, since a time is not in the years 1 to 9999: 10",
      "Left in task, since a value is missing: 3, 12",
      "Left in task, since the description is over 1000 characters: 7",
      "Left in task, since the id is not from 1 to 2^53-1: without an id",
      "Left in task, since the title is blank: 2",
      "Left in task, since the title is over 200 characters: 5",
      "Left in task, since user_id is empty or over 255 characters: 8, 9",
      "Mend these rows in task, and adopting again takes them.",
    ];
    const dry = await command("adopt --dry-run");
    expect(dry.lines).toEqual(["3 rows of task would be taken over. Nothing has been changed.", ...left]);
    expect(await rows("select to_regclass('tasks') as ours, obj_description('task'::regclass) as comment")).toEqual([
      { ours: null, comment: "What Ann's app made" },
    ]);
    const first = await command("adopt");
    expect(first.exitCode).toBe(0);
    expect(first.lines.slice(1)).toEqual(left);
    await run(
      "UPDATE tasks SET title = 'changed' WHERE id = 1; DELETE FROM tasks WHERE id = 4; UPDATE task SET title = 'mended' WHERE id = 2",
    );
    expect((await command("adopt")).lines[0]).toStartWith("1 rows of task have been taken over");
    expect((await command("adopt")).lines[0]).toBe(
      "task has been adopted before, up to id 12. Nothing has been changed.",
    );
    expect(await rows("select obj_description('task'::regclass) as comment")).toEqual([
      {
        comment: expect.stringMatching(
          /^What Ann's app made Adopted by tasks-api up to id 12, left: 10, 3, 12, 7, 5, 8, 9\.$/,
        ),
      },
    ]);
    expect(await rows("select id::int, left(title, 7) as title from tasks order by id")).toEqual([
      { id: 1, title: "changed" },
      { id: 2, title: "mended" },
      { id: 6, title: "Task 6" },
    ]);
  });

  test.each<[string, Record<string, string>, string, object]>([
    [
      "times with a zone, which may be null",
      { created_at: "TIMESTAMP WITH TIME ZONE", updated_at: "TIMESTAMP WITH TIME ZONE" },
      "('ann', 'x', NULL, false, '2025-06-01 12:00+02', NULL)",
      { created_at: new Date("2025-06-01T10:00:00Z"), updated_at: new Date("2025-06-01T10:00:00Z") },
    ],
    [
      "users as UUIDs",
      { user_id: "UUID NOT NULL" },
      "('6f1e0ac4-6ac5-4c1c-8b5a-0d7d3b1f2a3c', 'x', 'd', true, now(), now())",
      { user_id: "6f1e0ac4-6ac5-4c1c-8b5a-0d7d3b1f2a3c" },
    ],
    [
      "users as numbers, and columns of its own",
      {
        id: "BIGSERIAL NOT NULL",
        user_id: "INTEGER NOT NULL",
        title: "VARCHAR(200) NOT NULL",
        priority: "VARCHAR NOT NULL DEFAULT 'low'",
      },
      "(7, 'x', 'd', true, now(), now())",
      { user_id: "7" },
    ],
  ])("takes %s", async (_, columns, row, expected) => {
    await run(`${sqlModel("tasks", columns)}; INSERT INTO tasks (${COLUMNS}) VALUES ${row}`);
    expect((await command("adopt")).err).toBe("");
    expect(await rows("select * from tasks")).toEqual([expect.objectContaining({ id: "1", title: "x", ...expected })]);
  });

  test("takes a table that is named, of another schema and with no more than the columns it needs", async () => {
    await run(`CREATE SCHEMA old; CREATE TABLE old."To do" (id INTEGER, user_id TEXT, title TEXT, completed BOOLEAN);
      INSERT INTO old."To do" VALUES (5, 'ann', 'x', true)`);
    const child = Bun.spawn([...COMMAND, "adopt", "--from", 'old."To do"'], {
      env: { PATH: process.env.PATH, ...SETTINGS, ...settings },
    });
    expect(await child.exited).toBe(0);
    expect(
      await rows("select id::int, title, created_at <= now() and created_at = updated_at as ok from tasks"),
    ).toEqual([{ id: 5, title: "x", ok: true }]);
  });

  test("leaves a task whose id has been given to another one since", async () => {
    await command("migrate");
    await run(`INSERT INTO tasks (user_id, title) VALUES ('new', 'first here');
      ${sqlModel("task")}; INSERT INTO task (${COLUMNS}) VALUES ${MILK}, ${MILK}`);
    expect((await command("adopt")).lines).toContain("Left in task, since another task has the id: 1");
    expect(await rows("select id::int, title from tasks order by id")).toEqual([
      { id: 1, title: "first here" },
      { id: 2, title: "Buy milk" },
    ]);
  });

  test("takes over once more what a backup of the old table alone has brought back", async () => {
    await run(`${sqlModel("task")}; INSERT INTO task (${COLUMNS}) VALUES ${MILK}`);
    await command("adopt");
    // The comment comes with the table, and what was adopted does not.
    await run("DROP TABLE tasks, task_idempotency_keys, tasks_api_migrations");
    expect((await command("adopt")).lines).toEqual([
      "1 rows of task have been taken over; compared one by one, they are the same.",
    ]);
    expect(await rows("select title from tasks")).toEqual([{ title: "Buy milk" }]);
  });

  test("names the columns that are left behind", async () => {
    await run(
      `${sqlModel("task", { priority: "VARCHAR", due_date: "DATE" })}; INSERT INTO task (${COLUMNS}) VALUES ${MILK}`,
    );
    const left = "Left in task, since there is no such column here: priority, due_date";
    expect((await command("adopt --dry-run")).lines.slice(1)).toEqual([left]);
    expect((await command("adopt")).lines.slice(1)).toEqual([left]);
  });

  test("says of rows that the old app went on writing that they are left", async () => {
    await run(`${sqlModel("task")}; INSERT INTO task (${COLUMNS}) VALUES ${MILK}`);
    await command("adopt");
    await run(`INSERT INTO task (${COLUMNS}) VALUES ${MILK}`);
    expect((await command("adopt")).lines).toEqual([
      "task has been adopted before, up to id 1. Nothing has been changed.",
      "Left in task, since written after it was adopted: 1 rows",
    ]);
  });

  test.each([
    ["two tables", `${sqlModel("task")}; ${sqlModel("tasks")}`, "Say which: --from task, or --from tasks"],
    ["none", "select 1", "There is no table to adopt (none is there): --from NAME names one"],
    [
      "ids that can't be kept",
      sqlModel("task", { id: "UUID NOT NULL" }),
      "There is no table to adopt (task has ids that aren't whole numbers): --from NAME names one",
    ],
    [
      "a value that can't be read",
      `${sqlModel("task", { completed: "VARCHAR" })};
        INSERT INTO task (${COLUMNS}) VALUES ('ann', 'x', NULL, 'a private word', now(), now())`,
      "Nothing has been changed: 22P02",
    ],
  ])("of %s it is refused in a sentence, which has nothing of a row", async (_, setup, sentence) => {
    await run(setup);
    expect(await command("adopt")).toEqual({ lines: [""], err: sentence, exitCode: 1 });
  });

  test.each(["adopt --dry", "adopt --from", "adopt task", "migrate --dry-run"])(
    "%s is a mistake that changes nothing",
    async (words) => {
      await run(sqlModel("task"));
      expect((await command(words)).exitCode).toBe(2);
      expect(await rows("select to_regclass('tasks') as ours")).toEqual([{ ours: null }]);
    },
  );

  test("names what a role lacks", async () => {
    const role = `reader_${process.pid}_${Date.now()}`;
    await run(
      `${sqlModel("task")}; CREATE ROLE ${role} LOGIN; GRANT ALL ON SCHEMA public TO ${role}; GRANT SELECT ON task TO ${role}`,
    );
    const url = new URL(settings.DATABASE_URL ?? "");
    url.username = role;
    const { err, exitCode } = await command("adopt", { DATABASE_URL: url.href });
    await run(`DROP OWNED BY ${role}; DROP ROLE ${role}`);
    expect(err).toBe("Nothing has been changed: permission denied for table task");
    expect(exitCode).toBe(1);
  });

  test("is undone if a row would not arrive, or not as it was in each of its columns", async () => {
    await command("migrate");
    await run(`CREATE RULE loses AS ON INSERT TO tasks WHERE NEW.id = 2 DO INSTEAD NOTHING;
      CREATE FUNCTION alters() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN CASE NEW.id
        WHEN 3 THEN NEW.user_id := 'bob'; WHEN 4 THEN NEW.title := 'x'; WHEN 5 THEN NEW.description := 'x';
        WHEN 6 THEN NEW.completed := true; WHEN 7 THEN NEW.created_at := now(); WHEN 8 THEN NEW.updated_at := now();
        ELSE NULL; END CASE; RETURN NEW; END $$;
      CREATE TRIGGER alters BEFORE INSERT ON tasks FOR EACH ROW EXECUTE FUNCTION alters();
      ${sqlModel("task")}; INSERT INTO task (${COLUMNS}) VALUES ${Array(8).fill(MILK)}`);
    expect(await command("adopt")).toEqual({
      lines: [""],
      err: "Nothing has been changed: of 8 rows, 7 would differ",
      exitCode: 1,
    });
    expect(await rows("select from tasks")).toHaveLength(0);
  });

  test("fails where a policy hides rows from its role", async () => {
    const role = `owner_${process.pid}_${Date.now()}`;
    await run(`${sqlModel("task")}; INSERT INTO task (${COLUMNS}) VALUES ${MILK};
      CREATE ROLE ${role} LOGIN; ALTER SCHEMA public OWNER TO ${role}; ALTER TABLE task OWNER TO ${role};
      GRANT CREATE ON DATABASE ${new URL(settings.DATABASE_URL ?? "").pathname.slice(1)} TO ${role};
      ALTER TABLE task ENABLE ROW LEVEL SECURITY; ALTER TABLE task FORCE ROW LEVEL SECURITY`);
    const url = new URL(settings.DATABASE_URL ?? "");
    url.username = role;
    const { err } = await command("adopt", { DATABASE_URL: url.href });
    await run(`DROP OWNED BY ${role} CASCADE; DROP ROLE ${role}; CREATE SCHEMA IF NOT EXISTS public`);
    expect(err).toStartWith("Nothing has been changed: query would be affected by row-level security policy");
  });

  test("waits for who is writing to the old table, and takes what was written", async () => {
    await run(`${sqlModel("task")}; INSERT INTO task (${COLUMNS}) VALUES ${MILK}`);
    const writer = new SQL({ url: settings.DATABASE_URL ?? "", max: 1 });
    const adopted = await writer.begin(async (transaction) => {
      await transaction.unsafe(`INSERT INTO task (${COLUMNS}) VALUES ${MILK}`);
      const adopting = command("adopt");
      const waits = () => rows("select from pg_locks where not granted and relation = 'task'::regclass");
      await until(async () => (await waits()).length > 0);
      return { adopting };
    });
    await writer.close();
    expect((await adopted.adopting).lines[0]).toStartWith("2 rows of task have been taken over");
  });

  test("makes who creates a task meanwhile wait, and gives them an id of their own", async () => {
    const service = await spawnService(settings);
    const bob = await service.newcomer("bob");
    await run(`${sqlModel("task")}; INSERT INTO task (${COLUMNS}) VALUES ${MILK};
      CREATE FUNCTION waits() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END';
      CREATE TRIGGER waits AFTER INSERT ON tasks FOR EACH ROW WHEN (NEW.user_id = 'ann') EXECUTE FUNCTION waits()`);
    const holder = new SQL({ url: settings.DATABASE_URL ?? "", max: 1 });
    const { adopting, created } = await holder.begin(async (transaction) => {
      await transaction.unsafe("select pg_advisory_xact_lock(1)");
      const waiting = () =>
        rows("select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'");
      const adopting = command("adopt");
      await until(async () => (await waiting()).length === 1);
      const created = bob.post({ title: "x" });
      await until(async () => (await waiting()).length === 2);
      return { adopting, created };
    });
    await holder.close();
    expect((await adopting).lines[0]).toStartWith("1 rows of task have been taken over");
    expect(await (await created).json()).toMatchObject({ id: 2, user_id: "bob" });
    await service.stop();
  });

  test("asked for twice at once, is done once", async () => {
    await run(
      `${sqlModel("task")}; INSERT INTO task (${COLUMNS}) SELECT 'ann', 'Task ' || n, NULL, false, now(), now() FROM generate_series(1, 2000) n`,
    );
    const both = await Promise.all([command("adopt"), command("adopt")]);
    expect(both.map(({ lines }) => lines[0]).toSorted()).toEqual([
      "2000 rows of task have been taken over; compared one by one, they are the same.",
      "task has been adopted before, up to id 2000. Nothing has been changed.",
    ]);
  });

  test("is what the service's log says to do, until it has been done", async () => {
    await run(`${sqlModel("task")}; INSERT INTO task (${COLUMNS}) VALUES ${MILK}`);
    const warnings = async () => {
      const service = await spawnService(settings);
      await (await service.newcomer()).task();
      await service.stop("SIGTERM");
      return service.lines.filter((line) => line.includes('"level":"WARNING"') && line.includes("adopt"));
    };
    const before = await warnings();
    expect(before).toHaveLength(1);
    expect(JSON.parse(before[0] ?? "").message).toStartWith("The table task has a FastAPI app's tasks");
    await command("adopt");
    expect(await warnings()).toEqual([]);
  });

  test("killed in the middle has changed nothing, or all; done again, it is whole", async () => {
    await run(`${sqlModel("tasks")};
      INSERT INTO tasks (${COLUMNS}) SELECT 'user-' || n % 1000, 'Task ' || n, nullif('d' || n % 3, 'd0'), n % 2 = 0,
        timestamp '2025-01-01' + n * interval '1 minute 1.2 ms', timestamp '2025-02-01' + n * interval '1 s'
        FROM generate_series(1, 100000) n`);
    for (const delay of [300, 700, 1200, 2000]) {
      const child = Bun.spawn([...COMMAND, "adopt"], {
        env: { PATH: process.env.PATH, ...SETTINGS, ...settings },
      });
      await Bun.sleep(delay);
      child.kill("SIGKILL");
      await child.exited;
      const [found] = await rows("select to_regclass('tasks_before_adoption') is not null as done");
      const [{ count }] = await rows(`select count(*)::int from ${found.done ? "tasks_before_adoption" : "tasks"}`);
      expect(count).toBe(100_000);
    }
    expect((await command("adopt")).exitCode).toBe(0);
    const same = await rows(`select count(*)::int from tasks t join tasks_before_adoption o on t.id = o.id
      and t.user_id = o.user_id and t.title = o.title and t.description is not distinct from o.description
      and t.completed = o.completed and t.created_at = (o.created_at at time zone 'UTC')::timestamptz(3)
      and t.updated_at = (o.updated_at at time zone 'UTC')::timestamptz(3)`);
    expect(same).toEqual([{ count: 100_000 }]);
    expect(await rows("select count(*)::int from tasks")).toEqual([{ count: 100_000 }]);
  }, 180_000);
});

test("an embedded database can be adopted as well", async () => {
  const db = await connect(loadConfig({ DATABASE_URL: "memory://" }));
  for (const statement of `${sqlModel("task")}; INSERT INTO task (${COLUMNS}) VALUES ${MILK}`.split(";"))
    await db.query({ name: "setup", text: statement }, []);
  await migrate(db);
  expect(await findOldTable(db)).toContain("tasks-api adopt");
  expect(await adopt(db, undefined, false)).toStartWith("1 rows of task have been taken over");
  expect(await findOldTable(db)).toBeUndefined();
  await db.close();
  // A start doesn't fail for want of the hint.
  expect(await findOldTable(db)).toBeUndefined();
});
