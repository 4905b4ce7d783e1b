import { cpSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { atEnd } from "./harness.ts";
import { folder } from "./programs.ts";

/** A front end's own Drizzle project: one table, and the migration that drizzle-kit has generated for it. */
export function frontEndProject({ when = Date.now(), table = "front_end_posts" } = {}): string {
  const directory = folder("front-end");
  atEnd(() => rmSync(directory, { recursive: true }));
  const schema = join(directory, "schema.ts");
  writeFileSync(
    schema,
    `import { pgTable, text } from "drizzle-orm/pg-core";\nexport const posts = pgTable(${JSON.stringify(table)}, { id: text().primaryKey() });\n`,
  );
  symlinkSync(resolve("node_modules"), join(directory, "node_modules"));
  const generate = Bun.spawnSync(
    ["node_modules/.bin/drizzle-kit", "generate", "--dialect=postgresql", `--schema=${schema}`, "--out=drizzle"],
    { cwd: directory, stdout: "pipe", stderr: "pipe" },
  );
  if (generate.exitCode !== 0) throw new Error(`${generate.stdout}${generate.stderr}`);
  const out = join(directory, "drizzle");
  const journal = join(out, "meta", "_journal.json");
  const content = JSON.parse(readFileSync(journal, "utf8"));
  content.entries[0].when = when;
  writeFileSync(journal, JSON.stringify(content));
  return out;
}

/** The migrations of this service's first version, as a folder of Drizzle's: it kept them in Drizzle's own journal. */
export function firstVersion(): string {
  const directory = folder("first-version");
  atEnd(() => rmSync(directory, { recursive: true }));
  cpSync("drizzle", directory, { recursive: true });
  const journal = join(directory, "meta", "_journal.json");
  const content = JSON.parse(readFileSync(journal, "utf8"));
  writeFileSync(journal, JSON.stringify({ ...content, entries: content.entries.slice(0, 1) }));
  return directory;
}
