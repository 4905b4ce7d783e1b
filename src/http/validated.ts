import type { TObject } from "@sinclair/typebox";
import type { Context } from "elysia";
import { Problem, validationProblem } from "./problem.ts";
import { violations } from "./validation.ts";

/** What any operation may answer instead. */
export const refusals = {
  401: Problem,
  403: Problem,
  422: Problem,
  429: Problem,
  500: Problem,
  503: Problem,
};
export const bodyRefusals = { 400: Problem, 408: Problem, 413: Problem, 415: Problem };

/**
 * Has these parts of a request checked. Elysia stops at the first part that is wrong; the answer names what is
 * wrong in all of them.
 */
export function validated<Schemas extends { params: TObject; query?: TObject; body?: TObject }>(schemas: Schemas) {
  const { params: path, query: listing, body: json } = schemas;
  const inUrl = ({ params, query }: Parts) => [
    ...violations("path", path, params),
    ...(listing ? violations("query", listing, query) : []),
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
