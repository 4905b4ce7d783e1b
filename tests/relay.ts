/**
 * A TCP relay on loopback in front of a server, that fails as networks do. All of its round trip, in milliseconds,
 * is on the way there.
 */
export function relay(target: number, { hostname = "127.0.0.1", roundTrip = 0 } = {}) {
  type Peer = Bun.Socket<{
    other?: Bun.Socket<unknown>;
    waiting: Uint8Array[];
    delay: number;
    answers?: boolean;
  }>;
  const open = new Set<Peer>();
  const frozen = new WeakSet<Peer>();
  let state: "open" | "stalled" | "refusing" = "open";
  let deaf = false;

  const forward = (socket: Peer) => {
    while (state === "open" && !frozen.has(socket) && socket.data.waiting[0]) {
      const chunk = socket.data.waiting[0];
      const written = Math.max(socket.data.other?.write(chunk) ?? 0, 0);
      if (written < chunk.length) {
        socket.data.waiting[0] = chunk.subarray(written);
        return;
      }
      socket.data.waiting.shift();
    }
  };
  const handlers = {
    data(socket: Peer, chunk: Uint8Array) {
      if (deaf && socket.data.answers) return;
      const copy = new Uint8Array(chunk);
      const arrive = () => {
        socket.data.waiting.push(copy);
        forward(socket);
      };
      if (socket.data.delay === 0) arrive();
      else setTimeout(arrive, socket.data.delay);
    },
    drain(socket: Peer) {
      if (socket.data.other) forward(socket.data.other as Peer);
    },
    close(socket: Peer) {
      open.delete(socket);
      socket.data.other?.end();
    },
    error() {},
  };
  const server = Bun.listen<Peer["data"]>({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      ...handlers,
      async open(socket) {
        socket.data = { waiting: [], delay: roundTrip };
        if (state === "refusing") return void socket.terminate();
        open.add(socket);
        const other = await Bun.connect<Peer["data"]>({
          hostname,
          port: target,
          data: { waiting: [], other: socket, delay: 0, answers: true },
          socket: handlers,
        }).catch(() => undefined);
        if (other === undefined) return void socket.terminate();
        open.add(other);
        socket.data.other = other;
        forward(socket);
      },
    },
  });
  return {
    port: server.port,
    /** Every connection ends at once, and new ones do. */
    cut() {
      state = "refusing";
      for (const socket of open) socket.terminate();
    },
    /** Connections stay, and nothing goes through them any more. */
    stall() {
      state = "stalled";
    },
    /** Nothing goes any more through the connections that are open now. New ones work. */
    freeze() {
      for (const socket of open) frozen.add(socket);
    },
    /** What is sent arrives, and its answers get lost. */
    deafen() {
      deaf = true;
    },
    restore() {
      state = "open";
      deaf = false;
      for (const socket of open) forward(socket);
    },
    stop: () => server.stop(true),
  };
}
