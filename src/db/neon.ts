import { neonConfig, Pool, type PoolClient } from "@neondatabase/serverless";
import { drizzle } from "drizzle-orm/neon-serverless";
import type { Config } from "../config.ts";
import {
  ANSWER_TIMEOUT_MS,
  addressOf,
  CONNECT_TIMEOUT_MS,
  type Database,
  IDLE_TIMEOUT_MS,
  type Query,
  STATEMENT_TIMEOUT_MS,
} from "./database.ts";

/** Neon, over its WebSockets. With a `proxy` (host:port), any Postgres that the proxy reaches. */
export function neon(
  url: string,
  { size, overflow, prePing, recycleSeconds }: Config["pool"],
  proxy?: string,
): Database {
  if (proxy !== undefined) {
    neonConfig.wsProxy = (host, port) => `${proxy}/v1?address=${host}:${port}`;
    neonConfig.useSecureWebSocket = false;
    neonConfig.pipelineConnect = false;
    neonConfig.pipelineTLS = false;
  }
  const pool = new Pool({
    connectionString: url,
    max: size + overflow,
    min: prePing ? 0 : size,
    idleTimeoutMillis: IDLE_TIMEOUT_MS,
    maxLifetimeSeconds: recycleSeconds,
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    statement_timeout: STATEMENT_TIMEOUT_MS,
    query_timeout: ANSWER_TIMEOUT_MS - CONNECT_TIMEOUT_MS,
  });
  // The loss of a connection is reported by the query that it fails, or else is nobody's business: the pool opens
  // another. Without a listener it would end the process.
  pool.on("error", () => {});
  pool.on("connect", (client: PoolClient) => client.on("error", () => {}));
  const query: Query = async (statement, values) => (await pool.query({ ...statement, values })).rows;
  return {
    orm: drizzle({ client: pool }),
    query,
    quick: query,
    label: `Neon at ${addressOf(url)}`,
    close: () => pool.end(),
  };
}
