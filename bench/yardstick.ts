/**
 * The yardstick: this API as one would write it by hand for speed, with nothing between Bun and the SQL.
 *
 * It answers what is measured as the service does, after the same checks: the token (HS256, verified at each request),
 * its owner, the limits of text, totals and the next page's address. What the service has on top, it has not: a log,
 * request ids, CORS, versions, rate limits, problem details, the other list parameters, JWKS, time limits, other
 * databases. `POOL` is how many connections it has. With `COALESCE`, requests that arrive while a statement is under
 * way go together in the next one.
 */
import { createHmac, timingSafeEqual } from "node:crypto";
import { type BunRequest, SQL } from "bun";

const { DATABASE_URL = "", BETTER_AUTH_SECRET = "", PORT, POOL = "10", COALESCE } = process.env;
const sql = new SQL({ url: DATABASE_URL, max: Number(POOL) });

interface Row {
  id: number;
  created_at: Date;
  total?: number | undefined;
  /** Which of those that were asked for together it answers. */
  n?: number | undefined;
}

interface Body {
  title?: string;
  description?: string | null;
  completed?: boolean;
}

/** A change of one task; null leaves a field as it is, and `completed` is toggled without a new state. */
interface Change {
  owner: string;
  id: number;
  title: string | null;
  described: boolean;
  description: string | null;
  completed: boolean | null;
  toggled: boolean;
}

interface NewTask {
  owner: string;
  title: string;
  description: string | null;
  completed: boolean;
}

const columns = "id::float8 as id, user_id, title, description, completed, created_at, updated_at";

const PAGE = `order by created_at desc, id desc limit`;
const COUNT = "select count(*)::int as total from tasks where user_id = $1";
const oneByOne = {
  find: async (owner: string, id: number) =>
    (await ask(`select ${columns} from tasks where id = $1 and user_id = $2`, [id, owner]))[0],

  /** With the total, unless the list is asked for whole: then it is as long as it is. */
  page: (owner: string, limit: number) =>
    ask(`select ${columns}${limit > 1000 ? "" : `, (${COUNT})`} from tasks where user_id = $1 ${PAGE} $2`, [
      owner,
      limit,
    ]),

  create: async ({ owner, title, description, completed }: NewTask) =>
    (
      await ask(
        `insert into tasks (user_id, title, description, completed) values ($1, $2, $3, $4) returning ${columns}`,
        [owner, title, description, completed],
      )
    )[0],

  change: async ({ owner, id, title, described, description, completed, toggled }: Change) =>
    (
      await ask(
        `update tasks set
           title = coalesce($3, title),
           description = case when $4::boolean then $5 else description end,
           completed = coalesce($6, completed <> $7::boolean),
           updated_at = greatest(now(), updated_at + interval '1 millisecond')
         where id = $1 and user_id = $2 returning ${columns}`,
        [id, owner, title, described, description, completed, toggled],
      )
    )[0],
};

const { find, page, create, change } = COALESCE ? coalesced() : oneByOne;

function coalesced(): typeof oneByOne {
  const prefixed = columns.replace(/\b(id(?=:)|title|description|completed)/g, "tasks.$1");
  const asked = (members: string) => `json_to_recordset($1::text::json) as asked(n int, owner text, ${members})`;
  const isAsked = "tasks.id = asked.id and tasks.user_id = asked.owner";
  const find = together<{ owner: string; id: number }>(
    `select asked.n, ${prefixed} from ${asked("id bigint")} join tasks on ${isAsked}`,
  );
  const create = together<NewTask>(
    `insert into tasks (user_id, title, description, completed)
     select owner, title, description, completed
     from ${asked("title text, description text, completed boolean")} order by n returning ${columns}`,
  );
  const change = together<Change>(
    `update tasks set
       title = coalesce(asked.title, tasks.title),
       description = case when described then asked.description else tasks.description end,
       completed = coalesce(asked.completed, tasks.completed <> toggled),
       updated_at = greatest(now(), updated_at + interval '1 millisecond')
     from ${asked("id bigint, title text, described boolean, description text, completed boolean, toggled boolean")}
     where ${isAsked} returning asked.n, ${prefixed}`,
    ({ id }) => id,
  );
  const page = together<{ owner: string; limit: number }>(
    `with asked as materialized (
       select *, (select count(*)::int from tasks where user_id = owner) as total from ${asked('"limit" int')})
     select n, page.*, total from asked, lateral (
       select ${columns} from tasks where user_id = owner order by created_at desc, id desc limit asked."limit") as page`,
  );
  return {
    find: async (owner, id) => (await find({ owner, id }))[0],
    page: (owner, limit) => (limit > 1000 ? oneByOne.page(owner, limit) : page({ owner, limit })),
    create: async (task) => (await create(task))[0],
    change: async (task) => (await change(task))[0],
  };
}

