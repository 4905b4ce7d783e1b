import { Client, neonConfig, Pool, type PoolClient } from "@neondatabase/serverless";
import { drizzle } from "drizzle-orm/neon-serverless";
import type { Config } from "../config.ts";
import { addressOf, CONNECT_TIMEOUT_MS, type Database, IDLE_TIMEOUT_MS, STATEMENT_TIMEOUT_MS } from "./database.ts";
import { createPool, type Open } from "./pool.ts";
import type { Server } from "./url.ts";

/**
 * Neon, over its WebSockets. With a `proxy` (host:port), any Postgres that the proxy reaches. Each of the pool's
 * connections is one of the driver's own pools of one, which opens, recycles and closes it.
 */
export function neon(
  { url, prepare }: Server,
  { size, overflow, prePing, recycleSeconds }: Config["pool"],
  proxy?: string,
): Database {
  if (proxy !== undefined) {
    neonConfig.wsProxy = (host, port) => `${proxy}/v1?address=${host}:${port}`;
    neonConfig.useSecureWebSocket = false;
    neonConfig.pipelineConnect = false;
    neonConfig.pipelineTLS = false;
  }
  const connect = (parameters: object) => {
    const pool = new Pool({
      connectionString: url,
      max: 1,
      min: 0,
      idleTimeoutMillis: prePing ? IDLE_TIMEOUT_MS : 0,
      maxLifetimeSeconds: recycleSeconds,
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
      ...parameters,
    });
    // A lost connection fails the query that it carried. If it carried none, nobody needs to know: the pool opens
    // another. Without a listener it would end the process.
    pool.on("error", () => {});
    pool.on("connect", (client: PoolClient) => client.on("error", () => {}));
    return pool;
  };
  const open: Open = (name, { parameters, named }) => {
    let client: PoolClient | undefined;
    const pool = connect({
      application_name: name,
      ...(parameters && { statement_timeout: STATEMENT_TIMEOUT_MS }),
    });
    pool.on("connect", (opened: PoolClient) => {
      client = opened;
    });
    return {
      send: async (statement, values) =>
        (await pool.query({ text: statement.text, values, ...(named && { name: statement.name }) })).rows,
      cancel: () => client && cancel(client),
      close() {
        // The pool would wait for what the client does. It has an `end`, though not in its types.
        (client as unknown as { end(): Promise<void> } | undefined)?.end().catch(() => {});
        pool.end().catch(() => {});
      },
    };
  };
  const { close, ...pool } = createPool(size + overflow, open, prepare);

  /**
   * Ends what a connection runs, on the server: PostgreSQL's CancelRequest, over a connection of its own, which needs
   * none of a pooler's. Not in the driver's public types; it is given the query to make sure that it is still run.
   */
  function cancel(client: PoolClient) {
    const canceller = new Client(url) as unknown as Canceller;
    canceller.connection.on("error", () => {});
    canceller.cancel(client, (client as unknown as { activeQuery: unknown }).activeQuery);
  }

  const own = connect({ idleTimeoutMillis: 1000 });
  return {
    orm: drizzle({ client: own }),
    ...pool,
    label: `Neon at ${addressOf(url)}`,
    async close() {
      await Promise.all([close(), own.end()]);
    },
  };
}

interface Canceller {
  connection: { on(event: "error", listener: () => void): void };
  cancel(client: PoolClient, query: unknown): void;
}
