/** A WebSocket in front of TCP, on loopback only: lets Neon's driver reach an ordinary Postgres (`NEON_WSPROXY`). */
export function neonProxy() {
  interface Data {
    address: string;
    waiting: Uint8Array[];
    tcp?: Bun.Socket<unknown>;
  }
  const open = new Set<Bun.ServerWebSocket<Data>>();
  /** Writes what the kernel takes, and keeps the rest for later. */
  const flush = ({ tcp, waiting }: Data) => {
    while (tcp && waiting[0]) {
      const written = tcp.write(waiting[0]);
      if (written < waiting[0].length) {
        waiting[0] = waiting[0].subarray(Math.max(written, 0));
        return;
      }
      waiting.shift();
    }
  };
  const server = Bun.serve<Data, never>({
    hostname: "127.0.0.1",
    port: 0,
    fetch(request, server) {
      const address = new URL(request.url).searchParams.get("address") ?? "";
      if (!server.upgrade(request, { data: { address, waiting: [] } })) return new Response(null, { status: 400 });
    },
    websocket: {
      async open(ws) {
        open.add(ws);
        const [, port] = ws.data.address.split(":");
        try {
          ws.data.tcp = await Bun.connect({
            hostname: "127.0.0.1",
            port: Number(port),
            socket: {
              data: (_, chunk) => void ws.send(new Uint8Array(chunk)),
              drain: () => flush(ws.data),
              close: () => ws.close(),
              error: () => ws.close(),
            },
          });
          flush(ws.data);
        } catch {
          ws.close();
        }
      },
      message(ws, message) {
        ws.data.waiting.push(new Uint8Array(Buffer.from(message)));
        flush(ws.data);
      },
      close(ws) {
        open.delete(ws);
        ws.data.tcp?.end();
      },
    },
  });
  // What started it may end with it open.
  server.unref();
  return {
    address: `127.0.0.1:${server.port}`,
    /** Cuts every connection, as a network does. */
    cut() {
      for (const ws of open) ws.terminate();
    },
  };
}
