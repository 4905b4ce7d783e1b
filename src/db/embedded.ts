import { Database as Sqlite } from "bun:sqlite";
import { existsSync, mkdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { PGlite } from "@electric-sql/pglite";
import initdb from "@electric-sql/pglite/initdb.wasm" with { type: "file" };
import data from "@electric-sql/pglite/pglite.data" with { type: "file" };
import postgres from "@electric-sql/pglite/pglite.wasm" with { type: "file" };
import { drizzle } from "drizzle-orm/pglite";
import type { Database, Query, Statement } from "./database.ts";

/**
 * A whole Postgres inside the process: PGlite, with its files in `directory`, or in memory without one.
 *
 * @throws {DirectoryInUse} if another process has the directory open.
 */
export async function embedded(directory: string | undefined): Promise<Database> {
  if (directory === undefined) return database(await open(), "embedded Postgres, in memory");
  const unlock = lock(directory);
  try {
    const files = join(directory, "postgres");
    if (!existsSync(files)) await initialize(files);
    return database(await open(files), `embedded Postgres in ${directory}`, unlock);
  } catch (error) {
    unlock();
    throw error;
  }
}

export class DirectoryInUse extends Error {
  constructor(directory: string) {
    super(`${directory} is in use by another process: stop that one, or give this one another DATABASE_URL`);
  }
}

function database(client: PGlite, label: string, unlock = () => {}): Database {
  const query: Query = async <Row>({ text }: Statement, values: unknown[]) =>
    (await client.query<Row>(text, values)).rows;
  return {
    orm: drizzle({ client }),
    query,
    quick: query,
    label,
    async close() {
      await client.close();
      unlock();
    },
  };
}

/** PGlite looks for its parts beside its code, where a compiled program has none: here they are named. */
const open = async (dataDir?: string) =>
  PGlite.create({
    ...(dataDir && { dataDir }),
    pgliteWasmModule: await WebAssembly.compile(await Bun.file(postgres).arrayBuffer()),
    initdbWasmModule: await WebAssembly.compile(await Bun.file(initdb).arrayBuffer()),
    fsBundle: Bun.file(data),
  });

/** A first start that is cut short leaves nothing behind that could be taken for a database. */
async function initialize(files: string): Promise<void> {
  const unfinished = `${files}.unfinished`;
  rmSync(unfinished, { recursive: true, force: true });
  const client = await open(unfinished);
  await client.close();
  renameSync(unfinished, files);
}

/**
 * PGlite has no lock of its own, and two processes on one directory destroy it. SQLite's is released by the
 * kernel however the process ends.
 */
function lock(directory: string): () => void {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const file = new Sqlite(join(directory, "lock"), { create: true });
  try {
    file.run("PRAGMA locking_mode = EXCLUSIVE");
    file.run("BEGIN EXCLUSIVE");
  } catch {
    file.close();
    throw new DirectoryInUse(directory);
  }
  return () => file.close();
}
