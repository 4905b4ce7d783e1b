import type { Config } from "../config.ts";
import type { Database } from "./database.ts";

/**
 * Opens the database that the settings name. Only the embedded one is touched: a server that is away is no reason
 * not to start. Each driver is loaded where it is used.
 */
export async function connect({ database, pool, neonProxy }: Config): Promise<Database> {
  switch (database.driver) {
    case "embedded":
      return (await import("./embedded.ts")).embedded(database.directory);
    case "neon":
      return (await import("./neon.ts")).neon(database, pool, neonProxy);
    case "postgres":
      return (await import("./postgres.ts")).postgres(database, pool);
  }
}
