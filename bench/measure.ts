import { load } from "./load.ts";
import type { Request } from "./scenarios.ts";
import { cpuOf, cpuOfPostgres, type Server } from "./servers.ts";

/** One window of load on one server. */
export interface Sample {
  /** Requests a second. */
  rate: number;
  /** Latencies, in milliseconds. */
  p50: number;
  p99: number;
  /** CPU time a request, user and system, in microseconds: the server's, and Postgres's if it is on this machine. */
  cpu: number;
  postgres: number;
  /** Both. */
  together: number;
}

export async function measure(
  server: Server,
  requests: Request[],
  connections: number,
  seconds: number,
): Promise<Sample> {
  server.emptyLog();
  const [before, postgresBefore] = [cpuOf(server.pid), cpuOfPostgres()];
  const { requests: number, seconds: took, p50, p99 } = await load(server.port, requests, connections, seconds);
  const cpu = (cpuOf(server.pid) - before) / number;
  const used = [...cpuOfPostgres()].reduce((sum, [pid, now]) => sum + now - (postgresBefore.get(pid) ?? 0), 0);
  const postgres = used / number;
  return { rate: number / took, p50, p99, cpu, postgres, together: cpu + postgres };
}

export function median(numbers: number[]): number {
  const sorted = numbers.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? 0;
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] ?? 0)) / 2;
}

/** The median of the ratios of pairs that were measured side by side, and their range. */
export function ratio(of: Sample[], to: Sample[], what: keyof Sample) {
  const ratios = of.map((sample, i) => sample[what] / (to[i]?.[what] ?? Number.NaN));
  return { median: median(ratios), least: Math.min(...ratios), most: Math.max(...ratios) };
}
