import { SQLiteError, Database as Sqlite } from "bun:sqlite";
import { accessSync, constants, existsSync, mkdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { PGlite } from "@electric-sql/pglite";
import initdb from "@electric-sql/pglite/initdb.wasm" with { type: "file" };
import data from "@electric-sql/pglite/pglite.data" with { type: "file" };
import postgres from "@electric-sql/pglite/pglite.wasm" with { type: "file" };
import { drizzle } from "drizzle-orm/pglite";
import type { Database, Statement } from "./database.ts";
import { type Connection, createPool } from "./pool.ts";

/**
 * A whole Postgres inside the process: PGlite, with its files in `directory`, or in memory without one.
 *
 * @throws a sentence that names the directory and the cause, such as another process that has it open.
 */
export async function embedded(directory: string | undefined): Promise<Database> {
  if (directory === undefined) return database(await open(), "embedded Postgres, in memory");
  let unlock = () => {};
  try {
    unlock = lock(directory);
    const files = join(directory, "postgres");
    if (!existsSync(files)) await initialize(files);
    // PGlite would make a new database over the remains of the old one.
    else if (!existsSync(join(files, "PG_VERSION"))) throw new Error(`there is no database in ${files}`);
    return database(await open(files), `embedded Postgres in ${directory}`, unlock);
  } catch (error) {
    unlock();
    const advice = "Make the folder usable, restore it from a backup, or name another in DATABASE_URL.";
    const reason = reasonOf(error).replace(/\.$/, "");
    throw new Error(`The embedded database in ${directory} can't be opened: ${reason}. ${advice}`);
  }
}

/** PGlite, and the last words of the Postgres inside it, once it has gone down. */
interface Opened {
  client: PGlite;
  lastWords: string[];
}

function database({ client, lastWords }: Opened, label: string, unlock = () => {}): Database {
  const connection: Connection = {
    async send<Row>({ text }: Statement, values: unknown[]) {
      // Without this a statement after a PANIC, such as that of a full disk, would never be answered.
      if (lastWords.length > 0) throw stopped(label, lastWords);
      try {
        return (await client.query<Row>(text, values)).rows;
      } catch (error) {
        throw lastWords.length > 0 ? stopped(label, lastWords) : error;
      }
    },
    // It runs on this thread: while it does, nobody can ask for its end.
    cancel() {},
    close() {},
  };
  const { close, ...pool } = createPool(1, () => connection);
  return {
    orm: drizzle({ client }),
    ...pool,
    label,
    async close() {
      await close();
      if (lastWords.length === 0) await client.close();
      unlock();
    },
  };
}

/** An outage (SQLSTATE class 58): only a new start brings the database back. */
const stopped = (label: string, lastWords: string[]) =>
  Object.assign(new Error(`The ${label} has stopped: ${lastWords.join(": ")}`), { code: "58030" });

/** PGlite looks for its parts beside its code, where a compiled program has none: here they are named. */
async function open(dataDir?: string): Promise<Opened> {
  const lastWords: string[] = [];
  // What PGlite throws when Postgres goes down says only "Aborted()"; Postgres has said why.
  const onStderr = (line: string) => {
    const [, level, words] = /\b(FATAL|PANIC|DETAIL): {2}(.*)/.exec(line) ?? [];
    if (words !== undefined && (level === "DETAIL") === lastWords.length > 0) lastWords.push(words);
    return true;
  };
  try {
    const options = {
      ...(dataDir && { dataDir }),
      onStderr,
      pgliteWasmModule: await WebAssembly.compile(await Bun.file(postgres).arrayBuffer()),
      initdbWasmModule: await WebAssembly.compile(await Bun.file(initdb).arrayBuffer()),
      fsBundle: Bun.file(data),
    };
    const client = await keepingMarks(() => PGlite.create(options));
    return { client, lastWords };
  } catch (error) {
    throw lastWords.length > 0 ? new Error(lastWords.join(": ")) : error;
  }
}

/**
 * With PGlite comes its decoder of texts, and that one drops a U+FEFF at a text's start. What is made in here gets one
 * that keeps it.
 */
function keepingMarks<Made>(make: () => Made): Made {
  const usual = globalThis.TextDecoder;
  globalThis.TextDecoder = class extends usual {
    constructor(label?: Bun.Encoding) {
      super(label, { ignoreBOM: true });
    }
  };
  try {
    return make();
  } finally {
    globalThis.TextDecoder = usual;
  }
}

/** A failure of the file system comes out of PGlite as an object with a number, WASI's and not this system's. */
const WASI_ERRORS: Record<string, string> = {
  2: "permission denied",
  19: "the disk quota is used up",
  51: "no space is left on the disk",
  69: "the file system is read-only",
};

function reasonOf(error: unknown): string {
  if (error instanceof Error) return error.message;
  const { errno } = Object(error) as { errno?: number };
  return WASI_ERRORS[String(errno)] ?? `system error ${errno}`;
}

/** A first start that is cut short leaves nothing behind that could be taken for a database. */
async function initialize(files: string): Promise<void> {
  const unfinished = `${files}.unfinished`;
  rmSync(unfinished, { recursive: true, force: true });
  try {
    const { client } = await open(unfinished);
    await client.close();
    renameSync(unfinished, files);
  } finally {
    // On a full disk it would go on taking what is left.
    rmSync(unfinished, { recursive: true, force: true });
  }
}

/**
 * PGlite has no lock of its own, and two processes on one directory destroy it. SQLite's is released by the
 * kernel however the process ends.
 */
function lock(directory: string): () => void {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  // SQLite would only say that it can't open its file.
  accessSync(directory, constants.R_OK | constants.W_OK | constants.X_OK);
  const file = new Sqlite(join(directory, "lock"), { create: true });
  try {
    file.run("PRAGMA locking_mode = EXCLUSIVE");
    file.run("BEGIN EXCLUSIVE");
  } catch (error) {
    file.close();
    if (!(error instanceof SQLiteError) || error.code !== "SQLITE_BUSY") throw error;
    throw new Error("it is in use by another process: stop that one, or give this one another DATABASE_URL");
  }
  return () => file.close();
}
