/** A Postgres server, as `DATABASE_URL` names it. */
export interface Server {
  /**
   * For Bun's driver and Neon's alike: `postgres://USER:PASSWORD@HOST:PORT/DATABASE`, and of parameters only
   * `sslmode` (always), `path` (of a Unix socket), `options` and `application_name`.
   */
  url: string;
  /** The certificates (PEM) to verify the server's by, where that is verified; undefined: the well-known ones. */
  ca: string | undefined;
  /** Whether statements are prepared under a name. Undefined: if there is no pooler in between. */
  prepare: boolean | undefined;
}

/**
 * What follows the login: host, port, further hosts, database, parameters. None of them takes a raw `@`, `/`, `?` or
 * `#`, so one that stands in a password is taken for the password's.
 */
const ADDRESS = String.raw`(\[[\da-f:.]+\]|[\w.%~-]*)(?::(\d*))?((?:,[^/?#@]*)*)(?:\/([^/?#@]*))?(?:\?((?:[\w.-]+(?:=[^&#]*)?(?:&|$))*))?$`;
const SCHEME = String.raw`^postgres(?:ql)?(?:\+\w+)?:\/\/(?=.)`;
/** Where these two find different passwords, the URL can be read in two ways. */
const SHORTEST_LOGIN = new RegExp(`${SCHEME}(?:([^:]*?)(?::(.*?))?@)??${ADDRESS}`, "is");
const LONGEST_LOGIN = new RegExp(`${SCHEME}(?:([^:]*)(?::(.*))?@)?${ADDRESS}`, "is");

const SSL_MODES = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];
/** The words of other clients. */
const SSL_SYNONYMS = new Map(
  Object.entries({ true: "require", 1: "require", "no-verify": "require", false: "disable", 0: "disable" }),
);

/**
 * Parameters of other clients (SQLAlchemy, Prisma, Supabase, pg, pgx, JDBC, Rails, …) on which nothing depends here.
 */
const DROPPED =
  /^(supa|uselibpqcompat|channel_binding|\w*timeout|target_session_attrs|load_balance_hosts|keepalives\w*|gss\w+|krb\w+|require_auth|requirepeer|sslcompression|sslsni|sslnegotiation|ssl_(min|max)_protocol_version|fallback_application_name|(client_)?encoding|charset|timezone|datestyle|connection_limit|pool\w*|max|max_\w+|single_use_connections|statement_cache_mode|prepared_statement_name_func|async_fallback|rewritebatchedinserts|stringtype|conn_max_age|conn_health_checks)$/;

/**
 * Reads the URL of a server as people have it: with SQLAlchemy's driver in its scheme, raw characters in its password
 * and the parameters of other clients.
 *
 * @returns what is wrong with it otherwise, in sentences that hold nothing of it but names of parameters.
 */
export function parseDatabaseUrl(text: string, readFile: (path: string) => string): Server | string[] {
  const parts = SHORTEST_LOGIN.exec(text);
  if (parts === null) return ["must be postgres://USER:PASSWORD@HOST:PORT/DATABASE, pglite://DIRECTORY or memory://"];
  const mistakes: string[] = [];
  const check = (right: boolean, mistake: string) => right || mistakes.push(mistake);
  const decode = (text: string, where: string) => {
    try {
      // Where nothing is encoded, a % is meant as it stands.
      return /%[\da-f]{2}/i.test(text) ? decodeURIComponent(text) : text;
    } catch {
      mistakes.push(`has a % in its ${where} that encodes nothing, beside others that do: write it as %25`);
      return "";
    }
  };
  const [, user = "", password = "", hostPart = "", portPart, moreHosts, database = "", query = ""] = parts;
  const parameters = new Map<string, string>();
  for (const [, name = "", value = ""] of query.matchAll(/([^&=]+)=?([^&]*)/g))
    parameters.set(name.toLowerCase(), decode(value, `parameter ${name}`));
  /** Takes these parameters away, and returns the first value. What is left in the end is unknown. */
  const take = (...names: string[]) => {
    const values = names.map((name) => parameters.get(name));
    for (const name of names) parameters.delete(name);
    return values.find(Boolean);
  };

  const host = take("host") ?? (decode(hostPart, "host") || "/var/run/postgresql");
  const port = Number(take("port") ?? (portPart || 5432));
  check(!moreHosts && !host.includes(","), "names several hosts: give one that leads to the primary");
  check(/^([\w.,-]+|\[.+\]|\/.+)$/.test(host), "has a host that is no name, address or folder of a socket");
  check(port >= 1 && port <= 65_535, "has a port that is not a number from 1 to 65535");

  const mode = (take("sslmode", "ssl") ?? "prefer").toLowerCase();
  let sslmode = take("sslaccept") === "strict" ? "verify-full" : (SSL_SYNONYMS.get(mode) ?? mode);
  check(SSL_MODES.includes(sslmode), `has an unknown sslmode: ${SSL_MODES.join(", ")} are known`);
  const certificates = take("sslrootcert") ?? "system";
  let ca: string | undefined;
  if (certificates !== "system" && /require|verify/.test(sslmode))
    try {
      ca = readFile(certificates);
      // As libpq has it: who names certificates wants the server's checked.
      if (sslmode === "require") sslmode = "verify-ca";
    } catch {
      mistakes.push("has an sslrootcert that must name a file that can be read");
    }

  const schema = take("schema", "search_path", "currentschema") ?? "public";
  check(/^\w+(, *\w+)*$/.test(schema), "has a schema that isn't letters, digits and _");
  const searchPath = schema !== "public" && `-c search_path=${schema.replace(/ *(\w+)/g, '"$1"')}`;
  const pooled = /^(true|1)$/i.test(take("pgbouncer") ?? "");
  const cached = take("prepare", "prepared_statements", "statement_cache_size", "prepared_statement_cache_size");
  const socket = host.startsWith("/");
  const passed = Object.entries({
    sslmode: socket ? "disable" : sslmode,
    path: socket && `${host}/.s.PGSQL.${port}`,
    options: [take("options"), searchPath].filter(Boolean).join(" "),
    application_name: take("application_name", "applicationname"),
  }).flatMap(([key, value]) => (value ? `${key}=${encodeURIComponent(value)}` : []));
  const login = [take("user") ?? decode(user, "user"), take("password") ?? decode(password, "password")];
  const path = encodeURIComponent(take("dbname") ?? decode(database, "database"));

  const unknown = [...parameters.keys()].filter((name) => !DROPPED.test(name));
  if (unknown.length > 0 && LONGEST_LOGIN.exec(text)?.[2] !== parts[2])
    return ["can be read in two ways: in the password, write @ as %40, / as %2F, ? as %3F and # as %23"];
  check(unknown.length === 0, `has parameters that mean nothing here: ${unknown.join(", ")}`);
  if (mistakes.length > 0) return mistakes;
  const userinfo = login.map(encodeURIComponent).join(":").replace(/:$/, "");
  return {
    url: `postgres://${userinfo && `${userinfo}@`}${socket ? "localhost" : host}:${port}/${path}?${passed.join("&")}`,
    ca,
    prepare: pooled || /^(false|0)$/i.test(cached ?? "") ? false : undefined,
  };
}

/** Where a database is, for its label: without the password. */
export function addressOf(url: string): string {
  const { hostname, port, pathname, searchParams } = new URL(url);
  return `${searchParams.get("path") ?? `${hostname}:${port || 5432}`}${pathname}`;
}
