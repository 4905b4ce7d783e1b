import type { JWTPayload, JWTVerifyOptions } from "jose";
import { createLocalJWKSet, errors, jwtVerify } from "jose";

/** All in milliseconds: keys this old are renewed in the background, and not used unless renewal fails. */
const RENEW_AFTER = 300_000;
const FRESH_FOR = 600_000;
/** How long nothing is asked again: for a key that wasn't there, after a failure, and while there are no keys. */
const COOLDOWN = 30_000;
const COOLDOWN_WITHOUT_KEYS = 1_000;
const TIMEOUT = 3_000;
/** In bytes. */
const MAX_SIZE = 65_536;

/** No keys are known, and none can be had. */
export class JwksUnreachable extends Error {}

type Keys = ReturnType<typeof createLocalJWKSet>;

/**
 * The keys published at a URL. jose's own remote set asks at every request while the server is down, and forgets
 * what it had; these outlive an outage, and no caller can make us ask more than once in 30 seconds.
 */
export function remoteKeys(url: URL) {
  let keys: Keys | undefined;
  let askedAt = Number.NEGATIVE_INFINITY;
  /** Of its own, so that a key made just after a renewal is found at once. */
  let askedForKeyAt = Number.NEGATIVE_INFINITY;
  let freshUntil = 0;
  let pending: Promise<void> | undefined;

  async function renew(): Promise<void> {
    if (
      pending === undefined &&
      Date.now() - askedAt < (keys === undefined ? COOLDOWN_WITHOUT_KEYS : COOLDOWN)
    )
      return;
    await ask();
  }

  async function renewForKey(): Promise<void> {
    if (pending === undefined && Date.now() - askedForKeyAt < COOLDOWN) return;
    askedForKeyAt = Date.now();
    await ask();
  }

  /** Concurrent callers share one request. A failure leaves the keys as they were. */
  function ask(): Promise<void> {
    if (pending !== undefined) return pending;
    const now = Date.now();
    askedAt = now;
    pending = download(url)
      .then(
        (downloaded) => {
          keys = downloaded;
          freshUntil = now + FRESH_FOR;
        },
        () => {},
      )
      .finally(() => {
        pending = undefined;
      });
    return pending;
  }

  return {
    /** Until when, in milliseconds since 1970, a verified token need not be verified again. */
    freshUntil: () => freshUntil,

    /**
     * @throws {JwksUnreachable} when there is nothing to check against.
     * @throws {errors.JOSEError} when the token is not right.
     */
    async verify(token: string, options: JWTVerifyOptions): Promise<JWTPayload> {
      const now = Date.now();
      if (now >= freshUntil) await renew();
      else if (now >= freshUntil - (FRESH_FOR - RENEW_AFTER)) void renew();
      if (keys === undefined) throw new JwksUnreachable();
      try {
        return (await jwtVerify(token, keys, options)).payload;
      } catch (error) {
        const tried = keys;
        if (!(error instanceof errors.JWKSNoMatchingKey)) throw error;
        await renewForKey();
        if (keys === tried) throw error;
        return (await jwtVerify(token, keys, options)).payload;
      }
    },
  };
}

/** A redirect, an error, an answer too large or one that holds no keys is a failure like any other. */
async function download(url: URL): Promise<Keys> {
  const answer = await fetch(url, { redirect: "error", signal: AbortSignal.timeout(TIMEOUT) });
  if (!answer.ok || answer.body === null) throw new Error("no keys");
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of answer.body) {
    size += chunk.byteLength;
    if (size > MAX_SIZE) throw new Error("too large");
    chunks.push(chunk);
  }
  return createLocalJWKSet(JSON.parse(Buffer.concat(chunks).toString()));
}
