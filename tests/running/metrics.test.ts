import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { Overloaded, TooManyWaiting } from "../../src/db/errors.ts";
import { createMetrics } from "../../src/metrics.ts";
import { lateBody, listening, outOfReach, start, service as without } from "../harness.ts";

setDefaultTimeout(60_000);

let service: Awaited<ReturnType<typeof start>>;
beforeAll(async () => {
  service = await start({ METRICS: "True", RATE_LIMIT: "1/s" });
});
afterAll(async () => {
  await service.stop();
});

/** Prometheus's text, by the name of the metric with its labels. */
async function metrics(): Promise<Map<string, number>> {
  const answer = await fetch(`${service.url}/metrics`);
  expect([answer.status, answer.headers.get("content-type")]).toEqual([
    200,
    expect.stringContaining("text/plain; version=0.0.4"),
  ]);
  const lines = (await answer.text()).split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  return new Map(
    lines.map((line) => [line.slice(0, line.lastIndexOf(" ")), Number(line.slice(line.lastIndexOf(" ")))]),
  );
}

const count = (method: string, route: string, status: number) =>
  `http_request_duration_seconds_count{method="${method}",route="${route}",status="${status}"}`;

test("requests are counted by route and status, never by their path", async () => {
  const user = await service.newcomer();
  const { id } = await user.task({ title: "a private title" });
  await user.get(`/${id}`);
  await user.get("/999999999");
  await fetch(user.path());
  await fetch(`${service.url}/a-private-path`);
  await Bun.sleep(100);
  const found = await metrics();
  expect([
    found.get(count("POST", "/api/:user_id/tasks", 201)),
    found.get(count("GET", "/api/:user_id/tasks/:id", 200)),
    found.get(count("GET", "/api/:user_id/tasks/:id", 404)),
    found.get(count("GET", "/api/:user_id/tasks", 401)),
    found.get(count("GET", "none", 404)),
  ]).toEqual([1, 1, 1, 1, 1]);
  const names = [...found.keys()].join("\n");
  expect(names).not.toContain("private");
  expect(names).not.toContain(user.id);
});

test("durations are in seconds", async () => {
  const user = await service.newcomer();
  const began = performance.now();
  const { id } = await user.task();
  await user.delete(id);
  await Bun.sleep(100);
  const seconds = (performance.now() - began) / 1000;
  const found = await metrics();
  const request = found.get(
    'http_request_duration_seconds_sum{method="DELETE",route="/api/:user_id/tasks/:id",status="204"}',
  );
  const statement = found.get('db_statement_duration_seconds_sum{kind="delete"}');
  expect(request).toBeGreaterThan(0);
  expect(request).toBeLessThan(seconds);
  expect(statement).toBeGreaterThan(0);
  expect(statement).toBeLessThan(seconds);
});

test("a request that takes 300 ms takes 0.3 s", async () => {
  const user = await service.newcomer();
  const began = performance.now();
  const answer = await fetch(user.path("/999999999/complete"), {
    method: "PATCH",
    headers: { authorization: `Bearer ${user.token}`, "content-type": "application/json" },
    body: lateBody("{", "}"),
  });
  expect(answer.status).toBe(404);
  await Bun.sleep(100);
  const sum = 'http_request_duration_seconds_sum{method="PATCH",route="/api/:user_id/tasks/:id/complete",status="404"}';
  expect((await metrics()).get(sum)).toBeWithin(0.25, (performance.now() - began) / 1000);
});

test("a statement that fails is counted, with the time until it did", async () => {
  const { timed, routes } = createMetrics();
  const ask = timed(() => Bun.sleep(100).then(() => Promise.reject(new Error("lost"))));
  await expect(ask({ name: "find", text: "" }, [])).rejects.toThrow("lost");
  const text = await (await routes.handle(new Request("http://localhost/metrics"))).text();
  expect(text).toContain('db_statement_duration_seconds_count{kind="find"} 1\n');
  expect(Number(/duration_seconds_sum\{kind="find"\} (.*)/.exec(text)?.[1])).toBeWithin(0.09, 5);
});

test("statements are counted by a few kinds, and each with the number of its requests", async () => {
  const { timed, routes } = createMetrics();
  const ask = timed(async () => []);
  const caller = { owner: "", deadline: 0 };
  for (const requests of [7, 3]) await ask({ name: "pages_asc_true", text: "" }, [], { ...caller, requests });
  await ask({ name: "pages_desc_false", text: "" }, [], caller);
  const text = await (await routes.handle(new Request("http://localhost/metrics"))).text();
  expect(text.match(/^db_statement_batch_size_(sum|count).*/gm)).toEqual([
    'db_statement_batch_size_sum{kind="pages"} 11',
    'db_statement_batch_size_count{kind="pages"} 3',
  ]);
});

test("what is refused is counted by reason", async () => {
  const user = await service.newcomer();
  const answers = await Promise.all(Array.from({ length: 60 }, () => user.get()));
  const refused = answers.filter(({ status }) => status === 429).length;
  expect(refused).toBeGreaterThan(0);
  expect((await metrics()).get('http_requests_refused_total{reason="rate"}')).toBe(refused);
});

test.each([
  ["waiting", 429, new TooManyWaiting()],
  ["overload", 503, new Overloaded()],
])("what the database's queue refuses is counted, as %s", async (reason, status, error) => {
  const app = listening({ db: outOfReach(() => Promise.reject(error)), metrics: createMetrics() });
  expect((await (await app.newcomer()).get()).status).toBe(status);
  expect(await (await fetch(`${app.url}/metrics`)).text()).toContain(
    `http_requests_refused_total{reason="${reason}"} 1\n`,
  );
  await app.stop();
});

test("what is refused for want of time, or before the start is over, is counted too", async () => {
  const app = listening({ phase: () => "starting", metrics: createMetrics() });
  const user = await app.newcomer();
  expect([(await user.get()).status, (await user.post({ title: "x" })).status]).toEqual([503, 503]);
  const text = await (await fetch(`${app.url}/metrics`)).text();
  expect(text).toContain('http_requests_refused_total{reason="starting"} 2\n');
  await app.stop();
});

test("what is under way is told as it is now: requests, and connections to the database", async () => {
  const db = { ...outOfReach(), connections: () => ({ busy: 2, most: 3 }) };
  const app = listening({ db, metrics: createMetrics() });
  const text = await (await fetch(`${app.url}/metrics`)).text();
  expect(text.match(/^(http|db)\w+ .*/gm)).toEqual([
    // The one that asks.
    "http_requests_under_way 1",
    "db_connections_busy 2",
    "db_connections_most 3",
  ]);
  await app.stop();
});

test("what the process takes is told: event loop, memory, CPU", async () => {
  const found = await metrics();
  expect(found.get("process_resident_memory_bytes")).toBeGreaterThan(10_000_000);
  expect(found.get("process_cpu_seconds_total")).toBeGreaterThan(0);
  expect(found.get("nodejs_eventloop_lag_p99_seconds")).toBeGreaterThanOrEqual(0);
});

test("there is nothing at /metrics unless METRICS is True", async () => {
  expect((await fetch(`${without.url}/metrics`)).status).toBe(404);
});
