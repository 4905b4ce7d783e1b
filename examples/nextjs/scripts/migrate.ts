import { getMigrations } from "better-auth/db/migration";
import { auth } from "../lib/auth";
import { database } from "../lib/database";

const { toBeCreated, toBeAdded, runMigrations } = await getMigrations(auth.options);
await runMigrations();
await database.end();
process.stdout.write(`Better Auth's tables: ${toBeCreated.length} created, ${toBeAdded.length} changed\n`);
