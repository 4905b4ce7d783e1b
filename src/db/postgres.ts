import { SQL } from "bun";
import { drizzle } from "drizzle-orm/bun-sql";
import type { Config } from "../config.ts";
import {
  CONNECT_TIMEOUT_MS,
  type Database,
  IDLE_TIMEOUT_MS,
  STATEMENT_TIMEOUT_MS,
  type Statement,
} from "./database.ts";
import { createPool, type Open } from "./pool.ts";
import { addressOf, type Server } from "./url.ts";

/**
 * An ordinary Postgres over TCP, through Bun's own driver: a client of one connection for each of the pool's, since
 * Bun's own pool puts several statements on a connection, where one waits for the other, and can't replace a frozen
 * one.
 */
export function postgres(
  { url, ca, prepare }: Server,
  { size, overflow, prePing, recycleSeconds }: Config["pool"],
): Database {
  const common = {
    url,
    max: 1,
    // Any `tls` at all makes Bun insist on TLS.
    ...(ca !== undefined && { tls: { ca } }),
    maxLifetime: recycleSeconds,
    connectionTimeout: CONNECT_TIMEOUT_MS / 1000,
  };
  const open: Open = (name, { parameters, named }) => {
    const client = new SQL({
      ...common,
      // An idle connection is closed or, with pre-ping off, kept.
      idleTimeout: prePing ? IDLE_TIMEOUT_MS / 1000 : 0,
      prepare: named,
      connection: {
        application_name: name,
        TimeZone: "UTC",
        ...(parameters && {
          statement_timeout: STATEMENT_TIMEOUT_MS,
          default_transaction_isolation: "read committed",
        }),
      },
    });
    let underWay: ReturnType<SQL["unsafe"]> | undefined;
    return {
      send<Row>({ text }: Statement, values: unknown[]) {
        const query = client.unsafe<Row[]>(text, values);
        underWay = query;
        return query;
      },
      cancel: () => void underWay?.cancel(),
      close: () => client.close({ timeout: 0 }).catch(() => {}),
    };
  };
  const { close, ...pool } = createPool(size + overflow, open, prepare);
  // Opened when it is first used. A pooler would not know its prepared statements again.
  const migrator = new SQL({ ...common, prepare: false, idleTimeout: 1, connection: { TimeZone: "UTC" } });
  return {
    orm: drizzle({ client: migrator }),
    ...pool,
    label: `PostgreSQL at ${addressOf(url)}`,
    async close() {
      await Promise.all([close(), migrator.close({ timeout: 5 })]);
    },
  };
}
