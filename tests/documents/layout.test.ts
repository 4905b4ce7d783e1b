import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { Glob } from "bun";

/** Each file of src. */
const files = [...new Glob("src/**/*.ts").scanSync()].map((file) => {
  const text = readFileSync(file, "utf8");
  return { file, text, lines: text.split("\n").length - 1 };
});

/** Who imports whom, be it a type only. */
const arrows = files.flatMap(({ file, text }) =>
  [...text.matchAll(/\b(?:from |import\()"(\.[^"]+\.ts)"/g)].map(([, path]) => ({
    file,
    to: join(dirname(file), path ?? ""),
  })),
);
const arrowsFrom = (from: string, ...to: string[]) =>
  arrows.filter((arrow) => arrow.file.startsWith(from) && to.some((room) => arrow.to.startsWith(room)));

test("no file imports itself by way of others", () => {
  // An arrow that begins or ends at a dead end is taken away, again and again: what stays is a circle.
  let left = arrows;
  for (let before = 0; before !== left.length; ) {
    before = left.length;
    left = left.filter(
      ({ file, to }) => left.some((arrow) => arrow.file === to) && left.some((arrow) => arrow.to === file),
    );
  }
  expect(left).toEqual([]);
});

test("http/ knows nothing of who is signed in, of tasks or of the document", () => {
  expect(arrowsFrom("src/http/", "src/auth/", "src/tasks/", "src/docs/")).toEqual([]);
});

test("auth/, db/ and tasks/ don't know who uses them", () => {
  expect(arrowsFrom("src/db/", "src/http/", "src/auth/", "src/tasks/", "src/docs/", "src/app")).toEqual([]);
  expect(arrowsFrom("src/auth/", "src/tasks/", "src/docs/", "src/db/", "src/app")).toEqual([]);
  expect(arrowsFrom("src/tasks/", "src/docs/", "src/app")).toEqual([]);
});

test("what a database is says nothing of the drivers, which are known to connect.ts only", () => {
  const drivers = ["src/db/postgres", "src/db/neon", "src/db/embedded"];
  expect(arrowsFrom("src/db/database", "src/db/")).toEqual([]);
  expect(new Set(arrowsFrom("src/", ...drivers).map(({ file }) => file))).toEqual(new Set(["src/db/connect.ts"]));
});

test("no file has more than 250 lines", () => {
  expect(files.filter(({ lines }) => lines > 250).map(({ file, lines }) => [file, lines])).toEqual([]);
});

test("only the entry, and what stops it, touches the process", () => {
  const touching = files.filter(({ text }) => /\bprocess\.(exit|env|argv|on)\b/.test(text)).map(({ file }) => file);
  expect(touching.toSorted()).toEqual(["src/index.ts", "src/serve.ts"]);
});
