import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { Catalog } from "../../server/live/catalog/catalog.ts";
import { Mirror } from "../../server/live/mirror.ts";
import { changeTo, load, seedOf, stateOf } from "./states.ts";

const LOADED = 2_000;

/** A product of a random number is added, deleted or made visible again. Enough of them to rank all products again. */
const commands = fc.array(
  fc.record({
    kind: fc.constantFrom("add" as const, "add" as const, "delete" as const, "reload" as const),
    count: fc.integer({ min: 1, max: 1_500 }),
    salt: fc.nat({ max: 1_000_000 }),
  }),
  { minLength: 1, maxLength: 5 },
);

describe("IdRanks", () => {
  it("products with equal keys are listed by ID, whichever of them are ranked", (t) => {
    fc.assert(
      fc.property(commands, (steps) => {
        const mirror = new Mirror();
        const catalog = new Catalog(mirror);
        const versions = new Map<string, number>();
        const next = (id: string) => {
          versions.set(id, (versions.get(id) ?? 0) + 1);
          return stateOf(id, versions.get(id) ?? 0, { available: 7 });
        };
        const idOf = (n: number): string => `p${(n * 7_919) % 10_007}`;
        let visible = new Set(Array.from({ length: LOADED }, (_, n) => idOf(n)));
        load(mirror, [...visible].map(next));
        for (const { kind, count, salt } of steps) {
          // Building the order by ID first lets it rank all products again.
          catalog.inOrder("product_id");
          catalog.inOrder("available");
          const ids = Array.from({ length: count }, (_, n) => idOf(n + salt));
          if (kind === "reload") {
            // Rows of products that are dropped are used again.
            visible = new Set([...visible].filter((_, n) => n % 2 === salt % 2));
            load(mirror, [...visible].map(next));
            continue;
          }
          for (const id of ids) {
            if (kind === "add") visible.add(id);
            else visible.delete(id);
            mirror.onChanges([changeTo({ ...next(id), deleted: kind === "delete" })]);
          }
        }
        const listed: string[] = [];
        catalog.inOrder("available").index.ascending(undefined, (row) => {
          listed.push(mirror.table.productId(row));
          return true;
        });
        assert.deepEqual(listed, [...visible].sort());
      }),
      { seed: seedOf(t), numRuns: 25 },
    );
  });
});
