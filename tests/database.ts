import { SQL } from "bun";
import { neonProxy } from "./neon-proxy.ts";

const SERVER = process.env.TEST_DATABASE_URL;

/**
 * Where databases are made and dropped. With `TEST_DATABASE_URL` through a pooler, `TEST_ADMIN_URL` is the server's
 * own: a pooler's connections would stand in the way of a database that is dropped.
 */
const ADMIN = process.env.TEST_ADMIN_URL ?? SERVER;

/** Whether the tests have a Postgres server: `TEST_DATABASE_URL`, by whose user databases can be made. */
export const hasServer = SERVER !== undefined;

/** Through Neon's driver with `TEST_DRIVER=neon`, and a WebSocket proxy in between. */
export const proxy = hasServer && process.env.TEST_DRIVER === "neon" ? neonProxy() : undefined;

const made: string[] = [];

async function admin(statement: string) {
  const client = new SQL({ url: ADMIN ?? "", max: 1 });
  await client.unsafe(statement);
  await client.close();
}

/** Settings for a database of its own: a new one on the server, or an embedded one in memory. */
export async function databaseSettings(): Promise<Record<string, string>> {
  if (SERVER === undefined) return { DATABASE_URL: "memory://" };
  const name = `tasks_api_test_${process.pid}_${made.length}`;
  await admin(`create database ${name}`);
  made.push(name);
  const url = new URL(SERVER);
  url.pathname = `/${name}`;
  return { DATABASE_URL: url.href, ...(proxy && { NEON_WSPROXY: proxy.address }) };
}

/** Drops every database that was made here. */
export async function dropDatabases() {
  for (const name of made.splice(0)) await admin(`drop database if exists ${name} with (force)`);
}
