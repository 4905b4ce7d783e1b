import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { SignJWT } from "jose";
import { type Config, DATA_DIRECTORY, localAddress } from "./config.ts";

/** The user of the first `curl`. */
const DEMO_USER = "demo";

/** In development, without a key to check tokens by, adds a secret: made at the first start, and kept for its owner. */
export function withDevelopmentSecret(config: Config): Config {
  if (config.production || config.jwt.secret || config.jwt.jwks) return config;
  return { ...config, jwt: { ...config.jwt, secret: keptSecret(resolve(DATA_DIRECTORY)) } };
}

function keptSecret(directory: string): string {
  const file = join(directory, "secret");
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    // 64 bytes of text: enough for HS512 as well.
    const secret = Buffer.from(crypto.getRandomValues(new Uint8Array(48))).toString("base64url");
    writeFileSync(file, secret, { flag: "wx", mode: 0o600 });
    return secret;
  } catch (error) {
    const kept = existsSync(file) ? readFileSync(file, "utf8").trim() : "";
    if (kept !== "") return kept;
    // A full disk leaves an empty file, which the next start would take for the secret.
    rmSync(file, { force: true });
    throw new Error(`The secret for development can't be kept in ${directory}: ${error}`);
  }
}

/** Signs a token for `userId` as Better Auth does with the shared secret. For development and tests. */
export const signToken = (
  userId: string,
  { algorithm, secret, issuer, audience, maxLifetimeSeconds }: Config["jwt"],
) => {
  const now = Math.floor(Date.now() / 1000);
  const claims = { sub: userId, iat: now, exp: now + maxLifetimeSeconds };
  return new SignJWT({ ...claims, ...(issuer && { iss: issuer }), ...(audience && { aud: audience }) })
    .setProtectedHeader({ alg: algorithm, typ: "JWT" })
    .sign(new TextEncoder().encode(secret));
};

/** What a newcomer needs to know. Holds a working token, so it is for development only. */
export async function welcome({ jwt, host }: Config, port: number, database: string): Promise<string> {
  const address = localAddress({ host, port });
  const lines = [`  Tasks API  ${address}`, `  Docs       ${address}/docs`, `  Data       ${database}`];
  if (jwt.secret)
    lines.push(
      "",
      `  Try it, as the user "${DEMO_USER}":`,
      "",
      `  curl ${address}/api/${DEMO_USER}/tasks -H 'Content-Type: application/json' -d '{"title":"Buy milk"}' \\`,
      `    -H 'Authorization: Bearer ${await signToken(DEMO_USER, jwt)}'`,
    );
  return `\n${lines.join("\n")}\n\n`;
}
