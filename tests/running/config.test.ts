import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { ConfigError, loadConfig } from "../../src/config.ts";

const SECRET = "Nq3vB8xT1wLp9sYb4uHc7eJg0aFdZr8k";
const PRODUCTION = {
  ENVIRONMENT: "production",
  DATABASE_URL: "postgres://tasks:hunter2@db.example.com/tasks",
  BETTER_AUTH_SECRET: SECRET,
};

function mistakes(environment: Record<string, string>, files: Record<string, string> = {}): string[] {
  try {
    loadConfig(environment, (path) => {
      if (files[path] === undefined) throw new Error("ENOENT");
      return files[path];
    });
    return [];
  } catch (error) {
    if (error instanceof ConfigError) return error.mistakes;
    throw error;
  }
}

const namesOf = (found: string[]) => found.map((mistake) => mistake.split(" ")[0]);

describe("settings", () => {
  test("have the original's defaults", () => {
    expect(loadConfig({})).toEqual({
      environment: "development",
      production: false,
      host: "0.0.0.0",
      port: 8000,
      logLevel: "INFO",
      corsOrigins: ["http://localhost:3000"],
      compression: true,
      rateLimit: 50,
      metrics: false,
      database: { driver: "embedded", directory: join(process.cwd(), ".data") },
      pool: { size: 5, overflow: 10, prePing: true, recycleSeconds: 300 },
      neonProxy: undefined,
      migrateOnStart: true,
      jwt: {
        algorithm: "HS256",
        secret: undefined,
        issuer: undefined,
        audience: undefined,
        jwks: undefined,
        maxLifetimeSeconds: 604_800,
      },
    });
  });

  test("that are empty are not set", () => {
    const empty = Object.fromEntries(["PORT", "LOG_LEVEL", "DATABASE_URL", "ENVIRONMENT"].map((name) => [name, " "]));
    expect(loadConfig(empty)).toEqual(loadConfig({}));
  });

  test("are read as Python would", () => {
    expect(loadConfig({ LOG_LEVEL: "warning", DB_POOL_PRE_PING: "False", ENVIRONMENT: "Test" })).toMatchObject({
      logLevel: "WARNING",
      pool: { prePing: false },
      environment: "test",
    });
  });

  test.each([
    ["50/s", 50],
    ["1/s", 1],
    ["0", 0],
    ["0/s", 0],
  ])("RATE_LIMIT=%s is %d requests a second", (RATE_LIMIT, rateLimit) => {
    expect(loadConfig({ RATE_LIMIT })).toMatchObject({ rateLimit });
  });

  test.each(["50", "/s", "-1/s", "1.5/s", "50/m", "50 /s", "many"])("RATE_LIMIT=%s is refused", (RATE_LIMIT) => {
    expect(mistakes({ RATE_LIMIT })).toEqual([expect.stringMatching(/^RATE_LIMIT .*50\/s/)]);
  });

  test.each<[string, object]>([
    ["postgres://u:p@ep-cool-1-pooler.eu-central-1.aws.neon.tech/db?sslmode=require", { driver: "neon" }],
    ["postgresql://u:p@neon.tech.example.com/db", { driver: "postgres" }],
    ["postgres://127.0.0.1:5432/test?sslmode=verify-full", { driver: "postgres" }],
    ["pglite://data/x", { driver: "embedded", directory: join(process.cwd(), "data/x") }],
    ["pglite:///var/lib/tasks", { driver: "embedded", directory: "/var/lib/tasks" }],
    ["memory://", { driver: "embedded", directory: undefined }],
  ])("DATABASE_URL %s", (url, expected) => {
    expect(loadConfig({ DATABASE_URL: url }).database).toMatchObject(expected);
  });

  const HOST = "db.example.com:5432/tasks";
  test.each<[string, string]>([
    ["postgresql+psycopg2://u:p@db.example.com/tasks", `u:p@${HOST}?sslmode=prefer`],
    ["postgresql+asyncpg://u:p@db.example.com/tasks?ssl=require", `u:p@${HOST}?sslmode=require`],
    ["'postgres+psycopg://u:p@db.example.com/tasks'", `u:p@${HOST}?sslmode=prefer`],
    ['"postgres://u:p@db.example.com/tasks?ssl=true"', `u:p@${HOST}?sslmode=require`],
    [
      "psql 'postgresql://u:p@db.example.com/tasks?sslmode=verify-full&channel_binding=require'",
      `u:p@${HOST}?sslmode=verify-full`,
    ],
    ["postgres://u:p@db.example.com/tasks?sslmode=require&sslaccept=strict", `u:p@${HOST}?sslmode=verify-full`],
    [
      "postgres://u:p@db.example.com/tasks?sslmode=require&sslaccept=accept_invalid_certs",
      `u:p@${HOST}?sslmode=require`,
    ],
    ["postgres://u:100%@db.example.com/tasks", `u:100%25@${HOST}?sslmode=prefer`],
    ["postgres://u:a@b:c/d?e#f g%@db.example.com/tasks", `u:a%40b%3Ac%2Fd%3Fe%23f%20g%25@${HOST}?sslmode=prefer`],
    ["postgres://u:a%40b%25@db.example.com/tasks", `u:a%40b%25@${HOST}?sslmode=prefer`],
    ["postgres://u@azure:p@db.example.com/tasks", `u%40azure:p@${HOST}?sslmode=prefer`],
    [
      "postgres://u:p@db.example.com/tasks?application_name=me@home",
      `u:p@${HOST}?sslmode=prefer&application_name=me%40home`,
    ],
    [
      "postgres://u:p@db.example.com/tasks?schema=public&connection_limit=1&pool_timeout=0&supa=base-pooler.x&uselibpqcompat=true&connect_timeout=10&keepalives_idle=30&target_session_attrs=read-write",
      `u:p@${HOST}?sslmode=prefer`,
    ],
    [
      "postgres://u:p@db.example.com/tasks?sslmode=no-verify&schema=Team",
      `u:p@${HOST}?sslmode=require&options=-c%20search_path%3D%22Team%22`,
    ],
    [
      "postgres://u:p@[::1]:6432/tasks?options=-c%20geqo%3Doff",
      "u:p@[::1]:6432/tasks?sslmode=prefer&options=-c%20geqo%3Doff",
    ],
    ["postgres:///tasks", "localhost:5432/tasks?sslmode=disable&path=%2Fvar%2Frun%2Fpostgresql%2F.s.PGSQL.5432"],
    [
      "postgres://u:p@%2Ftmp:5433/tasks?sslmode=require",
      "u:p@localhost:5433/tasks?sslmode=disable&path=%2Ftmp%2F.s.PGSQL.5433",
    ],
    [
      "postgres://u:p@/tasks?host=/cloudsql/a:b:c",
      "u:p@localhost:5432/tasks?sslmode=disable&path=%2Fcloudsql%2Fa%3Ab%3Ac%2F.s.PGSQL.5432",
    ],
    ["postgres://?host=db.example.com&user=u&password=p%2Bq&dbname=tasks&port=5432", `u:p%2Bq@${HOST}?sslmode=prefer`],
  ])("DATABASE_URL as people have it: %s", (url, expected) => {
    expect(loadConfig({ DATABASE_URL: url }).database).toMatchObject({
      driver: "postgres",
      url: `postgres://${expected}`,
    });
  });

  test.each([
    ["require", "verify-ca"],
    ["verify-full", "verify-full"],
  ])("with sslmode=%s, a URL's own certificates are what the server is verified by", (asked, sslmode) => {
    const url = `postgres://h/db?sslmode=${asked}&sslrootcert=/etc/ca.pem`;
    expect(loadConfig({ DATABASE_URL: url }, (path) => `PEM of ${path}`).database).toMatchObject({
      url: `postgres://h:5432/db?sslmode=${sslmode}`,
      ca: "PEM of /etc/ca.pem",
    });
  });

  test.each<[Record<string, string>, boolean | undefined]>([
    [{ DATABASE_URL: "postgres://h/db" }, undefined],
    [{ DATABASE_URL: "postgres://h/db?pgbouncer=true" }, false],
    [{ DATABASE_URL: "postgres://h/db?prepared_statement_cache_size=0" }, false],
    [{ DATABASE_URL: "postgres://h/db", DB_PREPARED_STATEMENTS: "false" }, false],
    [{ DATABASE_URL: "postgres://h/db?pgbouncer=true", DB_PREPARED_STATEMENTS: "True" }, true],
  ])("say whether statements may have names: %p", (environment, prepare) => {
    expect(loadConfig(environment).database).toMatchObject({ prepare });
  });

  test.each([
    ["ep-cool-1.eu-central-1.aws.neon.tech", "tcp", "postgres"],
    ["ep-cool-1.eu-central-1.aws.neon.tech", "auto", "neon"],
    ["127.0.0.1", "neon", "neon"],
  ])("of %s, DB_DRIVER=%s choose %s", (host, DB_DRIVER, driver) => {
    expect(loadConfig({ DATABASE_URL: `postgres://u:p@${host}/db`, DB_DRIVER }).database.driver).toBe(driver as "neon");
  });

  test("of a JWKS give its origin as issuer and audience, unless they are set", () => {
    const url = "https://app.example.com/api/auth/jwks";
    expect(loadConfig({ BETTER_AUTH_JWKS_URL: url, JWT_AUDIENCE: "tasks" }).jwt).toMatchObject({
      issuer: undefined,
      audience: "tasks",
      jwks: { url: new URL(url), issuer: "https://app.example.com", audience: "tasks" },
    });
  });

  test("of a JWKS leave the audience its origin, whatever the issuer is", () => {
    const settings = { BETTER_AUTH_JWKS_URL: "https://app.example.com/jwks", JWT_ISSUER: "https://auth.example.com" };
    expect(loadConfig(settings).jwt.jwks).toMatchObject({
      issuer: "https://auth.example.com",
      audience: "https://app.example.com",
    });
  });

  test.each([
    ["https://a.example,http://localhost:3000 , ", ["https://a.example", "http://localhost:3000"]],
    ['["https://a.example", "http://[::1]:3000"]', ["https://a.example", "http://[::1]:3000"]],
    ["[]", []],
    ...[
      "capacitor://localhost",
      "ionic://localhost",
      "tauri://localhost",
      "app://obsidian.md",
      "app://.",
      "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
      "moz-extension://6f0b7a3c-3d0a-4a0b-9d6e-0f6a1b2c3d4e",
      "safari-web-extension://6F0B7A3C-3D0A-4A0B-9D6E-0F6A1B2C3D4E",
      "https://my-app-*-my-team.vercel.app",
      "https://deploy-preview-*--my-site.netlify.app",
      "https://*.example.com",
      "https://app-*.example.co.uk:8443",
      "https://*.my-team.vercel.app",
      "https://*.my-project.pages.dev",
      "https://*.corp.internal",
    ].map((origin): [string, string[]] => [origin, [origin]]),
  ])("CORS_ALLOWED_ORIGINS %s", (value, origins) => {
    expect(loadConfig({ ...PRODUCTION, CORS_ALLOWED_ORIGINS: value }).corsOrigins).toEqual(origins);
  });

  test("may come from mounted files", () => {
    const files = { "/run/url": "pglite:///mounted\n", "/run/secret": `${SECRET}\n` };
    const config = loadConfig(
      { DATABASE_URL_FILE: "/run/url", BETTER_AUTH_SECRET_FILE: "/run/secret" },
      (path) => files[path as keyof typeof files],
    );
    expect([config.database, config.jwt.secret]).toEqual([{ driver: "embedded", directory: "/mounted" }, SECRET]);
  });
});

