import { batching } from "../db/batching.ts";
import type { Caller, Query } from "../db/database.ts";
import { stripped } from "../http/validation.ts";
import type { NewTask } from "./model.ts";
import type { Row } from "./row.ts";
import { memoized, type PageVariant, statements } from "./statements.ts";
import type { Undone, Versions } from "./versions.ts";

interface OneTask {
  owner: string;
  id: number;
  /** It is done only if the task has one of these. Undefined: in any. */
  versions: Versions;
}

/** What a change is asked to do. What is absent stays. */
export interface Change extends OneTask {
  title?: string | undefined;
  sets_description?: boolean;
  description?: string | null | undefined;
  completed?: boolean | undefined;
  toggles?: boolean;
}

/** What is sent one by one, and what goes together with others'. */
export function sending(query: Query) {
  const built = statements(query);

  const page = memoized((variant: Pick<PageVariant, "order" | "continued">) => {
    const ask = built.pages(variant);
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
  });

  return {
    statements: built,
    page,

    find: batching<{ owner: string; id: number }, Row | null>({
      together: async (asked, caller) => grouped(asked, await built.find(asked, caller)).map(([row]) => row ?? null),
      alone: async (asked, caller) => (await built.find([asked], caller))[0] ?? null,
    }),

    create: batching<{ owner: string } & ReturnType<typeof withDefaults>, Row>({
      async together(asked, caller) {
        const rows = Map.groupBy(await built.create(asked, caller), contentOf);
        const found = asked.map((one) => rows.get(contentOf({ ...one, user_id: one.owner }))?.shift());
        // A trigger may have changed what they hold. They exist, and asking again would create them twice. So the rest
        // is matched by owner: each owner's ids are in the order of the requests.
        const rest = [...rows.values()].flat().sort((a, b) => Number(a.id) - Number(b.id));
        const others = Map.groupBy(rest, ({ user_id }) => user_id);
        return asked.map(({ owner }, n) => found[n] ?? others.get(owner)?.shift());
      },
      async alone(asked, caller) {
        const [row] = await built.create([asked], caller);
        if (!row) throw new Error("insert … returning returned no row");
        return row;
      },
    }),

    change: changing<Change>(built.change),
    delete: changing<OneTask>(built.delete),
  };
}

function changing<Asked extends OneTask>({ alone, ifVersion, together }: ReturnType<typeof statements>["change"]) {
  return batching<Asked, Row | Undone>({
    together: async (asked, caller) => grouped(asked, await together(asked, caller)).map(([row]) => row),
    async alone(asked, caller) {
      const [row] = await (asked.versions ? ifVersion : alone)([asked], caller);
      if (row === undefined) return "missing";
      return row.id === null ? "changed" : row;
    },
    row: ({ owner, id }) => `${id} ${owner}`,
  });
}

/** The rows of each, by the number that they bear. */
function grouped<R extends { n: number }>(asked: object[], rows: R[]): R[][] {
  const groups: R[][] = asked.map(() => []);
  for (const row of rows) groups[row.n]?.push(row);
  return groups;
}

/** What a new task will hold. */
export const withDefaults = ({ title, description = null, completed = false }: NewTask) => ({
  title: stripped(title),
  description,
  completed,
});

const contentOf = ({ user_id, title, description, completed }: Omit<Row, "id" | "created_at" | "updated_at">) =>
  JSON.stringify([user_id, title, description, completed]);
