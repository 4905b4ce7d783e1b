import { SQL } from "bun";
import { drizzle } from "drizzle-orm/bun-sql";
import type { Config } from "../config.ts";
import {
  ANSWER_TIMEOUT_MS,
  addressOf,
  CONNECT_TIMEOUT_MS,
  type Database,
  DatabaseTimeout,
  IDLE_TIMEOUT_MS,
  type Query,
  STATEMENT_TIMEOUT_MS,
} from "./database.ts";
import type { Server } from "./url.ts";

/**
 * After how long without an answer a connection is passed over while there are others, in milliseconds. (A server
 * that is further away than that is asked over more connections than it need be.)
 */
const STALLED_AFTER = 5;

/**
 * An ordinary Postgres over TCP, through Bun's own driver. It prepares each statement once per connection, notices
 * connections that die and opens new ones as they are needed.
 *
 * Its own pool spreads statements over as many connections as there may be. But many sent on one connection are
 * written, run and read together: 64 clients that read a task each cost two thirds of the CPU here and half of
 * Postgres's if they share one, instead of 15. So quick statements share the first. The others wait for locks and
 * for the disk: each takes a connection that is free, as long as there is one, and the first such.
 */
export function postgres(
  { url, ca, prepare }: Server,
  { size, overflow, prePing, recycleSeconds }: Config["pool"],
): Database {
  const open = () =>
    new SQL({
      url,
      max: 1,
      ...(ca !== undefined && { tls: { ca } }),
      prepare: prepare ?? true,
      // What has been idle is given back, or with pre-ping off, kept.
      idleTimeout: prePing ? IDLE_TIMEOUT_MS / 1000 : 0,
      maxLifetime: recycleSeconds,
      connectionTimeout: CONNECT_TIMEOUT_MS / 1000,
      connection: { statement_timeout: STATEMENT_TIMEOUT_MS },
    });
  const connections = Array.from({ length: size + overflow }, () => connection(open));
  const shared = connections[0] as Connection;
  const others = connections.length > 1 ? connections.slice(1) : connections;

  const forOthers = () => {
    const best = leastLoaded(others);
    return best.load() < STALLED ? best : leastLoaded(connections);
  };
  const forQuick = () => (shared.load() < STALLED ? shared : forOthers());

  // As much of Bun's client as Drizzle needs for a transaction. A migration takes its time, and a connection of its own.
  const client = {
    options: {},
    async begin(work: Parameters<SQL["begin"]>[1]) {
      await using own = open();
      return await own.begin(work as never);
    },
  };
  return {
    orm: drizzle({ client: client as unknown as SQL }),
    query: (statement, values) => forOthers().query(statement, values),
    quick: (statement, values) => forQuick().query(statement, values),
    label: `PostgreSQL at ${addressOf(url)}`,
    async close() {
      await Promise.all(connections.map((connection) => connection.close()));
    },
  };
}

const leastLoaded = (connections: Connection[]) =>
  connections.reduce((best, one) => (best.load() <= one.load() ? best : one));

type Connection = ReturnType<typeof connection>;

interface Waiting {
  since: number;
  query: ReturnType<SQL["unsafe"]>;
  client: SQL;
  reject: (reason: DatabaseTimeout) => void;
}

/** More than any number of statements that wait. */
const STALLED = 1e6;

/** One of Bun's connections, with what it lacks: a limit to the wait for it, or for a peer that has frozen. */
function connection(open: () => SQL) {
  let client = open();
  /** In the order in which they were asked. */
  const waiting = new Set<Waiting>();
  let lastAnswer = 0;
  let timer: Timer | undefined;

  /** The rows, or `DatabaseTimeout`. A query that has not been sent by then never is; one that has may yet be done. */
  const query: Query = ({ text }, values) => {
    const query = client.unsafe(text, values);
    return new Promise((resolve, reject) => {
      const one = { since: performance.now(), query, client, reject };
      waiting.add(one);
      if (timer === undefined) timer = setTimeout(giveUp, ANSWER_TIMEOUT_MS).unref();
      const answered = () => {
        if (waiting.delete(one)) lastAnswer = performance.now();
      };
      query.then(
        (rows) => {
          answered();
          resolve(rows);
        },
        (error) => {
          answered();
          reject(error);
        },
      );
    });
  };

  /** One timer for all that wait: one for each costs a microsecond. */
  function giveUp() {
    timer = undefined;
    const now = performance.now();
    for (const one of waiting) {
      const left = one.since + ANSWER_TIMEOUT_MS - now;
      if (left > 0) {
        timer = setTimeout(giveUp, left).unref();
        return;
      }
      waiting.delete(one);
      one.query.cancel();
      // The server ends each statement in time, so this connection is dead, though nobody has said so.
      if (now - lastAnswer > STATEMENT_TIMEOUT_MS + 1000 && one.client === client) {
        client = open();
        one.client.close({ timeout: 0 }).catch(() => {});
      }
      one.reject(new DatabaseTimeout());
    }
  }

  return {
    query,
    /** How many statements wait for an answer. A connection that has stalled is the last to be taken. */
    load() {
      if (waiting.size === 0) return 0;
      const [oldest] = waiting;
      const stalled = performance.now() - Math.max(oldest?.since ?? 0, lastAnswer) > STALLED_AFTER;
      return stalled ? STALLED + waiting.size : waiting.size;
    },
    close: () => client.close({ timeout: 5 }),
  };
}
