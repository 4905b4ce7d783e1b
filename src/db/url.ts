/** A Postgres server, as `DATABASE_URL` names it. */
export interface Server {
  host: string;
  /**
   * For Bun's driver and Neon's alike: `postgres://USER:PASSWORD@HOST:PORT/DATABASE`, and of parameters only
   * `sslmode` (always), `path` (of a Unix socket), `options` and `application_name`.
   */
  url: string;
  /** The certificates (PEM) to verify the server's by, where that is verified; undefined: the well-known ones. */
  ca: string | undefined;
  /** Whether statements are sent by name, which some poolers don't carry. Undefined: if it turns out to work. */
  prepare: boolean | undefined;
}

/**
 * What follows the userinfo: host, port, further hosts, database, parameters. It takes no `@`, `/`, `?` or `#` that
 * could as well belong to a password, so that the `@` before it is found though the password has raw ones too.
 */
const AFTER_USERINFO =
  /^(\[[\da-f:.]+\]|[\w.%~-]*)(?::(\d*))?((?:,[^/?#@]*)*)(?:\/([^/?#@]*))?(?:\?((?:[\w.-]+(?:=[^&#]*)?(?:&|$))*))?$/i;

const SSL_MODES = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];
const FORMS = "postgres://USER:PASSWORD@HOST:PORT/DATABASE, pglite://DIRECTORY or memory://";
/** The words of other clients. */
const SSL_SYNONYMS = new Map(
  Object.entries({ true: "require", 1: "require", "no-verify": "require", false: "disable", 0: "disable" }),
);

/** Parameters of other clients (SQLAlchemy, Prisma, Supabase, pg, pgx, JDBC, Rails, …) on which nothing depends here. */
const DROPPED =
  /^(supa|uselibpqcompat|channel_binding|\w*timeout|target_session_attrs|load_balance_hosts|keepalives\w*|gss\w+|krb\w+|require_auth|requirepeer|sslcompression|sslsni|sslnegotiation|ssl_(min|max)_protocol_version|fallback_application_name|(client_)?encoding|charset|timezone|datestyle|connection_limit|pool\w*|max|max_\w+|single_use_connections|statement_cache_mode|prepared_statement_name_func|async_fallback|rewritebatchedinserts|stringtype|conn_max_age|conn_health_checks)$/;

/**
 * Reads the URL of a server as people have it: with SQLAlchemy's driver in its scheme, raw characters in its password
 * and the parameters of other clients.
 *
 * @returns what is wrong with it otherwise, in sentences that hold nothing of it but names of parameters.
 */
export function parseDatabaseUrl(text: string, readFile: (path: string) => string): Server | string[] {
  const rest = /^postgres(?:ql)?(?:\+\w+)?:\/\/(.+)$/is.exec(text)?.[1];
  if (rest === undefined) return [`must be ${FORMS}`];
  const [reading, another] = readings(rest);
  if (reading === undefined) return [`is not quite ${FORMS}`];

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
  const [, hostPart = "", portPart = "", moreHosts = "", database = "", query = ""] = reading.parts;
  const [, user = "", password = ""] = /^([^:]*):?(.*)$/s.exec(reading.userinfo) ?? [];
  const parameters = new Map<string, string>();
  for (const pair of query.split("&").filter(Boolean)) {
    const [name = "", ...value] = pair.split("=");
    parameters.set(name.toLowerCase(), decode(value.join("="), `parameter ${name}`));
  }
  /** The first of these that is given. What nobody has taken in the end is unknown. */
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

  const strict = take("sslaccept") === "strict";
  const word = (take("sslmode", "ssl") ?? (strict ? "verify-full" : "prefer")).toLowerCase();
  const certificates = take("sslrootcert");
  let sslmode = SSL_SYNONYMS.get(word) ?? word;
  check(SSL_MODES.includes(sslmode), `has an unknown sslmode: ${SSL_MODES.join(", ")} are known`);
  // As libpq has it: who names a certificate wants it checked.
  if (certificates && sslmode === "require")
    sslmode = certificates === "system" ? "verify-full" : "verify-ca";
  let ca: string | undefined;
  try {
    if (certificates && certificates !== "system" && sslmode.startsWith("verify"))
      ca = readFile(certificates);
  } catch {
    mistakes.push("has an sslrootcert that must name a file that can be read");
  }

  const schemas = (take("schema", "search_path", "currentschema") ?? "public").split(/ *, */);
  check(
    schemas.every((name) => /^\w+$/.test(name)),
    "has a schema that isn't letters, digits and _",
  );
  const searchPath = schemas.join() !== "public" && `-c search_path="${schemas.join('","')}"`;
  const pooled = /^(true|1)$/i.test(take("pgbouncer") ?? "");
  const cached = take(
    "prepare",
    "prepared_statements",
    "statement_cache_size",
    "prepared_statement_cache_size",
  );

  const login = [take("user") ?? decode(user, "user"), take("password") ?? decode(password, "password")];
  const name = take("dbname") ?? decode(database, "database");
  const socket = host.startsWith("/");
  const passed = Object.entries({
    sslmode: socket ? "disable" : sslmode,
    path: socket && `${host}/.s.PGSQL.${port}`,
    options: [take("options"), searchPath].filter(Boolean).join(" "),
    application_name: take("application_name", "applicationname"),
  }).flatMap(([key, value]) => (value ? [`${key}=${encodeURIComponent(value)}`] : []));

  const unknown = [...parameters.keys()].filter((name) => !DROPPED.test(name));
  if (unknown.length > 0 && another)
    return ["can be read in two ways: in the password, write @ as %40, / as %2F, ? as %3F and # as %23"];
  check(unknown.length === 0, `has parameters that mean nothing here: ${unknown.join(", ")}`);
  if (mistakes.length > 0) return mistakes;
  const userinfo = login.map(encodeURIComponent).join(":").replace(/:$/, "");
  const address = `${userinfo && `${userinfo}@`}${socket ? "localhost" : host}:${port}`;
  return {
    host,
    url: `postgres://${address}/${encodeURIComponent(name)}?${passed.join("&")}`,
    ca,
    prepare: pooled || /^(false|0)$/i.test(cached ?? "") ? false : undefined,
  };
}

/** Every way to split it into userinfo and the rest, the shortest userinfo first. */
const readings = (text: string) =>
  [0, ...Array.from(text.matchAll(/@/g), ({ index }) => index + 1)].flatMap((start) => {
    const parts = AFTER_USERINFO.exec(text.slice(start));
    return parts ? [{ userinfo: text.slice(0, Math.max(start - 1, 0)), parts }] : [];
  });
