import { type Static, Type } from "@sinclair/typebox";
import { invalid, type Violation } from "../http/problem.ts";
import { decimal, oneOf, text } from "../http/validation.ts";

const title = text({
  trimmed: true,
  minLength: 1,
  maxLength: 200,
  description: "What is to be done: 1 to 200 Unicode characters, not counting white space around them.",
  examples: ["Buy milk"],
});

const description = text({
  nullable: true,
  maxLength: 1000,
  description: "Details, at most 1,000 Unicode characters, or null.",
  examples: ["Oat, two cartons"],
});

const completed = (meaning: string, example = false) => Type.Boolean({ description: meaning, examples: [example] });

const instant = (meaning: string) =>
  Type.String({ format: "date-time", description: meaning, examples: ["2026-11-23T11:50:00.123Z"] });

/** What a request holds beyond what is asked for is ignored, not an error: front ends send more. */
const lenient = { additionalProperties: true };

/** A task as it goes out. Checked by the compiler against the table's row, so not once more at run time. */
export const Task = Type.Object(
  {
    id: Type.Integer({
      minimum: 1,
      maximum: Number.MAX_SAFE_INTEGER,
      description: "Assigned by the database.",
      examples: [7],
    }),
    user_id: Type.String({ description: "The owner: Better Auth's user id.", examples: ["demo"] }),
    title,
    description,
    completed: completed("Whether it is done."),
    created_at: instant("When it was created: ISO 8601, UTC, to the millisecond."),
    updated_at: instant("When it last changed: moves with every successful PUT and PATCH."),
  },
  { $id: "Task", noValidate: true },
);

export const TaskList = Type.Array(Task, { $id: "TaskList", noValidate: true });

export const NewTask = Type.Object(
  {
    title,
    description: Type.Optional(description),
    completed: Type.Optional(completed("Whether it is done already.")),
  },
  { ...lenient, $id: "NewTask", description: "A task to create. Members other than these are ignored." },
);

export const TaskChanges = Type.Partial(
  Type.Object({ title, description, completed: completed("Whether it is done.") }),
  {
    ...lenient,
    $id: "TaskChanges",
    description:
      "The fields to change: at least one. An absent field is kept; null clears the description. Members other than these are ignored.",
  },
);

export const Completion = Type.Partial(
  Type.Object({ completed: completed("The state to set; without it, the state is toggled.", true) }),
  { ...lenient, $id: "Completion", description: "The state to set, so that a retry is safe." },
);

const user_id = text({
  minLength: 1,
  maxLength: 255,
  description: "The signed-in user's id: the `sub` of the token, percent-encoded.",
  examples: ["demo"],
});

export const Owned = Type.Object({ user_id }, lenient);

export const OwnedTask = Type.Object(
  { user_id, id: decimal({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER, description: "The task's id." }) },
  lenient,
);

/** How many tasks a list has at most, and unless it is asked for fewer. */
export const MAX_LIMIT = 1000;

/**
 * The words of a list's parameters. Those that mean themselves are the API. The others, `completed`, `offset` and
 * `skip` are for compatibility: what front ends of the FastAPI backend send for the same thing.
 */
const STATUS = {
  all: "all",
  pending: "pending",
  completed: "completed",
  incomplete: "pending",
  active: "pending",
  done: "completed",
} as const;
const SORT = {
  created_at: "created_at",
  updated_at: "updated_at",
  title: "title",
  created: "created_at",
  updated: "updated_at",
  // No task has one here: they come in the default order.
  due_date: "created_at",
} as const;
const COMPLETED = { true: "completed", false: "pending" } as const;
const BOOLEAN = { true: "true", false: "false" } as const;

const skipped = (meaning: string) =>
  decimal({
    minimum: 0,
    maximum: 10_000,
    deprecated: true,
    description: `${meaning} For compatibility: \`cursor\` skips and repeats no task that isn't changed meanwhile, and is as fast on every page.`,
  });