/**
 * One statement of the kind at a time, for all who have asked meanwhile. Who changes the same row waits for the next.
 */
function together<Asked>(text: string, rowOf?: (asked: Asked) => number) {
  let waiting: { asked: Asked; resolve(rows: Row[]): void; reject(error: unknown): void }[] = [];
  let busy = false;
  const pump = async () => {
    busy = true;
    while (waiting.length > 0) {
      const rows = new Set<unknown>();
      const members: typeof waiting = [];
      const left: typeof waiting = [];
      for (const member of waiting) {
        const row = rowOf?.(member.asked) ?? member;
        if (members.length < 64 && !rows.has(row)) members.push(member);
        else left.push(member);
        rows.add(row);
      }
      waiting = left;
      try {
        const json = JSON.stringify(members.map(({ asked }, n) => ({ n, ...asked })));
        const answers: Row[][] = members.map(() => []);
        for (const [i, row] of (await ask(text, [json])).entries()) {
          answers[row.n ?? i]?.push(row);
          row.n = undefined;
        }
        for (const [n, { resolve }] of members.entries()) resolve(answers[n] ?? []);
      } catch (error) {
        for (const { reject } of members) reject(error);
      }
    }
    busy = false;
  };
  return (asked: Asked) =>
    new Promise<Row[]>((resolve, reject) => {
      waiting.push({ asked, resolve, reject });
      if (!busy) void pump();
    });
}

const server = Bun.serve({
  hostname: "127.0.0.1",
  port: Number(PORT),
  routes: {
    "/health": { GET: () => Response.json({ status: "healthy" }) },

    "/api/:user/tasks": {
      async GET(request) {
        const owner = ownerOf(request);
        if (owner instanceof Response) return owner;
        const { pathname, searchParams } = new URL(request.url);
        const limit = Number(searchParams.get("limit") ?? 1000);
        if (!Number.isInteger(limit) || limit < 1 || limit > 1000) return refuse(422);
        const cursor = searchParams.get("cursor");
        const found = cursor ? await after(owner, cursor, limit + 1) : await page(owner, limit + 1);
        const rows = found.slice(0, limit);
        const whole = found.length <= limit && !cursor;
        const total = whole ? rows.length : (found[0]?.total ?? (await ask(COUNT, [owner]))[0]?.total);
        // It is no part of a task: JSON leaves it out.
        for (const row of rows) row.total = undefined;
        const headers: Record<string, string> = { "x-total-count": String(total) };
        const last = rows.at(-1);
        if (found.length > limit && last) {
          const place = ["created_at", "desc", last.created_at.toISOString(), last.id];
          searchParams.set("cursor", Buffer.from(JSON.stringify(place)).toString("base64url"));
          headers.link = `<${pathname}?${searchParams}>; rel="next"`;
        }
        return Response.json(rows, { headers });
      },

      async POST(request) {
        const owner = ownerOf(request);
        if (owner instanceof Response) return owner;
        const body = await bodyOf(request);
        if (body instanceof Response) return body;
        const { title, description = null, completed = false } = body;
        if (title === undefined) return refuse(422);
        const task = await create({ owner, title: title.trim(), description, completed });
        const location = `/api/${encodeURIComponent(owner)}/tasks/${task?.id}`;
        return Response.json(task, { status: 201, headers: { location } });
      },
    },

    "/api/:user/tasks/:id": {
      async GET(request) {
        const owner = ownerOf(request);
        if (owner instanceof Response) return owner;
        const id = idOf(request);
        if (id === undefined) return refuse(422);
        const task = await find(owner, id);
        return task ? Response.json(task) : refuse(404);
      },

      async PUT(request) {
        const owner = ownerOf(request);
        if (owner instanceof Response) return owner;
        const body = await bodyOf(request);
        if (body instanceof Response) return body;
        const id = idOf(request);
        const { title, description, completed } = body;
        if (id === undefined || (title ?? description ?? completed) === undefined) return refuse(422);
        const task = await change({
          ...{ owner, id, toggled: false, title: title?.trim() ?? null, completed: completed ?? null },
          ...{ described: description !== undefined, description: description ?? null },
        });
        return task ? Response.json(task) : refuse(404);
      },
    },

    "/api/:user/tasks/:id/complete": {
      async PATCH(request) {
        const owner = ownerOf(request);
        if (owner instanceof Response) return owner;
        const body = Number(request.headers.get("content-length")) > 0 ? await bodyOf(request) : {};
        if (body instanceof Response) return body;
        const id = idOf(request);
        if (id === undefined) return refuse(422);
        const { completed = null } = body;
        const task = await change({
          ...{ owner, id, toggled: completed === null, completed },
          ...{ title: null, described: false, description: null },
        });
        return task ? Response.json(task) : refuse(404);
      },
    },
  },
});

