import { sql } from "drizzle-orm";
import { bigint, boolean, index, pgTable, timestamp, varchar } from "drizzle-orm/pg-core";

const instant = () => timestamp({ precision: 3, withTimezone: true });

/**
 * One row per task. The members bear the names they have on the wire.
 *
 * Every index begins with the owner and ends with the id: each order of a list is one range of one index, read
 * forwards or (for `desc`) backwards, and no statement meets another user's rows. Titles are ordered by code
 * point (`COLLATE "C"`), so that the order is the same on every server, whatever its locale.
 */
export const tasks = pgTable(
  "tasks",
  {
    id: bigint({ mode: "number" }).primaryKey().generatedAlwaysAsIdentity(),
    user_id: varchar({ length: 255 }).notNull(),
    title: varchar({ length: 200 }).notNull(),
    description: varchar({ length: 1000 }),
    completed: boolean().notNull().default(false),
    created_at: instant().notNull().default(sql`now()`),
    updated_at: instant().notNull().default(sql`now()`),
  },
  (task) => [
    index("tasks_by_creation").on(task.user_id, task.created_at, task.id),
    index("tasks_by_update").on(task.user_id, task.updated_at, task.id),
    index("tasks_by_title").on(task.user_id, sql`${task.title} COLLATE "C"`, task.id),
  ],
);
