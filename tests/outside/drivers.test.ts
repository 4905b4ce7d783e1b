import { expect, test } from "bun:test";
import { getTableConfig } from "drizzle-orm/pg-core";
import { loadConfig } from "../../src/config.ts";
import { connect } from "../../src/db/connect.ts";
import { causeOf } from "../../src/db/errors.ts";
import { tasks } from "../../src/db/schema.ts";

test.each([
  ["postgres://u:hunter2@127.0.0.1:1/db", "PostgreSQL at 127.0.0.1:1/db"],
  [
    "postgres://u:hunter2@ep-x-pooler.eu.aws.neon.tech/db?sslmode=require",
    "Neon at ep-x-pooler.eu.aws.neon.tech:5432/db",
  ],
])("%s is opened without being touched, and named without its password", async (DATABASE_URL, label) => {
  const db = await connect(loadConfig({ DATABASE_URL }));
  expect(db.label).toBe(label);
  await db.close();
});

test("a server that takes a connection and says nothing is given up after 3 s, and nothing was sent", async () => {
  using silent = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
  const db = await connect(loadConfig({ DATABASE_URL: `postgres://u@127.0.0.1:${silent.port}/db` }));
  const began = performance.now();
  const error = await db.query({ name: "x", text: "x", unrepeatable: true }, []).catch((error) => error);
  // The limit of a statement is 6 s.
  expect(performance.now() - began).toBeWithin(2_500, 5_500);
  expect(causeOf(error)).toMatchObject({ outage: true, outcomeUnknown: false });
  await db.close();
}, 20_000);

test("the index begins with the owner and ends with the id, so that the usual order is one range of it", () => {
  const names = getTableConfig(tasks).indexes.map(({ config }) =>
    config.columns.map((column) => "name" in column && column.name),
  );
  expect(names).toEqual([["user_id", "created_at", "id"]]);
});
