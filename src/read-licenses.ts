import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";

type Names = Record<string, { optional?: boolean } | undefined>;
type Manifest = { name: string; version: string; license?: string } & Partial<
  Record<"dependencies" | "peerDependencies" | "peerDependenciesMeta", Names>
>;

/** What is in the program and in no package of its own. */
const EMBEDDED = `Bun ${Bun.version} (MIT), with JavaScriptCore (LGPL-2.1) and the other libraries that it links:
https://bun.com/docs/project/license

PostgreSQL 18, inside @electric-sql/pglite (PostgreSQL License)

Portions Copyright (c) 1996-2025, PostgreSQL Global Development Group
Portions Copyright (c) 1994, The Regents of the University of California

Permission to use, copy, modify, and distribute this software and its documentation for any purpose, without fee, and
without a written agreement is hereby granted, provided that the above copyright notice and this paragraph and the
following two paragraphs appear in all copies.

IN NO EVENT SHALL THE UNIVERSITY OF CALIFORNIA BE LIABLE TO ANY PARTY FOR DIRECT, INDIRECT, SPECIAL, INCIDENTAL, OR
CONSEQUENTIAL DAMAGES, INCLUDING LOST PROFITS, ARISING OUT OF THE USE OF THIS SOFTWARE AND ITS DOCUMENTATION, EVEN IF
THE UNIVERSITY OF CALIFORNIA HAS BEEN ADVISED OF THE POSSIBILITY OF SUCH DAMAGE.

THE UNIVERSITY OF CALIFORNIA SPECIFICALLY DISCLAIMS ANY WARRANTIES, INCLUDING, BUT NOT LIMITED TO, THE IMPLIED
WARRANTIES OF MERCHANTABILITY AND FITNESS FOR A PARTICULAR PURPOSE. THE SOFTWARE PROVIDED HEREUNDER IS ON AN "AS IS"
BASIS, AND THE UNIVERSITY OF CALIFORNIA HAS NO OBLIGATIONS TO PROVIDE MAINTENANCE, SUPPORT, UPDATES, ENHANCEMENTS, OR
MODIFICATIONS.`;

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
  return [EMBEDDED, ...packages.toSorted()].join(`\n\n${"-".repeat(80)}\n\n`);
}

/** Where a package finds another: in its own node_modules, or the nearest above. */
function folderOf(name: string, from: string): string {
  const folder = join(from, "node_modules", name);
  if (existsSync(folder)) return folder;
  if (dirname(from) === from) throw new Error(`${name} is not installed`);
  return folderOf(name, dirname(from));
}
