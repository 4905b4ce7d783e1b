import { sql } from "drizzle-orm";
import { tasks } from "../db/schema.ts";
import type { Task } from "./model.ts";

/** A row as the statements read it: numbers, whatever the driver, and times whatever the server's DateStyle. */
export interface Row {
  /** Some drivers keep as text what might not fit a number. */
  id: number | string;
  user_id: string;
  title: string;
  description: string | null;
  completed: boolean;
  /** In milliseconds since 1970. */
  created_at: number;
  updated_at: number;
}

/** What each statement that returns tasks selects: a `Row`. */
export const columns = sql`${tasks.id}, ${tasks.user_id}, ${tasks.title}, ${tasks.description}, ${tasks.completed},
  date_part('epoch', ${tasks.created_at}) * 1000 as created_at,
  date_part('epoch', ${tasks.updated_at}) * 1000 as updated_at`;

/**
 * The row as it goes over the wire: times as ISO 8601 strings (UTC, `Z`, milliseconds), since `JSON.stringify` leaves
 * its fast path at the first object with a `toJSON`.
 */
export const taskOf = (row: Row): Task => {
  const created = instant(row.created_at);
  return {
    id: Number(row.id),
    user_id: row.user_id,
    title: row.title,
    description: row.description,
    completed: row.completed,
    created_at: created,
    // Writing a time costs more than all the rest, and most tasks were never changed.
    updated_at: row.updated_at === row.created_at ? created : instant(row.updated_at),
  };
};

const instant = (milliseconds: number) => new Date(Math.round(milliseconds)).toISOString();
