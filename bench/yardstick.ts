/**
 * The yardstick: this API as one would write it by hand for speed, with nothing between Bun and the SQL.
 *
 * It answers what is measured as the service does, byte for byte, after the same checks: the token (HS256, verified at
 * each request), its owner, the limits of text, totals and the next page's address. What the service has on top, it
 * has not: a log, request ids, CORS, problem details, the other list parameters, JWKS, time limits, other databases.
 */
import { createHmac, timingSafeEqual } from "node:crypto";
import { type BunRequest, SQL } from "bun";

const { DATABASE_URL = "", BETTER_AUTH_SECRET = "", PORT } = process.env;
const sql = new SQL(DATABASE_URL);

interface Row {
  id: number;
  created_at: Date;
}

interface Body {
  title?: string;
  description?: string | null;
  completed?: boolean;
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
        const rows: Row[] = cursor
          ? await after(owner, cursor, limit + 1)
          : await sql`
              select id::float8 as id, user_id, title, description, completed, created_at, updated_at
              from tasks where user_id = ${owner}
              order by created_at desc, id desc limit ${limit + 1}`;
        if (rows.length <= limit && !cursor)
          return Response.json(rows, { headers: { "x-total-count": String(rows.length) } });

        const [{ total }] = await sql`select count(*)::int as total from tasks where user_id = ${owner}`;
        const headers: Record<string, string> = { "x-total-count": String(total) };
        const page = rows.slice(0, limit);
        const last = page.at(-1);
        if (rows.length > limit && last) {
          const place = ["created_at", "desc", last.created_at.toISOString(), last.id];
          searchParams.set("cursor", Buffer.from(JSON.stringify(place)).toString("base64url"));
          headers.link = `<${pathname}?${searchParams}>; rel="next"`;
        }
        return Response.json(page, { headers });
      },

      async POST(request) {
        const owner = ownerOf(request);
        if (owner instanceof Response) return owner;
        const body = await bodyOf(request);
        if (body instanceof Response) return body;
        const title = body.title?.trim();
        if (title === undefined) return refuse(422);
        const [task] = await sql`
          insert into tasks (user_id, title, description, completed)
          values (${owner}, ${title}, ${body.description ?? null}, ${body.completed ?? false})
          returning id::float8 as id, user_id, title, description, completed, created_at, updated_at`;
        const location = `/api/${encodeURIComponent(owner)}/tasks/${task.id}`;
        return Response.json(task, { status: 201, headers: { location } });
      },
    },

    "/api/:user/tasks/:id": {
      async GET(request) {
        const owner = ownerOf(request);
        if (owner instanceof Response) return owner;
        const id = idOf(request);
        if (id === undefined) return refuse(422);
        const [task] = await sql`
          select id::float8 as id, user_id, title, description, completed, created_at, updated_at
          from tasks where id = ${id} and user_id = ${owner}`;
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
        const [task] = await sql`
          update tasks set
            title = coalesce(${title?.trim() ?? null}, title),
            description = case when ${description !== undefined}::boolean then ${description ?? null} else description end,
            completed = coalesce(${completed ?? null}, completed),
            updated_at = greatest(now(), updated_at + interval '1 millisecond')
          where id = ${id} and user_id = ${owner}
          returning id::float8 as id, user_id, title, description, completed, created_at, updated_at`;
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
        const [task] = await sql`
          update tasks set
            completed = coalesce(${body.completed ?? null}, not completed),
            updated_at = greatest(now(), updated_at + interval '1 millisecond')
          where id = ${id} and user_id = ${owner}
          returning id::float8 as id, user_id, title, description, completed, created_at, updated_at`;
        return task ? Response.json(task) : refuse(404);
      },
    },
  },
});

function after(owner: string, cursor: string, limit: number): Promise<Row[]> {
  const [, , key, id] = JSON.parse(Buffer.from(cursor, "base64url").toString());
  return sql`
    select id::float8 as id, user_id, title, description, completed, created_at, updated_at
    from tasks where user_id = ${owner} and (created_at, id) < (${key}::timestamptz, ${id}::bigint)
    order by created_at desc, id desc limit ${limit}`;
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
  if (title !== undefined && (typeof title !== "string" || !/^.{1,200}$/su.test(title.trim())))
    return refuse(422);
  if (description != null && (typeof description !== "string" || !/^.{0,1000}$/su.test(description)))
    return refuse(422);
  if (completed !== undefined && typeof completed !== "boolean") return refuse(422);
  return body;
}

const idOf = ({ params }: BunRequest<"/api/:user/tasks/:id">) =>
  /^[1-9]\d{0,15}$/.test(params.id) ? Number(params.id) : undefined;

const refuse = (status: number) => Response.json({ status }, { status });

process.stdout.write(`${server.port}\n`);
