import { join } from "node:path";
import { readMigrationFiles } from "drizzle-orm/migrator";

/**
 * Runs as a macro: while the code is bundled (or, from source, as it is loaded), so that the migrations are
 * part of the program and one file can be shipped.
 */
export const readMigrations = () => readMigrationFiles({ migrationsFolder: join(import.meta.dir, "../../drizzle") });
