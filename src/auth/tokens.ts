import type { JWTPayload, JWTVerifyOptions } from "jose";
import { errors } from "jose";
import type { Config } from "../config.ts";
import { remoteKeys } from "./jwks.ts";

/** Clocks differ: a token's times may be off by so much. */
const LEEWAY_S = 30;
/** How many verified tokens are remembered. */
const CACHE_SIZE = 10_000;
/** What a key of a JWKS may have signed with. */
const ASYMMETRIC = ["EdDSA", "ES256", "ES512", "RS256", "PS256"];

interface Verified {
  userId: string;
  /** In milliseconds since 1970: from then on the token must be verified again. */
  validUntil: number;
  /** Whether it was used since it was remembered, or since it was last spared. */
  used: boolean;
}

/**
 * Why a token is not taken: for the log, never for the caller. examples/nextjs/README.md explains every `reason`. What
 * varies from token to token is apart from it, in `detail`, so that equal ones are counted together.
 */
interface Refusal {
  reason: string;
  detail: string | undefined;
  /** The keys can't be had just now: the token may well be valid. */
  unreachable?: true;
}

const refuse = (reason: string, detail?: string): Refusal => ({ reason, detail });

/** Checks the signature and the claims named in the options. False if any of it fails. */
type Verify = (token: string, options: JWTVerifyOptions) => Promise<JWTPayload | false>;

/**
 * Decides whether a token is one of ours: `JWT_ALGORITHM` or a published key's, `exp` present and not too far ahead,
 * `nbf` and `iat` not in the future, a `sub`, strict base64url. The signature comes last, since it costs most.
 *
 * A token that passed is remembered by its SHA-256, so that neither its text nor its length (up to 16 KiB) stays in
 * memory.
 */
export function tokenVerifier(settings: Config["jwt"]) {
  const verified = new Map<string, Verified>();
  const jwks = settings.jwks && { ...settings.jwks, verify: remoteKeys(settings.jwks.url) };

  return async (token: string | undefined, verify: Verify): Promise<Verified | Refusal> => {
    if (token === undefined) return refuse("there is no bearer token");
    const now = Date.now();
    const digest = Bun.CryptoHasher.hash("sha256", token, "base64");
    const known = verified.get(digest);
    if (known !== undefined && known.validUntil > now) {
      known.used = true;
      return known;
    }
    const result = await check(token, verify, now / 1000);
    if ("userId" in result) remember(digest, result);
    return result;
  };

  /**
   * Makes room by dropping the oldest, unless it was used since: then it goes to the back (second chance). So tokens
   * that are used once don't push out those in use, and a hit moves nothing.
   */
  function remember(digest: string, token: Verified) {
    for (const [oldest, spared] of verified) {
      if (verified.size < CACHE_SIZE) break;
      verified.delete(oldest);
      if (spared.used) verified.set(oldest, { ...spared, used: false });
    }
    verified.set(digest, token);
  }

  async function check(token: string, verify: Verify, now: number): Promise<Verified | Refusal> {
    const parts = token.split(".", 4);
    if (parts.length !== 3) return refuse("the token is not a JWT: is it Better Auth's session token?");
    const bytes = parts.map((part) => Buffer.from(part, "base64url"));
    // There is one way to write these bytes: no padding, no stray bits at the end (RFC 7515, section 2).
    if (bytes.some((part, index) => part.toString("base64url") !== parts[index]))
      return refuse("the token is not strict base64url");
    const [header, claims] = bytes.slice(0, 2).map(membersOf);
    if (header === undefined || claims === undefined) return refuse("the token is not JSON in UTF-8");

    const { alg } = header;
    const published = ASYMMETRIC.some((name) => name === alg);
    const expected = published ? jwks : settings.secret && settings;
    // The header is the caller's text: only what could be an algorithm's name goes into the log.
    const signed = `it is signed ${typeof alg === "string" && /^\w{4,5}$/.test(alg) ? alg : "strangely"}`;
    if (!expected)
      return published
        ? refuse("the token needs BETTER_AUTH_JWKS_URL, which is not set", signed)
        : refuse("the token needs BETTER_AUTH_SECRET, which is not set", signed);
    if (!published && alg !== settings.algorithm)
      return refuse("the token is not signed with JWT_ALGORITHM", `${signed}, not ${settings.algorithm}`);
    if (header.crit !== undefined) return refuse("the token's crit demands an extension, and there is none here");

    const { exp, iat, nbf, sub } = claims;
    if (typeof sub !== "string" || sub === "")
      return refuse("the token has no sub: is it from an e-mail-verification link?");
    if (typeof exp !== "number" || !Number.isFinite(exp)) return refuse("the token has no exp");
    if (exp <= now - LEEWAY_S) return refuse("the token has expired", `${Math.round(now - exp)} s ago`);
    if (exp > now + settings.maxLifetimeSeconds + LEEWAY_S)
      return refuse("the token expires further ahead than JWT_EXPIRATION_DELTA");
    for (const [name, time] of Object.entries({ iat, nbf }))
      if (time !== undefined && !(typeof time === "number" && time <= now + LEEWAY_S))
        return refuse("the token is not valid yet: are the clocks right?", `by its ${name}`);

    const byDefault = published ? "by default the origin of BETTER_AUTH_JWKS_URL" : undefined;
    if (expected.issuer && claims.iss !== expected.issuer)
      return refuse("the token's iss is not JWT_ISSUER", byDefault);
    if (expected.audience && ![claims.aud].flat().includes(expected.audience))
      return refuse("the token's aud is not JWT_AUDIENCE", byDefault);

    const validUntil = (exp + LEEWAY_S) * 1000;
    const options = { algorithms: published ? ASYMMETRIC : [settings.algorithm], clockTolerance: LEEWAY_S };
    // A token that needs a published key was refused above where there are none: it never gets here.
    if (!published || jwks === undefined)
      return (await verify(token, options))
        ? { userId: sub, validUntil, used: false }
        : refuse("the token's signature does not match BETTER_AUTH_SECRET");
    try {
      const keyValidUntil = await jwks.verify(token, options);
      if (keyValidUntil === undefined)
        return { ...refuse("BETTER_AUTH_JWKS_URL can't be reached, or is no JWKS"), unreachable: true };
      return { userId: sub, validUntil: Math.min(validUntil, keyValidUntil), used: false };
    } catch (error) {
      // jose's errors quote the token: only their kind is used.
      return error instanceof errors.JWKSNoMatchingKey
        ? refuse("the token's key is not at BETTER_AUTH_JWKS_URL")
        : refuse("the token's signature does not match its key at BETTER_AUTH_JWKS_URL");
    }
  }
}

/** Stricter than jose, which skips a byte order mark. */
const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** JSON that is no object has no members, so it is refused for the ones that it lacks. */
function membersOf(json: Uint8Array): Record<string, unknown> | undefined {
  try {
    return Object(JSON.parse(UTF8.decode(json)));
  } catch {
    return undefined;
  }
}
