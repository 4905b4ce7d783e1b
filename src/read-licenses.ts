import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";

type Names = Record<string, { optional?: boolean } | undefined>;
type Manifest = { name: string; version: string; license?: string } & Partial<
  Record<"dependencies" | "peerDependencies" | "peerDependenciesMeta", Names>
>;

const BUN = `Bun ${Bun.version} (MIT), with JavaScriptCore (LGPL-2.1) and the other libraries that it links:
https://bun.com/docs/project/license`;

/**
 * The licences of all that the program holds: Bun, PostgreSQL, and each package that package.json's `dependencies`
 * lead to, as it was installed from the lock file. Runs as a macro, while the code is bundled.
 */
export function readLicenses(): string {
  const root = join(import.meta.dir, "..");
  const found = new Map<string, string>();
  const visit = (folder: string) => {
    const manifest: Manifest = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
    const { name, version, license, dependencies, peerDependencies, peerDependenciesMeta: meta } = manifest;
    const heading = `${name} ${version} (${license})`;
    if (found.has(heading)) return;
    const texts = readdirSync(folder)
      .filter((file) => folder !== root && /^(licen[cs]e|copying|notice)/i.test(file))
      .map((file) => readFileSync(join(folder, file), "utf8").trim());
    const nowhere = `Its package has no text of it: https://www.npmjs.com/package/${name}`;
    found.set(heading, texts.join("\n\n") || nowhere);
    const peers = Object.keys(peerDependencies ?? {}).filter((peer) => !meta?.[peer]?.optional);
    for (const needed of [...Object.keys(dependencies ?? {}), ...peers]) visit(folderOf(needed, folder));
  };
  visit(root);
  const [, ...packages] = [...found].map(([heading, text]) => `${heading}\n\n${text}`);
  const postgresql = readFileSync(join(import.meta.dir, "postgresql-license.txt"), "utf8").trim();
  return [BUN, postgresql, ...packages.toSorted()].join(`\n\n${"-".repeat(80)}\n\n`);
}

/** Where a package finds another: in its own node_modules, or the nearest above. */
function folderOf(name: string, from: string): string {
  const folder = join(from, "node_modules", name);
  if (existsSync(folder)) return folder;
  if (dirname(from) === from) throw new Error(`${name} is not installed`);
  return folderOf(name, dirname(from));
}
