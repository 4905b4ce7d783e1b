import { Pool } from "pg";

/** Where Better Auth keeps its users. It may be the service's own database: the names of the tables differ. */
export const database = new Pool({ connectionString: process.env.DATABASE_URL });
