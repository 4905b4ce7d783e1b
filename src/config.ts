import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { parseDatabaseUrl, type Server } from "./db/url.ts";
import { parseOrigins } from "./http/origins.ts";

export type Algorithm = keyof typeof SECRET_BYTES;
export type LogLevel = (typeof LOG_LEVELS)[number];

type DatabaseSettings =
  | { driver: "embedded"; directory: string | undefined }
  | ({ driver: "neon" | "postgres" } & Server);

export type Config = ReturnType<typeof loadConfig>;

/** Where this machine reaches the service. */
export const localAddress = ({ host, port }: Pick<Config, "host" | "port">) =>
  `http://${host === "0.0.0.0" || host === "::" ? "localhost" : host.includes(":") ? `[${host}]` : host}:${port}`;

/** Every mistake in the settings, by name. The message holds no value of a secret. */
export class ConfigError extends Error {
  constructor(readonly mistakes: string[]) {
    super(`The settings are not right:\n${mistakes.map((mistake) => `  - ${mistake}`).join("\n")}`);
  }
}

/** RFC 7518, section 3.2: the key is at least as long as the hash. */
const SECRET_BYTES = { HS256: 32, HS384: 48, HS512: 64 };
export const LOG_LEVELS = ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] as const;
/** Where the embedded database and the made-up secret are kept in development. */
export const DATA_DIRECTORY = ".data";

type Environment = Record<string, string | undefined>;
type ReadFile = (path: string) => string;

/**
 * Reads all settings at once.
 *
 * @throws {ConfigError} naming every one that is wrong, with what would be right.
 */
export function loadConfig(environment: Environment, readFile: ReadFile = (path) => readFileSync(path, "utf8")) {
  const mistakes: string[] = [];
  const settings = reader(environment, readFile, mistakes);

  const name = (settings.text("ENVIRONMENT") ?? "development").toLowerCase();
  const production = name !== "development" && name !== "test";
  const algorithm = settings.choice("JWT_ALGORITHM", ["HS256", "HS384", "HS512"], "HS256");
  const jwksUrl = settings.url("BETTER_AUTH_JWKS_URL");
  const issuer = settings.text("JWT_ISSUER");
  const audience = settings.text("JWT_AUDIENCE");
  const secret = settings.secret("BETTER_AUTH_SECRET");
  if (secret !== undefined) mistakes.push(...faultsOfSecret(secret, algorithm));
  else if (production && jwksUrl === undefined)
    mistakes.push("BETTER_AUTH_SECRET is required (the same as Better Auth's), or BETTER_AUTH_JWKS_URL");

  const neonProxy = settings.hostAndPort("NEON_WSPROXY");

  const config = {
    environment: name,
    /** Everything but development and test: nothing is made up, and nothing that opens a door is printed. */
    production,
    host: settings.text("HOST") ?? "0.0.0.0",
    port: settings.integer("PORT", 8000, 0, 65_535),
    logLevel: settings.choice("LOG_LEVEL", LOG_LEVELS, "INFO"),
    corsOrigins: settings.origins("CORS_ALLOWED_ORIGINS", "http://localhost:3000", production),
    /** Requests a second of one user, on average; 0 for no limit. */
    rateLimit: settings.rate("RATE_LIMIT", 50),
    /** Whether long answers are compressed, or that is left to a proxy. */
    compression: settings.boolean("COMPRESSION", true),
    /** Whether `/metrics` is there. */
    metrics: settings.boolean("METRICS", false),
    database: settings.database("DATABASE_URL", production, neonProxy !== undefined),
    pool: {
      size: settings.integer("DB_POOL_SIZE", 5, 1, 1000),
      overflow: settings.integer("DB_MAX_OVERFLOW", 10, 0, 1000),
      prePing: settings.boolean("DB_POOL_PRE_PING", true),
      recycleSeconds: settings.integer("DB_POOL_RECYCLE", 300, 1, 86_400),
    },
    /** `host:port` of a WebSocket proxy for Neon's driver. */
    neonProxy,
    /** Whether `serve` brings the schema up to date, or leaves that to the `migrate` command. */
    migrateOnStart: settings.boolean("DB_MIGRATE_ON_START", true),
    jwt: {
      algorithm,
      /** Undefined where only a JWKS is configured and, in development, until one has been made. */
      secret,
      /** What a token signed with the secret must name, if anything. */
      issuer,
      audience,
      /** Where Better Auth publishes its public keys, and what a token signed with one of them must name. */
      jwks: jwksUrl && {
        url: jwksUrl,
        issuer: issuer ?? jwksUrl.origin,
        audience: audience ?? jwksUrl.origin,
      },
      /** The furthest ahead that a token may expire, and the lifetime of those made by the `token` command. */
      maxLifetimeSeconds: settings.integer("JWT_EXPIRATION_DELTA", 604_800, 1, 10 * 365 * 86_400),
    },
  };
  if (mistakes.length > 0) throw new ConfigError(mistakes);
  return config;
}

