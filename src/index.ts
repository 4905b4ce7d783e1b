import { version } from "../package.json";
import { ConfigError, loadConfig } from "./config.ts";
import { connect, migrate } from "./db/index.ts";
import { withDevelopmentSecret } from "./development.ts";
import { serve } from "./serve.ts";
import { signToken } from "./tokens.ts";

const HELP = `Tasks API ${version}

  serve            run the service (also without a word)
  migrate          bring the database's schema up to date, and end
  token USER_ID    print a token for that user (development only)
  --version        print the version
  --help           print this

Settings come from the environment: see README.md.
`;

/** What each word does. What it returns is printed. */
const commands: Record<string, (argument: string | undefined) => Promise<string> | string> = {
  async serve() {
    await serve(settings());
    return "";
  },

  async migrate() {
    const db = await connect(settings().database);
    await migrate(db);
    await db.close();
    return `The schema is up to date: ${db.label}`;
  },

  async token(userId) {
    const config = settings();
    if (userId === undefined) throw new UsageError("token needs a USER_ID");
    if (config.production)
      throw new UsageError("token is for development only: in production, Better Auth signs");
    if (!config.jwt.secret)
      throw new UsageError("token needs BETTER_AUTH_SECRET: a JWKS holds no private key");
    return signToken(userId, config.jwt);
  },

  "--version": () => version,
  "--help": () => HELP,
};

class UsageError extends Error {}

const settings = () => withDevelopmentSecret(loadConfig(process.env));

async function main([word = "serve", argument]: string[]): Promise<number> {
  try {
    const command = Object.hasOwn(commands, word) ? commands[word] : undefined;
    if (command === undefined) throw new UsageError(`there is no "${word}"\n\n${HELP}`);
    const result = await command(argument);
    if (result !== "") process.stdout.write(`${result}\n`);
    return 0;
  } catch (error) {
    const expected = error instanceof ConfigError || error instanceof UsageError;
    process.stderr.write(`${error instanceof Error ? error.message : error}\n`);
    return expected ? 2 : 1;
  }
}

process.exit(await main(process.argv.slice(2)));
