import { mkdirSync, writeFileSync } from "node:fs";
import ts from "typescript";

/**
 * Writes `dist/client.d.ts`: the app's type for Eden, spelled out in one declaration. The type of `src/app.ts` itself
 * leads through all of the service's source, Bun's types and its own copy of Elysia, which a front end has none of.
 */
const root = `${import.meta.dir}/..`;
const entry = `${import.meta.dir}/client-entry.ts`;

const SOURCE = `
  import type { App } from "../src/app.ts";
  import type { NewTask, Task, TaskChanges } from "../src/tasks/model.ts";

  type Plain<T> = T extends object ? { [Key in keyof T]: Plain<T[Key]> } : T;
  /** Elysia's own 422 is declared on every route; this service never sends it. */
  type Answers<T> = { [Status in keyof T as T[Status] extends { type: "validation" } ? never : Status]: Plain<T[Status]> };
  type Routes<T> = {
    [Key in keyof T]: T[Key] extends { body: infer Body; response: infer Response }
      ? { body: Plain<Body>; response: Answers<Response> } & Omit<T[Key], "body" | "response">
      : Routes<T[Key]>;
  };

  export interface Named {
    Task: Plain<Task>;
    NewTask: Plain<NewTask>;
    TaskChanges: Plain<TaskChanges>;
    Problem: Plain<App["~Routes"]["api"][":user_id"]["tasks"]["get"]["response"][401]>;
  }
  export interface Tree {
    Routes: Plain<Routes<Pick<App["~Routes"], "api" | "health">>>;
  }
`;

const { config } = ts.readConfigFile(`${root}/tsconfig.json`, ts.sys.readFile);
const { options } = ts.parseJsonConfigFileContent(config, ts.sys, root);
const host = ts.createCompilerHost(options);
const { fileExists, getSourceFile } = host;
host.fileExists = (path) => path === entry || fileExists(path);
host.getSourceFile = (path, version, ...rest) =>
  path === entry ? ts.createSourceFile(path, SOURCE, version) : getSourceFile(path, version, ...rest);

const program = ts.createProgram([entry, `${root}/src/assets.d.ts`], options, host);
const checker = program.getTypeChecker();
const source = program.getSourceFile(entry);
const [mistake] = ts.getPreEmitDiagnostics(program, source);
if (source === undefined || mistake !== undefined)
  throw new Error(`the app's type can't be read: ${ts.flattenDiagnosticMessageText(mistake?.messageText, "\n")}`);

const { NoTruncation, InTypeAlias } = ts.TypeFormatFlags;
const spelledOut = (type: ts.Type) => checker.typeToString(type, source, NoTruncation | InTypeAlias);
const module = checker.getSymbolAtLocation(source);
/** The members of an exported interface or type, by name. */
const membersOf = (name: string) => {
  const symbol = module && checker.tryGetMemberInModuleExports(name, module);
  if (symbol === undefined) throw new Error(`there is no ${name}`);
  return checker.getDeclaredTypeOfSymbol(symbol).getProperties();
};
const named = membersOf("Named").map((symbol) => ({
  name: symbol.name,
  type: spelledOut(checker.getTypeOfSymbol(symbol)),
}));
const [tree] = membersOf("Tree");
const routes = named.reduce(
  (text, { name, type }) => text.replaceAll(type, name),
  spelledOut(checker.getTypeOfSymbol(tree as ts.Symbol)),
);

const FILE = `${root}/dist/client.d.ts`;
mkdirSync(`${root}/dist`, { recursive: true });
writeFileSync(
  FILE,
  [
    "// Made by `bun run build:client` of the Tasks API, for Eden: `treaty<App>(address, { parseDate: false })`.",
    'import type { Elysia } from "elysia";',
    ...named.map(({ name, type }) => `export type ${name} = ${type};`),
    `type Routes = ${routes};`,
    'export type App = Elysia<"", Elysia["~Singleton"], Elysia["~Definitions"], Elysia["~Metadata"], Routes>;',
  ].join("\n"),
);
await Bun.$`biome format --write --vcs-enabled=false ${FILE}`.quiet();
