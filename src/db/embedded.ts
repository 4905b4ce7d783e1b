import { Database as Sqlite } from "bun:sqlite";
import { existsSync, mkdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { PGlite } from "@electric-sql/pglite";
import { drizzle } from "drizzle-orm/pglite";
import type { Database } from "./index.ts";

/**
 * A whole Postgres inside the process: PGlite, with its files in `directory`, or in memory without one.
 *
 * @throws {DirectoryInUse} if another process has the directory open.
 */
export async function embedded(directory: string | undefined): Promise<Database> {
  if (directory === undefined) return database(await PGlite.create(), "embedded Postgres, in memory");
  const unlock = lock(directory);
  try {
    const files = join(directory, "postgres");
    if (!existsSync(files)) await initialize(files);
    return database(await PGlite.create(files), `embedded Postgres in ${directory}`, unlock);
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

const database = (client: PGlite, label: string, unlock = () => {}): Database => ({
  orm: drizzle({ client }),
  label,
  async close() {
    await client.close();
    unlock();
  },
});

/** A first start that is cut short leaves nothing behind that could be taken for a database. */
async function initialize(files: string): Promise<void> {
  const unfinished = `${files}.unfinished`;
  rmSync(unfinished, { recursive: true, force: true });
  const client = await PGlite.create(unfinished);
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
