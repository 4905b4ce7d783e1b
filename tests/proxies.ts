import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { findProgram, folder, freePort, startProgram, unprivileged } from "./programs.ts";

/** The reverse proxies of this machine: what people put in front of the service. */
export const hasNginx = findProgram("nginx") !== undefined;
export const hasHaproxy = findProgram("haproxy") !== undefined;

/**
 * How nginx passes a request on: as it does by itself (HTTP/1.0 and `Connection: close`, whatever its `upstream` says
 * of keeping connections), or as its manual advises.
 */
export const NGINX = {
  plain: "proxy_pass http://tasks;",
  keepingConnections: `proxy_pass http://tasks;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      proxy_set_header X-Request-Id $request_id;
      gzip on;
      gzip_types application/json;`,
};

/** nginx in front of the service. It keeps up to 32 connections to it, each for 60 s after its last request. */
export async function startNginx(service: string, location: string) {
  const port = await freePort();
  return start("nginx", port, (directory) => ({
    words: ["-e", "stderr", "-p", directory, "-c"],
    configuration: `
daemon off;
pid ${directory}/pid;
error_log stderr crit;
events { worker_connections 1024; }
http {
  access_log off;
  ${["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((kind) => `${kind}_temp_path ${directory}/${kind};`).join("\n  ")}
  upstream tasks { server 127.0.0.1:${new URL(service).port}; keepalive 32; keepalive_timeout 60s; }
  server {
    listen 127.0.0.1:${port};
    location / {
      ${location}
    }
  }
}
`,
  }));
}

/** HAProxy, sharing connections to the service among all clients. */
export async function startHaproxy(service: string) {
  const port = await freePort();
  return start("haproxy", port, () => ({
    words: ["-db", "-f"],
    configuration: `
defaults
  mode http
  timeout connect 2s
  timeout client 30s
  timeout server 30s
  http-reuse always
frontend here
  bind 127.0.0.1:${port}
  default_backend tasks
backend tasks
  server one 127.0.0.1:${new URL(service).port}
`,
  }));
}

type Setup = (directory: string) => { words: string[]; configuration: string };

async function start(name: string, port: number, setup: Setup) {
  const program = findProgram(name);
  if (program === undefined) throw new Error(`no ${name}`);
  const directory = folder(name);
  const { words, configuration } = setup(directory);
  const file = join(directory, "configuration");
  writeFileSync(file, configuration);
  const running = await startProgram(unprivileged([program, ...words, file]), port, directory);
  return { url: `http://127.0.0.1:${port}`, stop: running.stop };
}
