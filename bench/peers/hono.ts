/** Three operations of this API on Hono with postgres.js, as their documentation has it. No log, no CORS. */
import { Hono } from "hono";
import { type JwtVariables, jwt } from "hono/jwt";
import { validator } from "hono/validator";
import postgres from "postgres";
import { nextPage } from "./next-page.ts";

const { DATABASE_URL = "", BETTER_AUTH_SECRET = "", PORT } = process.env;
const sql = postgres(DATABASE_URL);
const columns = sql`id::float8 as id, user_id, title, description, completed, created_at, updated_at`;

const newTask = validator("json", ({ title, description = null, completed = false }, c) =>
  typeof title === "string" &&
  /^.{1,200}$/su.test(title.trim()) &&
  (description === null || (typeof description === "string" && /^.{0,1000}$/su.test(description))) &&
  typeof completed === "boolean"
    ? { title: title.trim(), description, completed }
    : c.json({ detail: "The task is not valid" }, 422),
);
const listing = validator("query", (query, c) => {
  const limit = Number(query.limit ?? 1000);
  return Number.isInteger(limit) && limit > 0 && limit <= 1000 ? { limit } : c.body(null, 422);
});

const tasks = new Hono<{ Variables: JwtVariables<{ sub: string }> }>()
  .use("/:user/*", jwt({ secret: BETTER_AUTH_SECRET, alg: "HS256" }))
  .use("/:user/*", async (c, next) => (c.get("jwtPayload").sub === c.req.param("user") ? next() : c.body(null, 403)))

  .get("/:user/tasks", listing, async (c) => {
    const [user, { limit }] = [c.req.param("user"), c.req.valid("query")];
    const rows = await sql`
      select ${columns} from tasks where user_id = ${user} order by created_at desc, id desc limit ${limit + 1}`;
    if (rows.length <= limit) return c.json(rows, 200, { "x-total-count": String(rows.length) });
    const [count] = await sql`select count(*)::int as total from tasks where user_id = ${user}`;
    const page = rows.slice(0, limit);
    return c.json(page, 200, {
      "x-total-count": String(count?.total),
      link: nextPage(c.req.url, page),
    });
  })

  .get("/:user/tasks/:id{[1-9][0-9]{0,15}}", async (c) => {
    const { user, id } = c.req.param();
    const [task] = await sql`select ${columns} from tasks where id = ${id} and user_id = ${user}`;
    return task ? c.json(task) : c.notFound();
  })

  .post("/:user/tasks", newTask, async (c) => {
    const user = c.req.param("user");
    const [task] = await sql`
      insert into tasks ${sql({ user_id: user, ...c.req.valid("json") })} returning ${columns}`;
    return c.json(task, 201, { location: `/api/${encodeURIComponent(user)}/tasks/${task?.id}` });
  });

const app = new Hono().get("/health", (c) => c.json({ status: "healthy" })).route("/api", tasks);

Bun.serve({ hostname: "127.0.0.1", port: Number(PORT), fetch: app.fetch });
