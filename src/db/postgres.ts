import { SQL } from "bun";
import { drizzle } from "drizzle-orm/bun-sql";
import type { Config } from "../config.ts";
import type { Database } from "./index.ts";
import { ANSWER_WITHIN, CONNECT_WITHIN, DatabaseTimeout, IDLE_WITHIN, STATEMENT_WITHIN } from "./limits.ts";

type Query = ReturnType<SQL["unsafe"]>;

/**
 * An ordinary Postgres over TCP, through Bun's own driver. It prepares each statement once per connection, notices
 * connections that die and opens new ones as they are needed. What it lacks is a limit to the wait for a
 * connection, or for a peer that has frozen: that is added here.
 */
export function postgres(url: string, { size, overflow, prePing, recycleSeconds }: Config["pool"]): Database {
  const open = () =>
    new SQL({
      url,
      max: size + overflow,
      // Bun knows no smaller size to go back to: what has been idle is given back, or with pre-ping off, kept.
      idleTimeout: prePing ? IDLE_WITHIN / 1000 : 0,
      maxLifetime: recycleSeconds,
      connectionTimeout: CONNECT_WITHIN / 1000,
      connection: { statement_timeout: STATEMENT_WITHIN },
    });
  let pool = open();
  let lastAnswer = performance.now();

  /** The result, or `DatabaseTimeout`. A query that is still waiting for a connection is then never sent. */
  async function within<T>(query: Query, result: Promise<T>): Promise<T> {
    const began = performance.now();
    const asked = pool;
    const { promise: late, reject } = Promise.withResolvers<never>();
    const timer = setTimeout(() => {
      query.cancel();
      // Nothing at all came back meanwhile: these connections are dead, though nobody has said so.
      if (lastAnswer < began && asked === pool) {
        pool = open();
        asked.close({ timeout: 0 }).catch(() => {});
      }
      reject(new DatabaseTimeout());
    }, ANSWER_WITHIN);
    try {
      return await Promise.race([result, late]);
    } finally {
      clearTimeout(timer);
      if (performance.now() - began < ANSWER_WITHIN) lastAnswer = performance.now();
    }
  }

  // As much of Bun's client as Drizzle uses outside of a transaction.
  const client = {
    options: {},
    unsafe(text: string, values: unknown[]) {
      const query = pool.unsafe(text, values);
      return {
        values: () => within(query, query.values()),
        // biome-ignore lint/suspicious/noThenProperty: Drizzle awaits what it gets, as it does Bun's own query.
        then: (...handlers: Parameters<Promise<unknown>["then"]>) =>
          within(query, query.execute()).then(...handlers),
      };
    },
    begin: (work: Parameters<SQL["begin"]>[1]) => pool.begin(work as never),
  };
  return {
    orm: drizzle({ client: client as unknown as SQL }),
    label: describe(url),
    close: () => pool.close({ timeout: 5 }),
  };
}

/** Where a database is, without its password. */
export function describe(url: string): string {
  const { hostname, port, pathname } = new URL(url);
  return `PostgreSQL at ${hostname}:${port || 5432}${pathname}`;
}
