import { Client, neonConfig, Pool, type PoolClient } from "@neondatabase/serverless";
import { drizzle } from "drizzle-orm/neon-serverless";
import type { Config } from "../config.ts";
import { CONNECT_TIMEOUT_MS, type Database, IDLE_TIMEOUT_MS, STATEMENT_TIMEOUT_MS } from "./database.ts";
import { createPool, type Open } from "./pool.ts";
import { addressOf, type Server } from "./url.ts";

/**
 * Neon, over its WebSockets. With a `proxy` (host:port), any Postgres that the proxy reaches. The driver's own pool
 * opens, recycles and closes each connection.
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
  /** One of the driver's own pools, of one connection. */
  const single = (parameters: object) => {
    const one = new Pool({
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
    one.on("error", () => {});
    one.on("connect", (client: PoolClient) => client.on("error", () => {}));
    return one;
  };
  const open: Open = (name, { parameters, named }) => {
    let client: PoolClient | undefined;
    const one = single({
      application_name: name,
      ...(parameters && { statement_timeout: STATEMENT_TIMEOUT_MS }),
    });
    one.on("connect", (opened: PoolClient) => {
      client = opened;
    });
    return {
      send: async (statement, values) =>
        (await one.query({ text: statement.text, values, ...(named && { name: statement.name }) })).rows,
      cancel: () => client && cancel(client),
      close() {
        // The driver's pool would wait for what the client does. The client has an `end`, though not in its types.
        (client as unknown as { end(): Promise<void> } | undefined)?.end().catch(() => {});
        one.end().catch(() => {});
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

  const migrator = single({ idleTimeoutMillis: 1000 });
  return {
    orm: drizzle({ client: migrator }),
    ...pool,
    label: `Neon at ${addressOf(url)}`,
    async close() {
      await Promise.all([close(), migrator.end()]);
    },
  };
}

interface Canceller {
  connection: { on(event: "error", listener: () => void): void };
  cancel(client: PoolClient, query: unknown): void;
}