describe("a start is refused", () => {
  test("with every mistake by name, and no value of a secret", () => {
    const found = mistakes({
      ...PRODUCTION,
      DATABASE_URL: "mysql://root:hunter2@db/tasks",
      BETTER_AUTH_SECRET: "too-short-hunter2",
      BETTER_AUTH_JWKS_URL: "ftp://x",
      PORT: "80000",
      LOG_LEVEL: "LOUD",
      JWT_ALGORITHM: "none",
      JWT_EXPIRATION_DELTA: "-1",
      CORS_ALLOWED_ORIGINS: "*",
      DB_POOL_SIZE: "0",
      DB_MAX_OVERFLOW: "many",
      DB_POOL_PRE_PING: "maybe",
      DB_POOL_RECYCLE: "1.5",
      NEON_WSPROXY: "nowhere",
    });
    expect(namesOf(found).toSorted()).toEqual([
      "BETTER_AUTH_JWKS_URL",
      "BETTER_AUTH_SECRET",
      "CORS_ALLOWED_ORIGINS",
      "DATABASE_URL",
      "DB_MAX_OVERFLOW",
      "DB_POOL_PRE_PING",
      "DB_POOL_RECYCLE",
      "DB_POOL_SIZE",
      "JWT_ALGORITHM",
      "JWT_EXPIRATION_DELTA",
      "LOG_LEVEL",
      "NEON_WSPROXY",
      "PORT",
    ]);
    expect(found.join()).not.toContain("hunter2");
  });

  test.each(["production", "staging", "prod", "preview"])("in %s without a database and a key", (ENVIRONMENT) => {
    expect(namesOf(mistakes({ ENVIRONMENT })).toSorted()).toEqual(["BETTER_AUTH_SECRET", "DATABASE_URL"]);
  });

  test("but not in production without a secret, if there is a JWKS", () => {
    const { BETTER_AUTH_SECRET, ...others } = PRODUCTION;
    expect(mistakes({ ...others, BETTER_AUTH_JWKS_URL: "https://app.example.com/api/auth/jwks" })).toEqual([]);
  });

  test.each([
    "change-me-change-me-change-me-change-me",
    "your-super-secret-key-at-least-32-chars",
    "better-auth-secret-12345678901234567890",
    "REPLACE_WITH_A_REAL_SECRET_1234567890",
    "an-example-secret-of-enough-characters",
    "a".repeat(64),
    "1212121212121212121212121212121212121212",
  ])("with the placeholder %s", (BETTER_AUTH_SECRET) => {
    expect(mistakes({ BETTER_AUTH_SECRET })).toEqual([expect.stringContaining("placeholder")]);
  });

  test.each([
    ["HS256", 31],
    ["HS384", 47],
    ["HS512", 63],
  ])("with a secret too short for %s", (JWT_ALGORITHM, length) => {
    const long = SECRET.repeat(2);
    expect(namesOf(mistakes({ JWT_ALGORITHM, BETTER_AUTH_SECRET: long.slice(0, length) }))).toEqual([
      "BETTER_AUTH_SECRET",
    ]);
    expect(mistakes({ JWT_ALGORITHM, BETTER_AUTH_SECRET: long.slice(0, length + 1) })).toEqual([]);
  });

  test.each([
    ["http://localhost:3000/", "http://localhost:3000"],
    ["localhost:3000", "http://localhost:3000"],
    ["127.0.0.1:3000", "http://127.0.0.1:3000"],
    ["app.example.com", "https://app.example.com"],
    ["https://a.example/path", "https://a.example"],
    ["https://a.example:443", "https://a.example"],
    ["http://a.example:80", "http://a.example"],
    ["https://A.example", "https://a.example"],
    ["HTTPS://a.example", "https://a.example"],
    ["https://user:hunter2@a.example", "https://a.example"],
    ["https://bücher.example", "https://xn--bcher-kva.example"],
    ["https://*.Example.com/", "https://*.example.com"],
    ["https://*.example.com:443", "https://*.example.com"],
    ["https://app.example.com/*", "https://app.example.com"],
    ["http://*.example.com", "https origins only"],
    ["https://*.*.example.com", "one * at most"],
    ["https://**.example.com", "one * at most"],
    ["https://app.example.com:*", "one * at most"],
    ["*://app.example.com", "one * at most"],
    ["https://", "comma-separated"],
    ["wss://a.example", "comma-separated"],
    ["file:///x", "comma-separated"],
    ["null", "comma-separated"],
    ["capacitor://", "comma-separated"],
    ["'https://a.example'", "comma-separated"],
    ['["https://a.example"', "JSON array"],
    ["[1]", "JSON array"],
    ["[null]", "JSON array"],
  ])("with the origin %s: %s would be right", (origin, right) => {
    const found = mistakes({ CORS_ALLOWED_ORIGINS: origin });
    expect(namesOf(found)).toEqual(["CORS_ALLOWED_ORIGINS"]);
    expect(found[0]).toContain(right);
    expect(found[0]).not.toContain("hunter2");
  });

  test.each([
    ["https://*", "*"],
    ["https://*.com", "com"],
    ["https://example.*", "*"],
    ["https://*.co.uk", "co.uk"],
    ["https://*example.com", "com"],
    ["https://my-app-*.com", "com"],
    ["https://*-team.example", "example"],
    ["https://*.vercel.app", "vercel.app"],
    ["https://my-app-*.vercel.app", "vercel.app"],
    ["https://app.*.vercel.app", "vercel.app"],
    ["https://my-app-*.netlify.app", "netlify.app"],
    ["https://*.pages.dev", "pages.dev"],
    ["https://*.github.io", "github.io"],
    ["https://*.up.railway.app", "up.railway.app"],
    ["https://*.web.app", "web.app"],
    ["https://*.s3.amazonaws.com", "s3.amazonaws.com"],
    ["https://*.compute.amazonaws.com", "*.compute.amazonaws.com"],
    ["https://app.*.ck", "*.ck"],
    ["https://*.vercel.app:8443", "vercel.app"],
  ])("with %s, which is open to anybody under %s", (origin, suffix) => {
    expect(mistakes({ CORS_ALLOWED_ORIGINS: origin })).toEqual([
      expect.stringContaining(`must not hold ${origin}: anybody can have such a name under ${suffix}. `),
    ]);
  });

  test("with every origin allowed, wherever it is not for development", () => {
    for (const CORS_ALLOWED_ORIGINS of ["*", "https://a.example,*", '["*"]'])
      expect(namesOf(mistakes({ ...PRODUCTION, CORS_ALLOWED_ORIGINS }))).toEqual(["CORS_ALLOWED_ORIGINS"]);
    expect(mistakes({ CORS_ALLOWED_ORIGINS: "*" })).toEqual([]);
  });

  test.each(["postgres://", "sqlite:///x", "pglite://", "not a url", "postgres://h/db?sslmode=sometimes"])(
    "with DATABASE_URL=%s",
    (DATABASE_URL) => {
      expect(namesOf(mistakes({ DATABASE_URL }))).toEqual(["DATABASE_URL"]);
    },
  );

  test.each([
    [
      "postgres://u:hunter2@h/db?foo=hunter2&bar=1&sslcert=x",
      "has parameters that mean nothing here: foo, bar, sslcert",
    ],
    ["postgres://u:hunter2@h1:5432,h2:5432/db", "names several hosts: give one that leads to the primary"],
    [
      "postgres://u:hunter2%41%zz@h/db",
      "has a % in its password that encodes nothing, beside others that do: write it as %25",
    ],
    ["postgres://u:hunter2@h:99999/db", "has a port that is not a number from 1 to 65535"],
    [
      "postgres://u:p@h?hunter2=1@h/db",
      "can be read in two ways: in the password, write @ as %40, / as %2F, ? as %3F and # as %23",
    ],
    ["postgres://u:hunter2@h/db?schema=a;b", "has a schema that isn't letters, digits and _"],
    [
      "postgres://u:hunter2@h/db?sslrootcert=/none&sslmode=verify-full",
      "has an sslrootcert that must name a file that can be read",
    ],
    [
      "jdbc:postgresql://h/db?password=hunter2",
      "must be postgres://USER:PASSWORD@HOST:PORT/DATABASE, pglite://DIRECTORY or memory://",
    ],
    [
      "postgres://u:hunter2@h:port/db",
      "must be postgres://USER:PASSWORD@HOST:PORT/DATABASE, pglite://DIRECTORY or memory://",
    ],
  ])("with the exact fault of %s", (DATABASE_URL, fault) => {
    expect(mistakes({ DATABASE_URL })).toEqual([`DATABASE_URL ${fault}`]);
  });

  test("with a secret given twice, in a file that is not there, or in an empty one", () => {
    const file = { BETTER_AUTH_SECRET_FILE: "/run/secret" };
    expect(mistakes({ ...file, BETTER_AUTH_SECRET: SECRET })).toEqual([
      "BETTER_AUTH_SECRET and BETTER_AUTH_SECRET_FILE are both set: keep one",
    ]);
    expect(mistakes(file)[0]).toContain("can be read");
    expect(mistakes(file, { "/run/secret": "\n" })[0]).toContain("empty");
  });
});
