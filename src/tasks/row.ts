import { sql } from "drizzle-orm";
import { tasks } from "../db/schema.ts";
import type { Task } from "./model.ts";

/** A row as the statements read it: numbers, whatever the driver, and times whatever the server's DateStyle. */
export interface Row {
  id: number;
  user_id: string;
  title: string;
  description: string | null;
  completed: boolean;
  /** In milliseconds since 1970. */
  created_at: number;
  updated_at: number;
}

export const COLUMNS = {
  id: sql<number>`${tasks.id}::float8`.as("id"),
  user_id: tasks.user_id,
  title: tasks.title,
  description: tasks.description,
  completed: tasks.completed,
  created_at: sql<number>`date_part('epoch', ${tasks.created_at}) * 1000`.as("created_at"),
  updated_at: sql<number>`date_part('epoch', ${tasks.updated_at}) * 1000`.as("updated_at"),
};
/** The same, for a statement that is written out. */
export const columns = sql.join(
  Object.entries(COLUMNS).map(
    ([name, column]) => sql`${"sql" in column ? column.sql : column} as ${sql.identifier(name)}`,
  ),
  sql`, `,
);

/**
 * The row as it goes over the wire: times as ISO 8601 strings (UTC, `Z`, milliseconds), since `JSON.stringify` leaves
 * its fast path at the first object with a `toJSON`.
 */
export const taskOf = (row: Row): Task => ({
  id: row.id,
  user_id: row.user_id,
  title: row.title,
  description: row.description,
  completed: row.completed,
  created_at: new Date(Math.round(row.created_at)).toISOString(),
  updated_at: new Date(Math.round(row.updated_at)).toISOString(),
});
