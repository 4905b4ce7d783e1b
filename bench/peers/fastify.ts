/** Three operations of this API on Fastify with pg, as their documentation has it. No log, no CORS. */
import fastify from "fastify";
import { jwtVerify } from "jose";
import pg from "pg";
import { nextPage } from "./next-page.ts";

const { DATABASE_URL, BETTER_AUTH_SECRET, PORT } = process.env;
const secret = new TextEncoder().encode(BETTER_AUTH_SECRET);
const pool = new pg.Pool({ connectionString: DATABASE_URL });
const columns = "id::float8 as id, user_id, title, description, completed, created_at, updated_at";

const task = {
  type: "object",
  properties: {
    id: { type: "integer" },
    user_id: { type: "string" },
    title: { type: "string" },
    description: { type: ["string", "null"] },
    completed: { type: "boolean" },
    created_at: { type: "string", format: "date-time" },
    updated_at: { type: "string", format: "date-time" },
  },
};
const newTask = {
  type: "object",
  required: ["title"],
  properties: {
    title: { type: "string", maxLength: 200, pattern: "\\S" },
    description: { type: ["string", "null"], maxLength: 1000 },
    completed: { type: "boolean" },
  },
};
const listing = { type: "object", properties: { limit: { type: "integer", minimum: 1, maximum: 1000 } } };

interface Owned {
  Params: { user: string };
}

const app = fastify();

app.get("/health", () => ({ status: "healthy" }));

app.register(async (tasks) => {
  tasks.addHook<Owned>("onRequest", async (request, reply) => {
    const [, token = ""] = /^bearer +(\S+)$/i.exec(request.headers.authorization ?? "") ?? [];
    try {
      const { payload } = await jwtVerify(token, secret, { algorithms: ["HS256"] });
      if (payload.sub !== request.params.user) return reply.code(403).send();
    } catch {
      return reply.code(401).send();
    }
  });

  tasks.get<Owned & { Querystring: { limit?: number } }>(
    "/api/:user/tasks",
    { schema: { querystring: listing, response: { 200: { type: "array", items: task } } } },
    async ({ params: { user }, query: { limit = 1000 }, url }, reply) => {
      const { rows } = await pool.query(
        `select ${columns} from tasks where user_id = $1 order by created_at desc, id desc limit $2`,
        [user, limit + 1],
      );
      if (rows.length <= limit) return reply.header("x-total-count", rows.length).send(rows);
      const count = "select count(*)::int as total from tasks where user_id = $1";
      const { rows: counts } = await pool.query(count, [user]);
      const page = rows.slice(0, limit);
      return reply.header("x-total-count", counts[0].total).header("link", nextPage(url, page)).send(page);
    },
  );

  tasks.get<Owned & { Params: { id: string } }>(
    "/api/:user/tasks/:id",
    { schema: { response: { 200: task } } },
    async ({ params: { user, id } }, reply) => {
      const { rows } = await pool.query(`select ${columns} from tasks where id = $1 and user_id = $2`, [id, user]);
      return rows[0] ?? reply.code(404).send();
    },
  );

  tasks.post<Owned & { Body: { title: string; description?: string | null; completed?: boolean } }>(
    "/api/:user/tasks",
    { schema: { body: newTask, response: { 201: task } } },
    async ({ params: { user }, body: { title, description = null, completed = false } }, reply) => {
      const { rows } = await pool.query(
        `insert into tasks (user_id, title, description, completed) values ($1, $2, $3, $4) returning ${columns}`,
        [user, title.trim(), description, completed],
      );
      reply.code(201).header("location", `/api/${encodeURIComponent(user)}/tasks/${rows[0].id}`);
      return rows[0];
    },
  );
});

await app.listen({ host: "127.0.0.1", port: Number(PORT) });