async function ask(text: string, values: unknown[]): Promise<Row[]> {
  return sql.unsafe(text, values);
}

function after(owner: string, cursor: string, limit: number): Promise<Row[]> {
  const [, , key, id] = JSON.parse(Buffer.from(cursor, "base64url").toString());
  return ask(
    `select ${columns}, (${COUNT}) from tasks
     where user_id = $1 and (created_at, id) < ($2::timestamptz, $3::bigint) ${PAGE} $4`,
    [owner, key, id, limit],
  );
}

/** The owner of the token, if it is the one of the path. */
function ownerOf(request: BunRequest<"/api/:user/tasks">): string | Response {
  const authorization = request.headers.get("authorization");
  if (authorization?.slice(0, 7).toLowerCase() !== "bearer ") return refuse(401);
  const [header, payload, signature, rest] = authorization.slice(7).split(".");
  if (!header || !payload || !signature || rest !== undefined) return refuse(401);
  const expected = createHmac("sha256", BETTER_AUTH_SECRET).update(`${header}.${payload}`).digest();
  const given = Buffer.from(signature, "base64url");
  if (given.length !== expected.length || !timingSafeEqual(given, expected)) return refuse(401);
  const { alg } = JSON.parse(Buffer.from(header, "base64url").toString());
  const { sub, exp } = JSON.parse(Buffer.from(payload, "base64url").toString());
  if (alg !== "HS256" || typeof sub !== "string" || !(exp > Date.now() / 1000)) return refuse(401);
  return sub === request.params.user ? sub : refuse(403);
}

async function bodyOf(request: Request): Promise<Body | Response> {
  if (!/^application\/json\b/i.test(request.headers.get("content-type") ?? "")) return refuse(415);
  if (Number(request.headers.get("content-length")) > 65_536) return refuse(413);
  let body: Body;
  try {
    body = (await request.json()) as Body;
  } catch {
    return refuse(400);
  }
  const { title, description, completed } = body ?? {};
  if (typeof body !== "object" || body === null || Array.isArray(body)) return refuse(422);
  if (title !== undefined && (typeof title !== "string" || !/^.{1,200}$/su.test(title.trim()))) return refuse(422);
  if (description != null && (typeof description !== "string" || !/^.{0,1000}$/su.test(description)))
    return refuse(422);
  if (completed !== undefined && typeof completed !== "boolean") return refuse(422);
  return body;
}

const idOf = ({ params }: BunRequest<"/api/:user/tasks/:id">) =>
  /^[1-9]\d{0,15}$/.test(params.id) ? Number(params.id) : undefined;

const refuse = (status: number) => Response.json({ status }, { status });

process.stdout.write(`${server.port}\n`);