export const Listing = Type.Partial(
  Type.Object({
    // No `default`: Elysia would fill it in, and then nobody could tell whether it was given beside `completed`.
    status: oneOf(STATUS, {
      anyCase: true,
      description:
        "Which tasks to list, by default all. For compatibility, `incomplete` and `active` are understood as `pending`, `done` as `completed`, all in any case.",
    }),
    search: text({
      maxLength: 200,
      description: "Only tasks with this text in the title or description, in any case. No wildcards.",
    }),
    sort: oneOf(SORT, {
      default: "created_at",
      description:
        "What to sort by. Titles are in code point order; ties are in order of id. For compatibility, `created` and `updated` are understood, and `due_date` gives the default order.",
    }),
    order: oneOf({ asc: "asc", desc: "desc" }, { default: "desc", description: "Which way to sort." }),
    limit: decimal({
      minimum: 1,
      maximum: MAX_LIMIT,
      default: MAX_LIMIT,
      description: "How many tasks to return at most.",
    }),
    cursor: text({
      maxLength: 2000,
      description: "Where to go on: taken from the `Link` header of the page before, as it is.",
    }),
    completed: oneOf(BOOLEAN, {
      anyCase: true,
      deprecated: true,
      description: "For compatibility: `true` is `status=completed`, `false` is `status=pending`.",
    }),
    offset: skipped("How many tasks to skip."),
    skip: skipped("The same as `offset`."),
  }),
  lenient,
);

export const Clearing = Type.Object(
  { status: oneOf({ completed: "completed", all: "all" }, { description: "Which tasks to delete." }) },
  lenient,
);

export const Cleared = Type.Object(
  { deleted: Type.Integer({ minimum: 0, description: "How many tasks were deleted.", examples: [12] }) },
  { $id: "Cleared", noValidate: true, description: "What clearing has done." },
);

export type Sort = (typeof SORT)[keyof typeof SORT];
export type Order = "asc" | "desc";

/** What a list is asked for, in the API's own words. */
export interface ListQuery {
  status: (typeof STATUS)[keyof typeof STATUS];
  search: string | undefined;
  sort: Sort;
  order: Order;
  limit: number;
  offset: number;
  cursor: string | undefined;
}

/** Reads what `Listing` has let through, or says what of it contradicts something else. */
export function listQuery(given: Listing): ListQuery | Violation[] {
  const { search, sort = "created_at", order = "desc", cursor } = given;
  const completed = meaningOf(given.completed, COMPLETED);
  const status = meaningOf(given.status, STATUS) ?? completed ?? "all";
  const offset = given.offset ?? given.skip;
  const conflicts = [
    completed !== undefined && completed !== status && conflict("completed", "status"),
    given.skip !== undefined && given.skip !== offset && conflict("skip", "offset"),
    cursor !== undefined && given.offset !== undefined && conflict("offset", "cursor"),
    cursor !== undefined && given.skip !== undefined && conflict("skip", "cursor"),
  ].filter((found) => found !== false);
  if (conflicts.length > 0) return conflicts;
  return {
    status,
    search,
    sort: meaningOf(sort, SORT) ?? "created_at",
    // Not one of the API's own words, but it may come: see meaningOf.
    order: (sort as string) === "due_date" ? "desc" : order,
    limit: Number(given.limit ?? MAX_LIMIT),
    offset: Number(offset ?? 0),
    cursor,
  };
}

/** The type of `word` has the API's own words only, for clients. At run time any of `words` may come. */
const meaningOf = <Word extends string>(word: string | undefined, words: Readonly<Record<string, Word>>) =>
  words[word?.toLowerCase() ?? ""];

const conflict = (name: string, other: string) =>
  invalid(["query", name], `Says otherwise than ${other}: give one of the two`);

export type Task = Static<typeof Task>;
export type NewTask = Static<typeof NewTask>;
export type TaskChanges = Static<typeof TaskChanges>;
export type Listing = Static<typeof Listing>;
