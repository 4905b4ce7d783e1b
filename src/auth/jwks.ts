import type { FetchImplementation, JWTVerifyOptions } from "jose";
import { createRemoteJWKSet, customFetch, errors, jwtVerify } from "jose";

/** Keys this old are renewed, and go on being used meanwhile. */
const RENEW_AFTER_MS = 300_000;
/** The pause after a failed renewal, and before a key that isn't there is asked for again. */
const COOLDOWN_MS = 30_000;
/** The pause after a failure while there are no keys at all. */
const COOLDOWN_WITHOUT_KEYS_MS = 1_000;
const TIMEOUT_MS = 3_000;
const MAX_CHARACTERS = 65_536;

/**
 * The keys published at a URL. jose downloads and selects them. When to ask is decided here: by jose's own rules every
 * request would wait for a server that hangs, and ask one that fails again. Here a token whose key is known never
 * waits, and no caller can make us ask for an unknown one more than once in 30 seconds.
 */
export function remoteKeys(url: URL) {
  const keys = createRemoteJWKSet(url, {
    cacheMaxAge: Number.POSITIVE_INFINITY,
    cooldownDuration: Number.POSITIVE_INFINITY,
    timeoutDuration: TIMEOUT_MS,
    [customFetch]: fetchBounded,
  });
  let renewAt = 0;
  let askForKeyAt = 0;

  /** Concurrent callers share one request. A failure leaves the keys as they were. */
  async function renew(): Promise<void> {
    const renewed = await keys.reload().then(
      () => true,
      () => false,
    );
    // Keys never age for jose: `fresh` says that there are any.
    renewAt = Date.now() + (renewed ? RENEW_AFTER_MS : keys.fresh ? COOLDOWN_MS : COOLDOWN_WITHOUT_KEYS_MS);
  }

  /**
   * Returns until when the token's key counts as published, in milliseconds since 1970. Undefined if there are no keys
   * to check against. Fails as jose does if the token is not right.
   */
  return async function verify(token: string, options: JWTVerifyOptions): Promise<number | undefined> {
    if (Date.now() >= renewAt) {
      const renewal = renew();
      if (!keys.fresh) await renewal;
    }
    if (!keys.fresh) return undefined;
    // As it is now: the keys may be replaced while the signature is checked.
    const validUntil = renewAt;
    try {
      await jwtVerify(token, keys, options);
      return validUntil;
    } catch (error) {
      if (!(error instanceof errors.JWKSNoMatchingKey)) throw error;
      if (Date.now() < askForKeyAt && !keys.reloading) throw error;
      askForKeyAt = Date.now() + COOLDOWN_MS;
      await renew();
      return verify(token, options);
    }
  };
}

/** jose takes an answer of any size. It refuses redirects, other statuses and what isn't keys by itself. */
const fetchBounded: FetchImplementation = async (url, options) => {
  const { body, status } = await fetch(url, options);
  let text = "";
  for await (const chunk of body?.pipeThrough(new TextDecoderStream()) ?? []) {
    text += chunk;
    if (text.length > MAX_CHARACTERS) throw new Error("the JWKS is too large");
  }
  return new Response(text, { status });
};
