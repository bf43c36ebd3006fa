import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import type { ProductState } from "../../server/inventory/feed.ts";
import { compareIds } from "../../server/inventory/reservation.ts";
import { Catalog } from "../../server/live/catalog/catalog.ts";
import {
  LEDGER_ORDERS,
  type LedgerCursor,
  type LedgerFilter,
  LedgerList,
  type LedgerQuery,
} from "../../server/live/catalog/ledger-list.ts";
import { Mirror } from "../../server/live/mirror.ts";
import { detailsOf, seedOf, stateOf } from "./states.ts";

const PAGES_MAX = 1_000;
const IDS = Array.from({ length: 12 }, (_, n) => (n % 3 === 0 ? `é${n}` : `p${n}`));
const state: fc.Arbitrary<Partial<ProductState>> = fc.record({
  available: fc.nat(4),
  updateTimeMs: fc.nat(6),
  deleted: fc.nat(3).map((n) => n === 0),
  isReserved: fc.boolean(),
  isShort: fc.boolean(),
  details: fc.option(
    fc.constantFrom("", "a", "b").map((collectionId) => detailsOf("Mug", { collectionId })),
    { nil: undefined },
  ),
});
const filter: fc.Arbitrary<LedgerFilter> = fc.record({
  maxAvailable: fc.option(fc.nat(4), { nil: undefined, freq: 3 }),
  shortfallOnly: fc.nat(3).map((n) => n === 0),
  reservedOnly: fc.nat(3).map((n) => n === 0),
  deleted: fc.constantFrom("excluded", "included", "only"),
  collectionId: fc.constantFrom("", "", "a", "b", "unknown"),
  changedSinceMs: fc.option(fc.nat(6), { nil: undefined, freq: 3 }),
});
const query = fc.record({
  filter,
  order: fc.constantFrom(...LEDGER_ORDERS),
  descending: fc.boolean(),
  limit: fc.integer({ min: 1, max: 5 }),
});

function keyOf(order: LedgerQuery["order"], { available, updateTimeMs }: ProductState): number {
  return order === "available" ? available : order === "update_time" ? updateTimeMs : 0;
}

/** What the list must be, by the plainest means. */
function expected(states: Iterable<ProductState>, { filter, order, descending }: Omit<LedgerQuery, "after">) {
  const direction = descending ? -1 : 1;
  return [...states]
    .filter(
      (each) =>
        each.available <= (filter.maxAvailable ?? 99) &&
        each.updateTimeMs >= (filter.changedSinceMs ?? 0) &&
        (!filter.shortfallOnly || each.isShort) &&
        (!filter.reservedOnly || each.isReserved) &&
        (filter.deleted === "included" || each.deleted === (filter.deleted === "only")) &&
        (filter.collectionId === "" || each.details?.collectionId === filter.collectionId),
    )
    .sort((a, b) => direction * (keyOf(order, a) - keyOf(order, b) || compareIds(a.productId, b.productId)))
    .map(({ productId }) => productId);
}

class World {
  readonly mirror = new Mirror();
  readonly states = new Map<string, ProductState>();
  readonly list: LedgerList;
  #version = 0;

  constructor() {
    this.mirror.onLoading(false);
    this.list = new LedgerList(new Catalog(this.mirror), this.mirror.table);
    this.mirror.onLoaded();
  }

  put(productId: string, more: Partial<ProductState>): void {
    this.#version += 1;
    const next = stateOf(productId, this.#version, more);
    this.states.set(productId, next);
    this.mirror.onProducts([next]);
  }

  /** All pages, with something done after each. */
  async pages(asked: Omit<LedgerQuery, "after">, afterPage = (): void => {}) {
    const productIds: string[] = [];
    const totals: number[] = [];
    let after: LedgerCursor | undefined;
    do {
      const page = await this.list.page({ ...asked, after });
      assert.ok(page.productIds.length <= asked.limit);
      assert.ok(
        page.next === undefined || page.productIds.length === asked.limit,
        "a page is full before the last",
      );
      productIds.push(...page.productIds);
      totals.push(page.total);
      assert.ok(totals.length <= PAGES_MAX, "the list does not end");
      after = page.next;
      afterPage();
    } while (after !== undefined);
    return { productIds, totals };
  }
}

describe("LedgerList", () => {
  it("has exactly the products that match, in order, with their number on each page", async (t) => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.constantFrom(...IDS), state), { maxLength: 30 }),
        query,
        async (puts, asked) => {
          const world = new World();
          for (const [productId, more] of puts) {
            world.put(productId, more);
          }
          const wanted = expected(world.states.values(), asked);
          const { productIds, totals } = await world.pages(asked);
          assert.deepEqual(productIds, wanted);
          assert.deepEqual(new Set(totals), new Set([wanted.length]));
        },
      ),
      { seed: seedOf(t), numRuns: 300 },
    );
  });

  it("has each product that does not change exactly once, while others change between pages", async (t) => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(state, { minLength: IDS.length, maxLength: IDS.length }),
        fc.array(fc.tuple(fc.nat(4), state), { maxLength: 20 }),
        query,
        async (states, changes, asked) => {
          const world = new World();
          for (const [index, productId] of IDS.entries()) {
            world.put(productId, states[index] ?? {});
          }
          const changing = new Set(IDS.slice(0, 5));
          const wanted = expected(world.states.values(), asked).filter((id) => !changing.has(id));
          const { productIds } = await world.pages(asked, () => {
            const [index, more] = changes.pop() ?? [];
            if (index !== undefined) {
              world.put(IDS[index] ?? "", more ?? {});
            }
          });
          assert.deepEqual(
            productIds.filter((id) => !changing.has(id)),
            wanted,
          );
        },
      ),
      { seed: seedOf(t), numRuns: 300 },
    );
  });

  it("selects from the matching products where a walk through the order would take too many steps", async () => {
    const world = new World();
    const rare: string[] = [];
    for (let n = 0; n < 30_000; n++) {
      const isReserved = n % 9_000 === 0;
      const productId = `product-${String((n * 7_919) % 30_000).padStart(5, "0")}`;
      world.put(productId, { isReserved, available: n % 10, deleted: n % 18_000 === 9_000 });
      if (isReserved) {
        rare.push(productId);
      }
    }
    assert.equal(rare.length, 4);
    for (const order of LEDGER_ORDERS) {
      const asked = {
        filter: {
          maxAvailable: undefined,
          shortfallOnly: false,
          reservedOnly: true,
          deleted: "included",
          collectionId: "",
          changedSinceMs: undefined,
        },
        order,
        descending: true,
        limit: 3,
      } as const;
      assert.deepEqual((await world.pages(asked)).productIds, expected(world.states.values(), asked));
    }
  });
});
