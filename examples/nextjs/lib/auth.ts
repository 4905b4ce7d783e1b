import { betterAuth } from "better-auth";
import { jwt } from "better-auth/plugins";
import { SignJWT } from "jose";
import { database } from "./database";

const baseURL = process.env.BETTER_AUTH_URL ?? "http://localhost:3000";
const secret = new TextEncoder().encode(process.env.BETTER_AUTH_SECRET);

export const auth = betterAuth({
  baseURL,
  database,
  emailAndPassword: { enabled: true },
  plugins: [
    // With no secret to share, `jwt()` alone would do, and BETTER_AUTH_JWKS_URL on the service's side.
    jwt({
      // Compulsory beside a `sign` of one's own. Nothing is ever fetched from there.
      jwks: { remoteUrl: `${baseURL}/unused`, keyPairConfig: { alg: "EdDSA" } },
      jwt: {
        sign: (claims) => new SignJWT(claims).setProtectedHeader({ alg: "HS256", typ: "JWT" }).sign(secret),
      },
    }),
  ],
});
