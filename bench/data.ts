import { SQL } from "bun";
import { loadConfig } from "../src/config.ts";
import { connect } from "../src/db/connect.ts";
import { migrate } from "../src/db/migrate.ts";
import { signToken } from "../src/development.ts";

/** The settings that every server is started with, beside those of its database. All else is the default. */
export const SETTINGS = {
  ENVIRONMENT: "production",
  BETTER_AUTH_SECRET: "qZ7pX2vN9cL4mK8wR5tY1bH6gJ3fD0sA",
};

/** So many users with so many tasks each. There are enough that none of them sends more than `RATE_LIMIT`. */
export type Crowd = Record<number, number>;

/** 100,000 tasks more or less of a thousand, a thousand with 20, a few with 1,000; and who only creates some. */
export const CROWD: Crowd = { 1000: 20, 100: 1000, 20: 1000, 0: 2000 };
/** The same, for a moment. */
export const SMALL_CROWD: Crowd = { 1000: 2, 100: 100, 20: 100, 0: 100 };

/** A user of the benchmark, with the ids of their tasks. */
export interface User {
  id: string;
  token: string;
  tasks: number[];
}

/** Users, by how many tasks they have. */
export type Users = Record<number, User[]>;

/** What everybody but the service itself stores tasks in. The index is what its statements want, and no other. */
const BY_HAND = `
  create table tasks (
    id bigint primary key generated always as identity,
    user_id varchar(255) not null,
    title varchar(200) not null,
    description varchar(1000),
    completed boolean not null default false,
    created_at timestamptz(3) not null default now(),
    updated_at timestamptz(3) not null default now()
  ) with (fillfactor = 90);
  create index on tasks (user_id, created_at, id)`;

/** The same moment for all databases, so that their tasks are alike. */
const BEGAN = new Date(Date.now() - 3_600_000).toISOString();

const server = process.env.DATABASE_URL;
if (server === undefined)
  throw new Error("DATABASE_URL must name a Postgres server, by whose user databases can be made");
const admin = new SQL({ url: server, max: 1 });
const made = new Set<BenchDatabase>();

export const host = new URL(server).hostname;
const [{ version: found }] = await admin`select split_part(version(), ' ', 2) as version`;
export const version = String(found);

const urlOf = (name: string) => Object.assign(new URL(server), { pathname: `/${name}` }).href;
const configOf = (url: string) => loadConfig({ ...SETTINGS, DATABASE_URL: url });
const { jwt } = configOf(server);

/**
 * A database for one side alone, with the crowd in it. In each of them the same users have the same tasks under the
 * same ids, so that all are asked the same.
 */
export async function makeDatabase(kind: "service" | "by hand", crowd: Crowd = CROWD) {
  const name = `tasks_api_bench_${process.pid}_${made.size}`;
  const url = urlOf(name);
  await admin.unsafe(`create database ${name}`);
  const sql = new SQL({ url, max: 1 });
  if (kind === "service") {
    const schema = await connect(configOf(url));
    await migrate(schema);
    await schema.close();
  } else await sql.unsafe(BY_HAND);
  let last = 0;

  const database = {
    url,
    sql,
    users: {} as Users,

    /** Adds users with so many tasks each. */
    async add(number: number, each: number): Promise<User[]> {
      // Where they go there may be tasks that were created meanwhile.
      await sql`delete from tasks where id > ${last}`;
      const first = last + 1;
      const prefix = `user-${each}-${first}-`;
      await sql`
        insert into tasks (id, user_id, title, description, completed, created_at, updated_at)
        overriding system value
        select ${first}::bigint + n, ${prefix} || n % ${number}, 'Buy milk for day ' || n,
          'Oat, two cartons, from the shop at the corner', n % 3 = 0,
          ${BEGAN}::timestamptz - n * interval '1 second', ${BEGAN}::timestamptz - n * interval '1 second'
        from generate_series(0, ${number * each - 1}) n`;
      last += number * each;
      await sql`select setval(pg_get_serial_sequence('tasks', 'id'), greatest(${last}, 1))`;
      return Promise.all(
        Array.from({ length: number }, async (_, user) => ({
          id: `${prefix}${user}`,
          token: await tokenOf(`${prefix}${user}`),
          tasks: Array.from({ length: each }, (_, n) => first + user + n * number),
        })),
      );
    },

    rows: () => last,

    /** Takes out what was created since, so that every window begins with the same table. */
    async tidy() {
      await sql`delete from tasks where id > ${last}`;
      await sql`vacuum analyze tasks`;
      await sql`checkpoint`;
    },

    async drop() {
      made.delete(database);
      await sql.close({ timeout: 0 });
      await admin.unsafe(`drop database if exists ${name} with (force)`);
    },
  };
  made.add(database);
  for (const [tasks, number] of Object.entries(crowd))
    database.users[Number(tasks)] = await database.add(number, Number(tasks));
  await database.tidy();
  return database;
}

export interface BenchDatabase {
  url: string;
  sql: SQL;
  users: Users;
  add(number: number, each: number): Promise<User[]>;
  /** How many tasks there are. */
  rows(): number;
  tidy(): Promise<void>;
  drop(): Promise<void>;
}

export async function dropDatabases() {
  for (const database of [...made]) await database.drop();
  await admin.close();
}

const tokens = new Map<string, Promise<string>>();

function tokenOf(user: string): Promise<string> {
  const token = tokens.get(user) ?? signToken(user, jwt);
  tokens.set(user, token);
  return token;
}
