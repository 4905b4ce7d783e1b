import type { JWTPayload, JWTVerifyOptions } from "jose";
import { decodeJwt, decodeProtectedHeader, errors, SignJWT } from "jose";
import type { Config } from "../config.ts";
import { JwksUnreachable, remoteKeys } from "./jwks.ts";

/** Clocks differ: how far a token's times may be off, in seconds. */
const LEEWAY = 30;
/** How many verified tokens are remembered. */
const CACHE_SIZE = 10_000;
/** What a key of a JWKS may have signed with. */
const ASYMMETRIC = ["EdDSA", "ES256", "ES512", "RS256", "PS256"];

/** What a valid token says: whose it is, and when it expires (seconds since 1970). */
export interface Session {
  userId: string;
  expires: number;
  /** When its key may have been withdrawn, so that the token must be verified again. */
  revalidateAt: number;
}

/** Why a token is not taken: for the log, never for the caller. */
export interface Refusal {
  reason: string;
  /** What varies from token to token: apart from the reason, so that equal ones are counted together. */
  detail?: string;
  /** There is nothing to check the token against just now: it may well be valid. */
  unreachable?: true;
}

/** Checks the signature and the claims named in the options. False if any of it fails. */
type Verify = (token: string, options: JWTVerifyOptions) => Promise<JWTPayload | false>;

/**
 * Decides whether a token is one of ours, as the contract says: the configured algorithm and no other, `exp`
 * present and not too far ahead, `nbf` and `iat` not in the future, a `sub`, strict base64url.
 *
 * A token that passed is remembered until it expires, by its exact text: checking a signature costs 18 µs,
 * finding it here a tenth of one.
 */
export function tokenVerifier(settings: Config["jwt"]) {
  const sessions = new Map<string, Session>();
  const jwks = settings.jwks && { ...settings.jwks, keys: remoteKeys(settings.jwks.url) };

  return async (token: string, verify: Verify): Promise<Session | Refusal> => {
    const now = Date.now() / 1000;
    const known = sessions.get(token);
    if (known !== undefined) {
      if (known.expires > now - LEEWAY && known.revalidateAt > now) return known;
      sessions.delete(token);
    }
    const session = await check(token, verify, now);
    if ("userId" in session) {
      const oldest = sessions.size < CACHE_SIZE ? undefined : sessions.keys().next().value;
      if (oldest !== undefined) sessions.delete(oldest);
      sessions.set(token, session);
    }
    return session;
  };

  async function check(token: string, verify: Verify, now: number): Promise<Session | Refusal> {
    const parts = token.split(".");
    if (parts.length !== 3) return { reason: "the token is not a JWT: is it Better Auth's session token?" };
    if (!parts.every(isCanonical)) return { reason: "the token is not strict base64url" };
    const { header, claims } = decode(token);
    if (header === undefined || claims === undefined) return { reason: "the token can't be decoded" };

    const published = ASYMMETRIC.includes(header.alg ?? "");
    if (published && jwks === undefined)
      return { reason: `the token is signed ${header.alg}, and BETTER_AUTH_JWKS_URL is not set` };
    if (!published && settings.secret === undefined)
      return {
        reason: `the token is signed ${algorithmName(header.alg)}, and BETTER_AUTH_SECRET is not set`,
      };
    if (!published && header.alg !== settings.algorithm)
      return {
        reason: `the token is signed ${algorithmName(header.alg)}, and JWT_ALGORITHM is ${settings.algorithm}`,
      };
    const { exp, iat, nbf, sub } = claims;
    if (typeof sub !== "string" || sub === "")
      return { reason: "the token has no `sub`: is it from an e-mail-verification link?" };
    if (typeof exp !== "number" || !Number.isFinite(exp)) return { reason: "the token has no `exp`" };
    if (exp <= now - LEEWAY)
      return { reason: "the token has expired", detail: `${Math.round(now - exp)} s ago` };
    if (exp > now + settings.maxLifetimeSeconds + LEEWAY)
      return { reason: "the token expires further ahead than JWT_EXPIRATION_DELTA" };
    for (const [name, time] of Object.entries({ iat, nbf }))
      if (time !== undefined && !(typeof time === "number" && time <= now + LEEWAY))
        return { reason: `the token's \`${name}\` is in the future: are the clocks right?` };

    const expected = published ? jwks : settings;
    if (expected?.issuer && claims.iss !== expected.issuer)
      return { reason: `the token's \`iss\` is not JWT_ISSUER${published ? BY_DEFAULT : ""}` };
    if (expected?.audience && ![claims.aud].flat().includes(expected.audience))
      return { reason: `the token's \`aud\` is not JWT_AUDIENCE${published ? BY_DEFAULT : ""}` };

    const common = { requiredClaims: ["exp", "sub"], clockTolerance: LEEWAY };
    if (published && jwks) {
      try {
        await jwks.keys.verify(token, { ...common, algorithms: ASYMMETRIC });
        return { userId: sub, expires: exp, revalidateAt: jwks.keys.freshUntil() / 1000 };
      } catch (error) {
        if (error instanceof JwksUnreachable)
          return { reason: "BETTER_AUTH_JWKS_URL can't be reached, or is no JWKS", unreachable: true };
        return { reason: reasonOf(error) };
      }
    }
    if ((await verify(token, { ...common, algorithms: [settings.algorithm] })) === false)
      return { reason: "the token's signature does not match BETTER_AUTH_SECRET" };
    return { userId: sub, expires: exp, revalidateAt: Number.POSITIVE_INFINITY };
  }
}

const BY_DEFAULT = ", by default the origin of BETTER_AUTH_JWKS_URL";

/** jose's errors quote the token: only their kind is used. */
const reasonOf = (error: unknown) =>
  error instanceof errors.JWKSNoMatchingKey
    ? "the token's key is not at BETTER_AUTH_JWKS_URL"
    : "the token's signature does not match its key at BETTER_AUTH_JWKS_URL";

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

/** The one way to write these bytes: no padding, no stray bits at the end (RFC 7515, section 2). */
const isCanonical = (part: string) => Buffer.from(part, "base64url").toString("base64url") === part;

function decode(token: string) {
  try {
    return { header: decodeProtectedHeader(token), claims: decodeJwt(token) };
  } catch {
    return {};
  }
}

/** A name out of a token may go into the log only if it is an algorithm's. */
const algorithmName = (algorithm: unknown) =>
  typeof algorithm === "string" && /^(HS|RS|PS|ES)(256|384|512)$|^EdDSA$|^none$/.test(algorithm)
    ? algorithm
    : "in an unknown way";
