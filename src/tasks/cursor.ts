import type { Order, Sort, Task } from "./model.ts";

/** The place between two tasks of a list: the sort key and the id of the task before it. */
export interface Position {
  key: string;
  id: number;
}

/** The place after `task`, as an opaque string that is good for this `sort` and `order` only. */
export const encodeCursor = (task: Task, sort: Sort, order: Order): string =>
  Buffer.from(JSON.stringify([sort, order, task[sort], task.id])).toString("base64url");

/** Reads a cursor back. Undefined if it was not made for this `sort` and `order`, or not made here at all. */
export function parseCursor(cursor: string, sort: Sort, order: Order): Position | undefined {
  let parts: unknown;
  try {
    parts = JSON.parse(Buffer.from(cursor, "base64url").toString());
  } catch {
    return undefined;
  }
  if (!Array.isArray(parts) || parts.length !== 4) return undefined;
  const [madeForSort, madeForOrder, key, id] = parts;
  if (madeForSort !== sort || madeForOrder !== order) return undefined;
  if (!Number.isSafeInteger(id) || typeof key !== "string") return undefined;
  if (sort === "title" ? !isStorable(key) : !isInstant(key)) return undefined;
  return { key, id };
}

const isStorable = (text: string) => text.isWellFormed() && !text.includes("\0");

/** Only what `toISOString` writes, in the years that Postgres reads the same way. */
const isInstant = (text: string) => {
  const instant = new Date(text);
  return /^(?!0000)\d{4}-/.test(text) && !Number.isNaN(+instant) && instant.toISOString() === text;
};
