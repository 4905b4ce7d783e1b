import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { ConfigError, loadConfig } from "../src/config.ts";

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
    const empty = Object.fromEntries(
      ["PORT", "LOG_LEVEL", "DATABASE_URL", "ENVIRONMENT"].map((name) => [name, " "]),
    );
    expect(loadConfig(empty)).toEqual(loadConfig({}));
  });

  test("are read as Python would", () => {
    expect(
      loadConfig({ LOG_LEVEL: "warning", DB_POOL_PRE_PING: "False", ENVIRONMENT: "Test" }),
    ).toMatchObject({
      logLevel: "WARNING",
      pool: { prePing: false },
      environment: "test",
    });
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

  test("of a JWKS give its origin as issuer and audience, unless they are set", () => {
    const url = "https://app.example.com/api/auth/jwks";
    expect(loadConfig({ BETTER_AUTH_JWKS_URL: url, JWT_AUDIENCE: "tasks" }).jwt).toMatchObject({
      issuer: undefined,
      audience: "tasks",
      jwks: { url: new URL(url), issuer: "https://app.example.com", audience: "tasks" },
    });
  });

  test("may come from mounted files", () => {
    const files = { "/run/url": "memory://\n", "/run/secret": `${SECRET}\n` };
    const config = loadConfig(
      { DATABASE_URL_FILE: "/run/url", BETTER_AUTH_SECRET_FILE: "/run/secret" },
      (path) => files[path as keyof typeof files],
    );
    expect([config.database.driver, config.jwt.secret]).toEqual(["embedded", SECRET]);
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

  test.each(["production", "staging", "prod", "preview"])(
    "in %s without a database and a key",
    (ENVIRONMENT) => {
      expect(namesOf(mistakes({ ENVIRONMENT })).toSorted()).toEqual(["BETTER_AUTH_SECRET", "DATABASE_URL"]);
    },
  );

  test("but not in production without a secret, if there is a JWKS", () => {
    const { BETTER_AUTH_SECRET, ...others } = PRODUCTION;
    expect(mistakes({ ...others, BETTER_AUTH_JWKS_URL: "https://app.example.com/api/auth/jwks" })).toEqual(
      [],
    );
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

  test.each(["http://localhost:3000/", "localhost:3000", "https://a.example/path", "https://A.example"])(
    "with the origin %s",
    (origin) => {
      expect(namesOf(mistakes({ CORS_ALLOWED_ORIGINS: `https://ok.example, ${origin}` }))).toEqual([
        "CORS_ALLOWED_ORIGINS",
      ]);
    },
  );

  test.each([
    "postgres://",
    "postgres:///db",
    "sqlite:///x",
    "pglite://",
    "not a url",
    "postgres://h/db?sslmode=sometimes",
  ])("with DATABASE_URL=%s", (DATABASE_URL) => {
    expect(namesOf(mistakes({ DATABASE_URL }))).toEqual(["DATABASE_URL"]);
  });

  test("with a secret given twice, in a file that is not there, or in an empty one", () => {
    const file = { BETTER_AUTH_SECRET_FILE: "/run/secret" };
    expect(mistakes({ ...file, BETTER_AUTH_SECRET: SECRET })[0]).toContain("both");
    expect(mistakes(file)[0]).toContain("can be read");
    expect(mistakes(file, { "/run/secret": "\n" })[0]).toContain("empty");
  });
});
