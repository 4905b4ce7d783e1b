import { sql } from "drizzle-orm";
import { bigint, boolean, index, pgTable, primaryKey, text, timestamp, varchar } from "drizzle-orm/pg-core";

const instant = () => timestamp({ precision: 3, withTimezone: true });

/**
 * One row per task. The members bear the names they have on the wire.
 *
 * The index begins with the owner and ends with the id: a page of the usual list is one range of it, read forwards or
 * backwards, and no statement meets another user's rows. The other orders are sorted when they are read (10,000 tasks
 * by title in 3 ms): an index that held `updated_at` would be written at every change, and keep the row from being
 * changed in place (HOT). For the same reason a tenth of each page is left free (see drizzle/0001_cheaper_changes.sql).
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
  (task) => [index("tasks_by_creation").on(task.user_id, task.created_at, task.id)],
);

/**
 * The `Idempotency-Key`s of the last 24 hours: which task each created, and from what. A row outlives its task, so that
 * a key whose task was deleted creates nothing.
 */
export const idempotency_keys = pgTable(
  "task_idempotency_keys",
  {
    user_id: varchar({ length: 255 }).notNull(),
    key: varchar({ length: 64 }).notNull(),
    /** A hash of what was asked to be created. */
    fingerprint: text().notNull(),
    task_id: bigint({ mode: "number" }).notNull(),
    created_at: timestamp({ withTimezone: true }).notNull().default(sql`now()`),
  },
  (one) => [
    primaryKey({ columns: [one.user_id, one.key] }),
    index("task_idempotency_keys_by_creation").on(one.created_at),
  ],
);
