import type { User, Users } from "./data.ts";

export interface Request {
  method: string;
  path: string;
  headers: Record<string, string>;
  body?: string;
}

export const request = (user: User, method: string, rest = "", body?: object): Request => ({
  method,
  path: `/api/${user.id}/tasks${rest}`,
  headers: { authorization: `Bearer ${user.token}`, ...(body && { "content-type": "application/json" }) },
  ...(body && { body: JSON.stringify(body) }),
});

/** So many requests, of one user after the other. */
export const round = (users: User[], length: number, make: (user: User, n: number) => Request) =>
  Array.from({ length }, (_, n) => make(users[n % users.length] as User, n));

export const someTask = ({ tasks }: User, n: number) => `/${tasks[(n * 7) % tasks.length]}`;

/** Each scenario as a round of requests, which the load generator sends over and over. */
export function scenarios(users: Users, length = 10_000) {
  // Who creates tasks is not who lists them: a list is as long at the end as it was at the start.
  const [large = [], readers = [], small = [], writers = []] = [users[1000], users[100], users[20], users[0]];
  const kinds = {
    health: [{ method: "GET", path: "/health", headers: {} } as Request],
    list20: round(readers, length, (user) => request(user, "GET", "?limit=20")),
    all20: round(small, length, (user) => request(user, "GET")),
    list1000: round(large, large.length, (user) => request(user, "GET")),
    read: round(readers, length, (user, n) => request(user, "GET", someTask(user, n))),
    create: round(writers, length, (user, n) =>
      request(user, "POST", "", { title: `Call number ${n}`, description: "Before noon, if it can be done" }),
    ),
    toggle: round(readers, length, (user, n) => request(user, "PATCH", `${someTask(user, n)}/complete`)),
    put: round(readers, length, (user, n) =>
      request(user, "PUT", someTask(user, n), { title: `Call again ${n}`, completed: n % 2 === 0 }),
    ),
  };
  /** 80 % reads, half of them lists; 20 % writes. */
  const order = ["list20", "read", "read", "all20", "create", "read", "list20", "toggle", "read", "all20"] as const;
  const mix = Array.from({ length }, (_, n) => {
    const kind = order[n % order.length] ?? "read";
    return kinds[kind === "create" && n % 20 > 10 ? "put" : kind][n] as Request;
  });
  return { ...kinds, mix };
}

export type Scenario = keyof ReturnType<typeof scenarios>;

/** The scenarios after which the table isn't as it was. */
export const WRITES: Scenario[] = ["create", "toggle", "put", "mix"];

/** What all sides must answer alike beside the scenarios: each is asked once. */
export function refusals(users: Users): Request[] {
  const [one, other] = users[100] ?? [];
  if (!one || !other) throw new Error("there are two users at least");
  return [
    { ...request(one, "GET"), headers: {} },
    { ...request(one, "GET"), headers: { authorization: `Bearer ${one.token.slice(0, -4)}AAAA` } },
    request({ ...one, token: other.token }, "GET"),
    request(one, "GET", `/${other.tasks[0]}`),
    request(one, "GET", "/zero"),
    request(one, "GET", "?limit=0"),
    request(one, "POST", "", { title: " " }),
    request(one, "POST", "", { title: "x".repeat(201) }),
    request(one, "POST", "", { title: "x", completed: "yes" }),
    request(one, "PUT", `/${one.tasks[0]}`, {}),
    { ...request(one, "POST", "", {}), body: "{" },
    { ...request(one, "POST", "", { title: "x" }), headers: { authorization: `Bearer ${one.token}` } },
  ];
}
