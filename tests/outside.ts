import { atEnd } from "./harness.ts";

/**
 * Whether the tests may leave the repository: with `TEST_OUTSIDE=1` they install from the npm registry, build and
 * run what others make for this service, in folders of their own. That takes minutes, and once is enough.
 */
export const outside = process.env.TEST_OUTSIDE === "1";

const ENVIRONMENT = { PATH: process.env.PATH, HOME: process.env.HOME, NEXT_TELEMETRY_DISABLED: "1", CI: "1" };

/** Runs a command to its end. Returns what it printed; throws that if it fails. */
export async function run(cwd: string, command: string[], environment: Record<string, string> = {}) {
  const child = Bun.spawn(command, {
    cwd,
    env: { ...ENVIRONMENT, ...environment },
    stdout: "pipe",
    stderr: "pipe",
  });
  const [out, err, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  if (code !== 0) throw new Error(`${command.join(" ")} ended with ${code}:\n${out}${err}`);
  return out;
}

/** Starts a command that goes on, once it has printed `ready`. It is ended with the tests. */
export async function background(
  cwd: string,
  command: string[],
  ready: RegExp,
  environment: Record<string, string> = {},
) {
  const env = { ...ENVIRONMENT, ...environment };
  const child = Bun.spawn(command, { cwd, env, stdout: "pipe", stderr: "inherit" });
  const stop = async () => {
    child.kill();
    await child.exited;
  };
  atEnd(stop);
  let printed = "";
  const started = Promise.withResolvers<void>();
  (async () => {
    for await (const chunk of child.stdout.pipeThrough(new TextDecoderStream())) {
      printed += chunk;
      if (ready.test(printed)) started.resolve();
    }
    started.reject(new Error(`${command.join(" ")} ended:\n${printed}`));
  })();
  await started.promise;
  return { stop, printed: () => printed };
}

/** A port that nothing listens on just now. */
export function freePort(): number {
  const server = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: () => new Response() });
  const { port = 0 } = server;
  void server.stop(true);
  return port;
}