/** Reads one setting at a time. A mistake is noted, and something of the right type returned in its place. */
function reader(environment: Environment, readFile: ReadFile, mistakes: string[]) {
  const text = (name: string) => environment[name]?.trim() || undefined;

  /**
   * What `parse` finds in the setting, which must be `right`. The fallback without it, or if there is nothing to find.
   */
  function read<Value>(
    name: string,
    fallback: Value,
    right: string,
    parse: (text: string) => Value | undefined,
  ): Value {
    const given = text(name);
    const value = given === undefined ? fallback : parse(given);
    if (given !== undefined && value === undefined) mistakes.push(`${name} must be ${right}`);
    return value ?? fallback;
  }

  const settings = {
    text,

    /** The value of NAME, or the content of the file that NAME_FILE names. */
    secret(name: string): string | undefined {
      const file = text(`${name}_FILE`);
      if (file === undefined) return text(name);
      if (text(name) !== undefined) {
        mistakes.push(`${name} and ${name}_FILE are both set: keep one`);
        return undefined;
      }
      try {
        const content = readFile(file).trim();
        if (content === "") mistakes.push(`${name}_FILE names an empty file`);
        return content || undefined;
      } catch {
        mistakes.push(`${name}_FILE must name a file that can be read`);
        return undefined;
      }
    },

    integer: (name: string, fallback: number, least: number, most: number) =>
      read(name, fallback, `a whole number from ${least} to ${most}`, (value) =>
        /^\d+$/.test(value) && Number(value) >= least && Number(value) <= most ? Number(value) : undefined,
      ),

    rate: (name: string, fallback: number) =>
      read(name, fallback, `requests a second, such as ${fallback}/s, or 0 for no limit`, (value) => {
        const rate = /^(?:(\d{1,6})\/s|0)$/.exec(value);
        return rate ? Number(rate[1] ?? 0) : undefined;
      }),

    boolean: (name: string, fallback: boolean) =>
      read(name, fallback, "True or False", (value) =>
        /^(true|1|yes|on)$/i.test(value) ? true : /^(false|0|no|off)$/i.test(value) ? false : undefined,
      ),

    choice: <const Choice extends string>(name: string, choices: readonly Choice[], fallback: Choice) =>
      read(name, fallback, `one of ${choices.join(", ")}`, (value) =>
        choices.find((choice) => choice.toLowerCase() === value.toLowerCase()),
      ),

    url: (name: string) =>
      read<URL | undefined>(name, undefined, "a URL that begins with https:// or http://", (value) => {
        const url = URL.parse(value);
        return url && /^https?:$/.test(url.protocol) ? url : undefined;
      }),

    hostAndPort: (name: string) =>
      read<string | undefined>(name, undefined, "host:port, such as 127.0.0.1:5488", (value) =>
        /^[\w.-]+:\d{1,5}$/.test(value) ? value : undefined,
      ),

    origins(name: string, fallback: string, production: boolean): string[] {
      const { origins, mistakes: found } = parseOrigins(text(name) ?? fallback);
      for (const mistake of found) mistakes.push(`${name} ${mistake}`);
      if (production && origins.includes("*"))
        mistakes.push(`${name} must name each origin: "*" lets in every site, and is for development only`);
      return origins;
    },

    database(name: string, production: boolean, viaNeon: boolean): DatabaseSettings {
      const driver = settings.choice("DB_DRIVER", ["auto", "tcp", "neon"], "auto");
      const prepared = settings.choice("DB_PREPARED_STATEMENTS", ["auto", "True", "False"], "auto");
      // Some ways of passing it on keep the quotes, and Neon's console shows it as an argument of psql.
      const url = settings.secret(name)?.replace(/^(?:psql\s+)?(["']?)(.*)\1$/s, "$2");
      if (url === undefined) {
        if (production && !mistakes.some((mistake) => mistake.startsWith(name)))
          mistakes.push(`${name} is required: postgres://USER:PASSWORD@HOST/DATABASE`);
        return { driver: "embedded", directory: resolve(DATA_DIRECTORY) };
      }
      const path = /^pglite:\/\/(.+)$/.exec(url)?.[1];
      if (path !== undefined) return { driver: "embedded", directory: resolve(path) };
      const server = url === "memory://" ? [] : parseDatabaseUrl(url, readFile);
      if (Array.isArray(server)) {
        mistakes.push(...server.map((mistake) => `${name} ${mistake}`));
        return { driver: "embedded", directory: undefined };
      }
      const isNeon =
        driver === "auto" ? viaNeon || new URL(server.url).hostname.endsWith(".neon.tech") : driver === "neon";
      const prepare = prepared === "auto" ? server.prepare : prepared === "True";
      return { ...server, driver: isNeon ? "neon" : "postgres", prepare };
    },
  };
  return settings;
}

function faultsOfSecret(secret: string, algorithm: Algorithm): string[] {
  const advice = "make one with: openssl rand -base64 48";
  const least = SECRET_BYTES[algorithm];
  if (isPlaceholder(secret)) return [`BETTER_AUTH_SECRET is a placeholder: ${advice}`];
  if (Buffer.byteLength(secret) < least)
    return [`BETTER_AUTH_SECRET must be at least ${least} bytes for ${algorithm}: ${advice}`];
  return [];
}

/** The values that examples and tutorials carry (Better Auth's own default among them), and monotonous ones. */
const isPlaceholder = (secret: string) =>
  /change.?(me|this|in.prod)|your.{0,20}(secret|key)|(secret|key).?here|placeholder|replace.?(me|with)|example|insecure|default.?secret|super.?secret|better-auth-secret|min(imum)?.?32|at.?least.?32|^x+$/i.test(
    secret,
  ) || new Set(secret).size < 8;
