import { jwt } from "@elysiajs/jwt";
import { Elysia } from "elysia";
import type { Config } from "../config.ts";
import { problem } from "../http/problem.ts";
import { type Logger, throttled } from "../log.ts";
import { tokenVerifier } from "./tokens.ts";

declare const admitted: unique symbol;
/** The id of a caller who was admitted. No other string is one, so nothing reaches a user's tasks past `auth`. */
export type UserId = string & { readonly [admitted]: true };

/**
 * Admits a token's owner to their own URL, and nobody else: 401 without a valid token, 403 unless its `sub` is
 * the `user_id` of the path. What is registered behind this has `userId`, and there is no other source of it.
 * A `derive`, since Elysia runs those before it validates: a stranger learns nothing from a 422.
 */
export const auth = (settings: Config["jwt"], log: Logger) => {
  const verify = tokenVerifier(settings);
  const logRefusal = throttled(log.warning);
  return new Elysia({ name: "auth" })
    .use(jwt({ name: "jwt", secret: settings.secret ?? UNUSED, alg: settings.algorithm }))
    .derive({ as: "scoped" }, async ({ jwt, request, params, path, set }) => {
      const verified = await verify(bearerToken(request.headers.get("authorization")), jwt.verify);
      if ("reason" in verified) {
        const { reason, detail } = verified;
        const message = `refused: ${detail === undefined ? reason : `${reason} (${detail})`}`;
        logRefusal(reason, { request_id: set.headers["x-request-id"] }, message);
        if (verified.unreachable)
          return problem({ set }, 503, "Sign-ins can't be checked just now: try again in a few seconds");
        set.headers["www-authenticate"] = "Bearer";
        return problem({ set }, 401, "Sign in: a valid bearer token is required");
      }
      if (verified.userId !== params.user_id || wasUndecodable(params.user_id, path))
        return problem({ set }, 403, "These are not your tasks");
      // The one place where an id becomes a caller's: everything above has been checked.
      return { userId: verified.userId as UserId };
    });
};

/** The plugin insists on a secret. Where none is configured no token is ever checked with this one. */
const UNUSED = crypto.randomUUID();

/** RFC 6750, section 2.1; the scheme is case-insensitive (RFC 9110, section 11.1). */
const bearerToken = (authorization: string | null) => /^bearer +(\S+)$/i.exec(authorization ?? "")?.[1];

/** What can't be decoded arrives as U+FFFD. Such an id is right only if the path itself was written with that. */
const wasUndecodable = (id: string, path: string) =>
  id.includes("\ufffd") && id.split("\ufffd").length !== path.split("/")[2]?.split(/%ef%bf%bd/i).length;
