import { defineConfig } from "drizzle-kit";

/** `bun run db:generate` compares the schema with the last snapshot here and writes the next migration. */
export default defineConfig({
  dialect: "postgresql",
  schema: "./src/db/schema.ts",
  out: "./drizzle",
});
