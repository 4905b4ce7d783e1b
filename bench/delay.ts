/** A network between the service and the database. All of its round trip, in milliseconds, is on the way there. */
export function delayed(url: string, roundTrip: number) {
  const target = new URL(url);
  type Peer = Bun.Socket<{ other: Promise<Bun.Socket<unknown>>; delay: number }>;
  const pass = async ({ data }: Peer, chunk: Uint8Array) => {
    const copy = new Uint8Array(chunk);
    const other = await data.other;
    if (data.delay === 0) write(other, copy);
    else setTimeout(() => write(other, copy), data.delay);
  };
  const socket = {
    data: pass,
    drain: (socket: Peer) => write(socket, new Uint8Array()),
    close: async ({ data }: Peer) => void (await data.other).end(),
    error() {},
  };
  const server = Bun.listen<Peer["data"]>({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      ...socket,
      open(near) {
        const far = Bun.connect<Peer["data"]>({
          hostname: target.hostname,
          port: Number(target.port || 5432),
          data: { other: Promise.resolve(near), delay: 0 },
          socket,
        });
        near.data = { other: far, delay: roundTrip };
      },
    },
  });
  const local = Object.assign(new URL(url), { hostname: "127.0.0.1", port: String(server.port) });
  return { url: local.href, stop: () => server.stop(true) };
}

const unsent = new WeakMap<object, Uint8Array[]>();

/** Writes what the socket takes, and keeps the rest until it takes more. */
function write(socket: Bun.Socket<unknown>, chunk: Uint8Array) {
  const queue = unsent.get(socket) ?? [];
  unsent.set(socket, queue);
  if (chunk.length > 0) queue.push(chunk);
  for (let first = queue[0]; first !== undefined; first = queue[0]) {
    const written = Math.max(socket.write(first), 0);
    if (written < first.length) {
      queue[0] = first.subarray(written);
      return;
    }
    queue.shift();
  }
}
