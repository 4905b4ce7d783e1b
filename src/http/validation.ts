import { Kind, type TObject, type TSchema, type TUnsafe, Type, TypeRegistry } from "@sinclair/typebox";
import { Errors, ValueErrorType } from "@sinclair/typebox/errors";
import type { Context } from "elysia";
import { Problem, type Violation, validationProblem } from "./problem.ts";

/** Where in a request a value stood, in FastAPI's words. */
type Part = "path" | "query" | "body";

type Fault = Omit<Violation, "loc"> | undefined;

/** Surrounding white space is not counted: the service strips it before it stores the text. */
const Trimmed = Symbol("Trimmed");

/**
 * White space as Python's `strip()` has it, and the FastAPI backend had: with U+001C to U+001F and U+0085, without
 * U+FEFF.
 */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for.
const SPACE = /[\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]/;

/** Without the white space around it. By hand: an expression for its end takes time by the square of the length. */
export function stripped(text: string): string {
  let start = 0;
  let end = text.length;
  while (start < end && SPACE.test(text.charAt(start))) start++;
  while (end > start && SPACE.test(text.charAt(end - 1))) end--;
  return text.slice(start, end);
}

/**
 * TypeBox's own string counts UTF-16 units, lets NUL through, which Postgres can't store, and lone surrogates,
 * which UTF-8 can't carry. Its integers accept `1e3` and `0x10` in a URL. So the kinds of value that this API
 * reads are its own; in the OpenAPI document each is plain JSON Schema, whose `maxLength` does count characters.
 */
interface TextOptions {
  minLength?: number;
  maxLength: number;
  trimmed?: boolean;
  nullable?: boolean;
  description?: string;
  examples?: unknown[];
}

/** Text of so many Unicode code points. */
export function text(options: TextOptions & { nullable: true }): TUnsafe<string | null>;
export function text(options: TextOptions): TUnsafe<string>;
export function text({ trimmed = false, nullable = false, ...keywords }: TextOptions): TSchema {
  return Type.Unsafe({
    [Kind]: "Text",
    ...(trimmed && { [Trimmed]: true }),
    type: nullable ? ["string", "null"] : "string",
    ...keywords,
  });
}

/**
 * A whole number in a URL: decimal digits and nothing else, from `minimum` (at least 0) to `maximum`. It stays the text
 * that it came as; a client may give a number.
 */
export const decimal = (options: {
  minimum: number;
  maximum: number;
  default?: number;
  deprecated?: boolean;
  description?: string;
}): TUnsafe<number | `${number}`> => Type.Unsafe({ [Kind]: "Decimal", type: "integer", ...options });

/** The expression for all that a schema of words lets through. */
const Accepted = Symbol("Accepted");

/**
 * One of a few words, each with its meaning. The document has the meanings only; the other words are understood
 * too. With `anyCase`, upper and lower case are the same.
 */
export const oneOf = <const Word extends string>(
  words: Readonly<Record<string, Word>>,
  {
    anyCase = false,
    ...keywords
  }: { anyCase?: boolean; default?: NoInfer<Word>; deprecated?: boolean; description?: string },
): TUnsafe<Word> =>
  Type.Unsafe({
    [Kind]: "OneOf",
    [Accepted]: new RegExp(`^(${Object.keys(words).join("|")})$`, anyCase ? "i" : ""),
    type: "string",
    enum: [...new Set(Object.values(words))],
    ...keywords,
  });

const kinds: Record<string, (schema: TSchema, value: unknown) => Fault> = {
  Text(schema, value) {
    if (value === null && schema.type !== "string") return undefined;
    if (typeof value !== "string") return { type: "string_type", msg: "Input should be a valid string" };
    if (value.includes("\0") || !value.isWellFormed())
      return { type: "string_unicode", msg: "String should hold no NUL and no lone surrogate" };
    const length = codePoints(Trimmed in schema ? stripped(value) : value);
    const { minLength = 0, maxLength } = schema;
    if (length < minLength)
      return { type: "string_too_short", msg: `String should have at least ${characters(minLength)}` };
    if (length > maxLength)
      return { type: "string_too_long", msg: `String should have at most ${characters(maxLength)}` };
  },
  Decimal({ minimum, maximum }, value) {
    const digits = String(value);
    if (!/^(0|[1-9][0-9]*)$/.test(digits)) return { type: "int_parsing", msg: "Input should be a valid integer" };
    if (Number(digits) < minimum)
      return { type: "greater_than_equal", msg: `Input should be greater than or equal to ${minimum}` };
    if (Number(digits) > maximum)
      return { type: "less_than_equal", msg: `Input should be less than or equal to ${maximum}` };
  },
  OneOf(schema, value) {
    // TypeBox's type of a schema has no symbols but its own. `oneOf` has put a RegExp there.
    const accepted: RegExp = schema[Accepted as never];
    if (typeof value !== "string" || !accepted.test(value))
      return { type: "literal_error", msg: `Input should be one of: ${schema.enum.join(", ")}` };
  },
};

for (const [kind, fault] of Object.entries(kinds))
  TypeRegistry.Set(kind, (schema: TSchema, value) => fault(schema, value) === undefined);

/** What any operation may answer instead. */
export const commonFailures = {
  401: Problem,
  403: Problem,
  422: Problem,
  429: Problem,
  500: Problem,
  503: Problem,
};
export const bodyFailures = { 400: Problem, 408: Problem, 413: Problem, 415: Problem };

/**
 * Has these parts of a request checked. Elysia stops at the first part that is wrong; the answer names what is
 * wrong in all of them.
 */
export function validated<Schemas extends { params: TObject; query?: TObject; body?: TObject }>(schemas: Schemas) {
  const { params: path, query: parameters, body: json } = schemas;
  const inUrl = ({ params, query }: Parts) => [
    ...violations("path", path, params),
    ...(parameters ? violations("query", parameters, query) : []),
  ];
  // Elysia parses a body for any hook that so much as names it.
  const error = json
    ? ({ code, set, params, query, body }: Parts) =>
        code === "VALIDATION"
          ? validationProblem({ set }, [...inUrl({ code, set, params, query }), ...violations("body", json, body)])
          : undefined
    : ({ code, set, params, query }: Parts) =>
        code === "VALIDATION" ? validationProblem({ set }, inUrl({ code, set, params, query })) : undefined;
  return { ...schemas, error };
}

interface Parts extends Pick<Context, "set"> {
  code: unknown;
  params: unknown;
  query: unknown;
  body?: unknown;
}

/** Everything that is wrong with one part of a request: at most one violation for each field. */
function violations(part: Part, schema: TSchema, value: unknown): Violation[] {
  const found = new Map<string, Violation>();
  for (const error of Errors(schema, [], value)) {
    if (found.has(error.path)) continue;
    const fault =
      error.type === ValueErrorType.ObjectRequiredProperty
        ? { type: "missing", msg: "Field required" }
        : (kinds[error.schema[Kind]]?.(error.schema, error.value) ?? fallback(error.schema));
    found.set(error.path, { loc: [part, ...error.path.split("/").slice(1)], ...fault });
  }
  return [...found.values()];
}

const fallback = ({ type }: TSchema) =>
  type === "boolean"
    ? { type: "bool_type", msg: "Input should be true or false" }
    : { type: "model_attributes_type", msg: "Input should be a JSON object" };

const characters = (n: number) => (n === 1 ? "1 character" : `${n} characters`);

/** The usual text has no surrogate pair, and then the two counts agree. */
const codePoints = (text: string): number => (/[\ud800-\udbff]/.test(text) ? Array.from(text).length : text.length);
