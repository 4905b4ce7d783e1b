import { SQL } from "bun";
import { loadConfig } from "../src/config.ts";
import { connect } from "../src/db/connect.ts";
import { migrate } from "../src/db/migrate.ts";
import { signToken } from "../src/development.ts";

/** The settings that every server is started with, beside those of its database. All else is the default. */
export const SETTINGS = {
  ENVIRONMENT: "production",
  BETTER_AUTH_SECRET: "qZ7pX2vN9cL4mK8wR5tY1bH6gJ3fD0sA",
  // Counted, as by default, but never reached.
  RATE_LIMIT: "999999/s",
};

/** How many tasks a user has, and how many such users there are: 1,000 users with 100,000 tasks. */
const CROWD = [
  { tasks: 1000, users: 20 },
  { tasks: 100, users: 755 },
  { tasks: 20, users: 225 },
];

/** A user of the benchmark, with the ids of their tasks. */
export interface User {
  id: string;
  token: string;
  tasks: number[];
}

/** A database of the benchmark's own, on the server that `DATABASE_URL` names. */
export async function makeDatabase() {
  const server = process.env.DATABASE_URL;
  if (server === undefined)
    throw new Error("DATABASE_URL must name a Postgres server, by whose user a database can be made");
  const admin = new SQL({ url: server, max: 1 });
  const name = `tasks_api_bench_${process.pid}`;
  await admin.unsafe(`create database ${name}`);
  const url = Object.assign(new URL(server), { pathname: `/${name}` }).href;
  const config = loadConfig({ ...SETTINGS, DATABASE_URL: url });
  const schema = await connect(config);
  await migrate(schema);
  await schema.close();
  const sql = new SQL({ url, max: 1 });
  const [{ version }] = await sql`select split_part(version(), ' ', 2) as version`;

  return {
    url,
    sql,
    host: new URL(server).hostname,
    version: String(version),

    /** Adds users with so many tasks each. */
    async add(users: number, tasks: number): Promise<User[]> {
      const prefix = `user-${tasks}-${crypto.randomUUID().slice(0, 8)}-`;
      await sql`
        insert into tasks (user_id, title, description, completed, created_at, updated_at)
        select ${prefix} || 1 + n % ${users}, 'Buy milk for day ' || n, 'Oat, two cartons, from the shop at the corner',
               n % 3 = 0, now() - n * interval '1 second', now() - n * interval '1 second'
        from generate_series(0, ${users * tasks - 1}) n`;
      const rows: { user_id: string; ids: string }[] = await sql`
        select user_id, string_agg(id::text, ',') as ids from tasks
        where starts_with(user_id, ${prefix}) group by user_id`;
      return Promise.all(
        rows.map(async ({ user_id: id, ids }) => ({
          id,
          token: await signToken(id, config.jwt),
          tasks: ids.split(",").map(Number),
        })),
      );
    },

    /** The thousand users, by how many tasks they have. */
    async populate() {
      const users: Record<number, User[]> = {};
      for (const { tasks, users: number } of CROWD) users[tasks] = await this.add(number, tasks);
      const [{ last }] = await sql`select max(id) as last from tasks`;
      await this.tidy(last);
      return { users, last: Number(last) };
    },

    /** Takes out what was created since, so that every window begins with the same tables. */
    async tidy(last: number) {
      await sql`delete from tasks where id > ${last}`;
      await sql`vacuum analyze tasks`;
      await sql`checkpoint`;
    },

    async drop() {
      await sql.close({ timeout: 0 });
      await admin.unsafe(`drop database ${name} with (force)`);
      await admin.close();
    },
  };
}

export type BenchDatabase = Awaited<ReturnType<typeof makeDatabase>>;
