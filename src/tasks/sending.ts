import { batching } from "../db/batching.ts";
import type { Caller, Query } from "../db/database.ts";
import { stripped } from "../http/validation.ts";
import type { NewTask } from "./model.ts";
import type { Row } from "./row.ts";
import { type PageVariant, statements } from "./statements.ts";

/** What a change is asked to do; `versions` is an array of Postgres, in its text form. */
export interface Change {
  owner: string;
  id: number;
  title: string | null;
  described: boolean;
  description: string | null;
  completed: boolean | null;
  toggled: boolean;
  versions?: string;
}

/** What is sent one by one, and what goes together with others'. */
export function sending(query: Query) {
  const built = statements(query);
  const row = ({ owner, id }: { owner: string; id: number }) => `${id} ${owner}`;
  const pages = new Map<string, ReturnType<typeof page>>();

  function page(variant: Pick<PageVariant, "order" | "continued">) {
    const ask = built.pagesTogether(variant);
    const sign = variant.order === "asc" ? 1 : -1;
    // They come in order, but SQL promises no order for a join.
    const together = async (asked: object[], caller: Caller) =>
      grouped(asked, await ask(asked, caller)).map((rows) =>
        rows.sort((a, b) => sign * (a.created_at - b.created_at || Number(a.id) - Number(b.id))),
      );
    return batching({
      together,
      alone: async (asked, caller) => (await together([asked], caller))[0] ?? [],
      most: 16,
    });
  }

  return {
    statements: built,

    page(variant: Pick<PageVariant, "order" | "continued">) {
      const name = `${variant.order} ${variant.continued}`;
      const one = pages.get(name) ?? page(variant);
      pages.set(name, one);
      return one;
    },

    find: batching<{ owner: string; id: number }, Row | null>({
      together: async (asked, caller) =>
        grouped(asked, await built.findTogether(asked, caller)).map(([row]) => row ?? null),
      alone: async (asked, caller) => (await built.findTogether([asked], caller))[0] ?? null,
    }),

    create: batching<{ owner: string } & ReturnType<typeof created>, Row>({
      async together(asked, caller) {
        const rows = Map.groupBy(await built.createTogether(asked, caller), contentOf);
        const found = asked.map((one) => rows.get(contentOf({ ...one, user_id: one.owner }))?.shift());
        // A trigger may have changed what they hold. They exist, and to ask again would create them twice. Each
        // owner's ids are in the order of the requests.
        const rest = [...rows.values()].flat().sort((a, b) => Number(a.id) - Number(b.id));
        const others = Map.groupBy(rest, ({ user_id }) => user_id);
        return asked.map(({ owner }, n) => found[n] ?? others.get(owner)?.shift());
      },
      async alone(asked, caller) {
        const [row] = await built.createTogether([asked], caller);
        if (!row) throw new Error("insert … returning returned no row");
        return row;
      },
    }),

    change: batching<Change, Row | "missing">({
      together: async (asked, caller) =>
        grouped(asked, await built.changeTogether(asked, caller)).map(([row]) => row),
      alone: async (asked, caller) => (await built.change({ ...asked }, caller))[0] ?? "missing",
      row,
    }),

    delete: batching<{ owner: string; id: number }, object | "missing">({
      together: async (asked, caller) =>
        grouped(asked, await built.deleteTogether(asked, caller)).map(([row]) => row),
      alone: async (asked, caller) => (await built.delete(asked, caller))[0] ?? "missing",
      row,
    }),
  };
}

/** The rows of each, by the number that they bear. */
function grouped<R extends { n: number }>(asked: object[], rows: R[]): R[][] {
  const groups: R[][] = asked.map(() => []);
  for (const row of rows) groups[row.n]?.push(row);
  return groups;
}

/** What a new task holds, with the defaults filled in. */
export const created = ({ title, description = null, completed = false }: NewTask) => ({
  title: stripped(title),
  description,
  completed,
});

const contentOf = ({
  user_id,
  title,
  description,
  completed,
}: Omit<Row, "id" | "created_at" | "updated_at">) => JSON.stringify([user_id, title, description, completed]);
