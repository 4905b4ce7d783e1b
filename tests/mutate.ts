/**
 * Breaks the code in one place at a time and tells which breaks no test notices:
 * `bun tests/mutate.ts src/auth 20 1` for 20 of the places in `src/auth`, chosen by the seed 1.
 *
 * It works on a copy, so that an interrupted run leaves nothing behind. A copy that doesn't start or doesn't compile
 * counts as noticed, since the gate compiles too.
 */
import { cpSync, mkdtempSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { Glob } from "bun";
import ts from "typescript";

/** Which tests are asked, by the longest prefix that fits. If they notice nothing, others that import the file are. */
const TESTS: Record<string, string[]> = {
  "src/": ["process"],
  "src/app": ["answers", "input", "metrics"],
  "src/config": ["config"],
  "src/health": ["process", "document", "answers"],
  "src/log": ["log", "process"],
  "src/metrics": ["metrics"],
  "src/serve": ["process", "shutdown"],
  "src/auth/": ["tokens", "access", "better-auth"],
  "src/db/": ["pool", "batching", "drivers", "answers", "tasks", "plans", "connections"],
  "src/db/adopt": ["adopt"],
  "src/db/embedded": ["embedded", "process"],
  "src/db/migrate": ["embedded", "process", "connections", "found"],
  "src/db/url": ["config"],
  "src/docs/": ["document", "docs"],
  "src/http/": ["input", "answers", "access"],
  "src/http/accept": ["compression", "answers"],
  "src/http/body": ["input", "bounds", "requests"],
  "src/http/conditional": ["conditional"],
  "src/http/cors": ["cors"],
  "src/http/limits": ["limits"],
  "src/http/origins": ["config", "cors"],
  "src/http/problem": ["answers", "input", "access", "document"],
  "src/http/requests": ["requests", "answers", "process"],
  "src/http/unread": ["unread"],
  "src/http/validat": ["input", "list", "document"],
  "src/tasks/": ["tasks", "list", "input", "clearing", "conditional", "idempotency", "document"],
  "src/tasks/st": ["plans", "list", "tasks", "clearing", "conditional", "idempotency"],
};

/** What each operator is mistaken for. */
const MISTAKEN: Record<string, string> = {
  "===": "!==",
  "!==": "===",
  "<": "<=",
  "<=": "<",
  ">": ">=",
  ">=": ">",
  "&&": "||",
  "||": "&&",
  "??": "&&",
  "+": "-",
  "-": "+",
  "*": "/",
  "/": "*",
  "+=": "-=",
  "-=": "+=",
};

interface Mutant {
  file: string;
  start: number;
  end: number;
  text: string;
}

/** Every way to break a file that compiles to something else. */
function mutantsOf(file: string, source: string): Mutant[] {
  const tree = ts.createSourceFile(file, source, ts.ScriptTarget.Latest, true);
  const mutants: Mutant[] = [];
  const replace = (node: ts.Node, ...texts: string[]) => {
    for (const text of texts) mutants.push({ file, start: node.getStart(), end: node.getEnd(), text });
  };
  const visit = (node: ts.Node): void => {
    if (ts.isTypeNode(node) || ts.isImportDeclaration(node) || ts.isInterfaceDeclaration(node)) return;
    if (ts.isBinaryExpression(node)) {
      const mistaken = MISTAKEN[node.operatorToken.getText()];
      if (mistaken !== undefined) replace(node.operatorToken, mistaken);
    }
    if (ts.isIfStatement(node)) replace(node.expression, "true", "false");
    if (ts.isConditionalExpression(node)) replace(node.condition, "true", "false");
    if (ts.isPrefixUnaryExpression(node) && node.operator === ts.SyntaxKind.ExclamationToken)
      replace(node, node.operand.getText());
    if (node.kind === ts.SyntaxKind.TrueKeyword) replace(node, "false");
    if (node.kind === ts.SyntaxKind.FalseKeyword) replace(node, "true");
    if (ts.isNumericLiteral(node)) replace(node, `(${node.getText()} * 1.2 + 1)`);
    if (ts.isExpressionStatement(node)) replace(node, ";");
    if (ts.isAwaitExpression(node)) replace(node, node.expression.getText());
    if (ts.isReturnStatement(node) && node.expression !== undefined) replace(node, "return;");
    if (ts.isSpreadAssignment(node) || ts.isSpreadElement(node)) replace(node, ts.isSpreadElement(node) ? "" : "...{}");
    if (ts.isPropertyAssignment(node) && ts.isObjectLiteralExpression(node.parent)) replace(node, "...{}");
    ts.forEachChild(node, visit);
  };
  visit(tree);
  return mutants;
}

const [target = "src", count = "20", seed = "1"] = process.argv.slice(2);
const root = join(import.meta.dir, "..");
const copy = mkdtempSync(join(tmpdir(), "mutants-"));
for (const name of readdirSync(root).filter((name) => !/^(\.git|\.data|node_modules)$/.test(name)))
  cpSync(join(root, name), join(copy, name), { recursive: true });
symlinkSync(join(root, "node_modules"), join(copy, "node_modules"));

const read = (file: string) => Bun.file(join(root, file)).text();
const files = statSync(join(root, target)).isFile()
  ? [target]
  : readdirSync(join(root, target), { recursive: true, encoding: "utf8" })
      .filter((name) => name.endsWith(".ts") && !name.endsWith(".d.ts"))
      .map((name) => join(target, name));
// README's test asks git what belongs to the project, and the copy has none.
const tests = [...new Glob("tests/**/*.test.ts").scanSync(root)].filter((test) => !test.includes("readme"));
const all = (await Promise.all(files.map(async (file) => mutantsOf(file, await read(file))))).flat();
/** The same places for the same seed. */
const place = (mutant: Mutant) => Bun.hash(JSON.stringify([mutant, seed]));
const sample = all.sort((a, b) => (place(a) < place(b) ? -1 : 1)).slice(0, Number(count));

const print = (line: string) => void process.stdout.write(`${line}\n`);
const passes = (...command: string[]) =>
  Bun.spawnSync(command, { cwd: copy, stdout: "ignore", stderr: "ignore" }).exitCode === 0;
// With a server, the servers and databases that tests have made would be left by `--bail`.
const bail = process.env.TEST_DATABASE_URL === undefined ? ["--bail"] : [];
/** Whether they pass, broken or not. */
const pass = (paths: string[]) => paths.length === 0 || passes("timeout", "500", "bun", "test", ...bail, ...paths);
/** The tests that pass unbroken. */
const sound = new Set<string>();
const survivors: string[] = [];
for (const [index, { file, start, end, text }] of sample.entries()) {
  const source = await read(file);
  const prefix = Object.keys(TESTS).findLast((prefix) => file.startsWith(prefix)) ?? "src/";
  const named = tests.filter((test) => TESTS[prefix]?.includes(basename(test, ".test.ts")));
  const imported = new RegExp(`^import (?!type).* from "../../${file}"`, "m");
  const others: string[] = [];
  for (const test of tests) if (!named.includes(test) && imported.test(await read(test))) others.push(test);
  for (const paths of [named, others])
    if (!sound.has(paths.join()) && !pass(paths)) throw new Error(`${paths.join(" ")}: fail as it is`);
    else sound.add(paths.join());
  writeFileSync(join(copy, file), source.slice(0, start) + text + source.slice(end));
  const survives = passes("bun", "x", "tsc", "--noEmit") && pass(named) && pass(others);
  writeFileSync(join(copy, file), source);
  const line = source.slice(0, start).split("\n").length;
  const change = `${file}:${line}  ${source.slice(start, end).replace(/\s+/g, " ").slice(0, 60)}  →  ${text}`;
  if (survives) survivors.push(change);
  print(`${index + 1}/${sample.length} ${survives ? "SURVIVES" : "noticed "} ${change}`);
}
rmSync(copy, { recursive: true });
print(`${basename(target)}: ${survivors.length} of ${sample.length} survive, of ${all.length} places`);
