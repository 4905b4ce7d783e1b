import { SQL } from "bun";
import { neonProxy } from "./neon-proxy.ts";

const SERVER = process.env.TEST_DATABASE_URL;

/** Whether the tests have a Postgres server: `TEST_DATABASE_URL`, by whose user databases can be made. */
export const hasServer = SERVER !== undefined;

/** Through Neon's driver with `TEST_DRIVER=neon`, and a WebSocket proxy in between. */
export const proxy = hasServer && process.env.TEST_DRIVER === "neon" ? neonProxy() : undefined;

const made: string[] = [];

async function admin(statement: string) {
  const client = new SQL({ url: SERVER ?? "", max: 1 });
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
