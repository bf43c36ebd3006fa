import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import type { ProductState } from "../../server/inventory/feed.ts";
import {
  Catalog,
  LIST_ORDERS,
  type ListCursor,
  type ListPage,
  type ListQuery,
} from "../../server/live/catalog/catalog.ts";
import { Mirror } from "../../server/live/mirror.ts";
import { until } from "../support/until.ts";
import { changeTo, detailsOf, load, loadedMirror, seedOf, stateOf } from "./states.ts";

const ALL: ListQuery = {
  words: "",
  inStockOnly: false,
  collectionId: "",
  minPrice: undefined,
  maxPrice: undefined,
  order: "name",
  descending: false,
  limit: 1_000,
  after: undefined,
};

/** Letters, and how the oracle folds each. */
const LETTERS = [
  ["a", "a"],
  ["A", "a"],
  ["ä", "a"],
  ["Å", "a"],
  ["e", "e"],
  ["É", "e"],
  ["e\u0301", "e"],
  ["ñ", "n"],
  ["N", "n"],
  ["ﬁ", "fi"],
  ["ж", "ж"],
  ["Ж", "ж"],
  [" ", " "],
  ["-", "-"],
  ["7", "7"],
  ["0", "0"],
  ["1", "1"],
  ["2", "2"],
] as const;
const PLAIN: ReadonlyMap<string, string> = new Map(LETTERS);

const letters = (max: number, min = 0) =>
  fc.array(fc.constantFrom(...LETTERS.map(([letter]) => letter)), { minLength: min, maxLength: max });
const foldedOf = (text: readonly string[]): string =>
  text.map((letter) => PLAIN.get(letter) ?? letter).join("");

/** A state of a product, with its folded name. */
interface Known {
  readonly state: ProductState;
  readonly name: string;
}

const productWith = (id: fc.Arbitrary<string>) =>
  fc.record({
    id,
    available: fc.nat(3),
    updateTimeMs: fc.nat(4),
    deleted: fc.nat(7).map((n) => n === 0),
    details: fc.option(
      fc.record({
        name: letters(5),
        price: fc.constantFrom(0, 0.5, 1, 9.99, 1e12),
        collectionId: fc.constantFrom("", "c1", "c2"),
      }),
      { nil: undefined, freq: 8 },
    ),
  });
const product = productWith(
  fc.constantFrom(..."abcdefghijklmnopqrst".split("").map((letter) => `P${letter}-7`)),
);
interface ProductDraft {
  readonly id: string;
  readonly available: number;
  readonly updateTimeMs: number;
  readonly deleted: boolean;
  readonly details:
    | { readonly name: readonly string[]; readonly price: number; readonly collectionId: string }
    | undefined;
}

const query = fc.record({
  words: fc.oneof({ weight: 2, arbitrary: fc.constant([]) }, { weight: 1, arbitrary: letters(3) }),
  inStockOnly: fc.nat(3).map((n) => n === 0),
  collectionId: fc.constantFrom("", "", "", "", "", "c1", "c2", "c3"),
  minPrice: fc.constantFrom(undefined, undefined, undefined, 0, 0.5, 1, 5),
  maxPrice: fc.constantFrom(undefined, undefined, undefined, 0, 1, 9.99, 1e12),
  order: fc.constantFrom(...LIST_ORDERS),
  descending: fc.boolean(),
  limit: fc.integer({ min: 1, max: 25 }),
});
type QueryDraft = Omit<ListQuery, "words" | "after"> & { readonly words: readonly string[] };

const listQuery = (draft: QueryDraft): ListQuery => ({
  ...draft,
  words: draft.words.join(""),
  after: undefined,
});

/** A mirror with its catalog, and a plain map of the same products. */
class World {
  readonly mirror: Mirror = loadedMirror([]);
  readonly catalog = new Catalog(this.mirror);
  readonly known = new Map<string, Known>();

  /** Changes a product. Omitted values do not change. */
  put({ id, available, updateTimeMs, deleted, details }: ProductDraft): void {
    const before = this.known.get(id);
    const changed = details && detailsOf(details.name.join(""), { ...details, name: details.name.join("") });
    const kept = changed ?? before?.state.details;
    const state = stateOf(id, (before?.state.version ?? 0) + 1, {
      available,
      updateTimeMs,
      deleted,
      details: kept,
    });
    this.known.set(id, { state, name: details ? foldedOf(details.name) : (before?.name ?? "") });
    this.mirror.onChanges([changeTo(state, changed)]);
  }

  get visible(): Known[] {
    return [...this.known.values()].filter(({ state }) => !state.deleted);
  }

  /** All that match, in order, by brute force. */
  expected(draft: QueryDraft): ProductState[] {
    const words = foldedOf(draft.words)
      .split(" ")
      .filter((word) => word !== "");
    const way = draft.descending ? -1 : 1;
    return this.visible
      .filter(({ state, name }) => {
        const { details } = state;
        const price = details?.price ?? 0;
        return (
          (!draft.inStockOnly || state.available > 0) &&
          (draft.collectionId === "" || details?.collectionId === draft.collectionId) &&
          (draft.minPrice === undefined || price >= draft.minPrice) &&
          (draft.maxPrice === undefined || price <= draft.maxPrice) &&
          words.every((word) => name.includes(word) || state.productId.toLowerCase().includes(word))
        );
      })
      .sort((a, b) => {
        const [left, right] = [keyOf(a, draft.order), keyOf(b, draft.order)];
        const byKey =
          typeof left === "string" && typeof right === "string"
            ? naturalOrder(left, right)
            : Number(left) - Number(right);
        return way * (byKey || (a.state.productId < b.state.productId ? -1 : 1));
      })
      .map(({ state }) => state);
  }
}

function keyOf({ state, name }: Known, order: ListQuery["order"]): string | number {
  switch (order) {
    case "name":
      return state.details === undefined ? state.productId.toLowerCase() : name;
    case "price":
      return state.details?.price ?? 0;
    case "available":
      return state.available;
    case "update_time":
      return state.updateTimeMs;
  }
}

/** The oracle: texts as runs of digits, which are compared as numbers, and single characters. */
function naturalOrder(a: string, b: string): number {
  const partsOf = (text: string): string[] => text.match(/\d+|\D/gu) ?? [];
  const [left, right] = [partsOf(a), partsOf(b)];
  for (const [index, one] of left.entries()) {
    const other = right[index];
    if (other === undefined) return 1;
    const numbers = [one, other].map((part) => (/^\d/.test(part) ? BigInt(part) : undefined));
    const [x = one, y = other] = numbers.every((number) => number !== undefined) ? numbers : [];
    if (x !== y) return x < y ? -1 : 1;
  }
  return left.length - right.length;
}

/** A cursor after a round trip through a page token. */
const throughToken = (cursor: ListCursor): ListCursor => JSON.parse(JSON.stringify(cursor)) as ListCursor;

const idsOf = (page: ListPage): string[] => page.stocks.map(({ productId }) => productId);

function worldWith(...products: readonly (Partial<ProductDraft> & { id: string; name?: string })[]): World {
  const world = new World();
  for (const { name, ...draft } of products) {
    const details = name === undefined ? undefined : { name: [...name], price: 1, collectionId: "" };
    world.put({ available: 1, updateTimeMs: 1, deleted: false, details, ...draft });
  }
  return world;
}

describe("Catalog against brute force", () => {
  it("lists what matches, in order, page by page, after random changes", (t) => {
    let matched = 0;
    let deepest = 0;
    fc.assert(
      fc.property(
        fc.array(product, { maxLength: 60, size: "max" }),
        fc.array(query, { minLength: 1, maxLength: 6 }),
        (changes, drafts) => {
          const world = new World();
          const steps = Math.ceil(changes.length / drafts.length);
          for (const [n, draft] of drafts.entries()) {
            for (const change of changes.slice(n * steps, (n + 1) * steps)) {
              world.put(change);
            }
            const expected = world.expected(draft);
            matched += expected.length;
            const found: ProductState[] = [];
            let next: ListCursor | undefined;
            let pages = 0;
            do {
              const page = world.catalog.list({ ...listQuery(draft), after: next });
              assert.equal(page.total, expected.length);
              assert.equal(page.stocks.length, Math.min(draft.limit, expected.length - found.length));
              found.push(...page.stocks);
              next = page.next && throughToken(page.next);
              pages += 1;
            } while (next !== undefined);
            assert.deepEqual(found, expected);
            deepest = Math.max(deepest, pages);
          }
        },
      ),
      { seed: seedOf(t), numRuns: 400 },
    );
    t.diagnostic(`${matched} products matched; the longest list had ${deepest} pages`);
  });

  it("neither skips nor repeats a product that keeps its position while others change between pages", (t) => {
    let stayed = 0;
    fc.assert(
      fc.property(
        fc.array(product, { minLength: 10, maxLength: 60, size: "max" }),
        query.map((draft) => ({ ...draft, limit: Math.min(draft.limit, 5) })),
        fc.array(fc.array(product, { maxLength: 4 }), { minLength: 1, maxLength: 8, size: "max" }),
        (start, draft, changesBetween) => {
          const world = new World();
          for (const one of start) {
            world.put(one);
          }
          const isAt = (state: ProductState): string =>
            String(keyOf(world.known.get(state.productId) as Known, draft.order));
          const candidates = new Map(world.expected(draft).map((state) => [state.productId, isAt(state)]));
          const walked: string[] = [];
          let next: ListCursor | undefined;
          let turn = 0;
          do {
            const page = world.catalog.list({ ...listQuery(draft), after: next });
            walked.push(...idsOf(page));
            const ids = new Set(idsOf(page));
            assert.equal(ids.size, page.stocks.length);
            next = page.next && throughToken(page.next);
            for (const change of changesBetween[turn++ % changesBetween.length] ?? []) {
              world.put(change);
            }
            const now = new Map(world.expected(draft).map((state) => [state.productId, isAt(state)]));
            for (const [id, at] of candidates) {
              if (now.get(id) !== at) {
                candidates.delete(id);
              }
            }
          } while (next !== undefined && turn < 200);
          const inWalk = walked.filter((id) => candidates.has(id));
          const inOrder = world.expected(draft).map(({ productId }) => productId);
          assert.deepEqual(
            inWalk,
            inOrder.filter((id) => candidates.has(id)),
          );
          stayed += inWalk.length;
        },
      ),
      { seed: seedOf(t), numRuns: 400 },
    );
    t.diagnostic(`${stayed} products stayed in their places while pages were turned`);
  });
});

describe("Catalog with many products", () => {
  /** More than one segment of the text index, and more renames than a segment's unindexed rows. */
  const PRODUCTS = 18_000;
  const RENAMES = 3_000;
  const EVERYTHING: QueryDraft = {
    words: [],
    inStockOnly: false,
    collectionId: "",
    minPrice: undefined,
    maxPrice: undefined,
    order: "name",
    descending: false,
    limit: 20,
  };

  it("lists what brute force finds, after a load and after many changes", (t) => {
    const seed = seedOf(t);
    const [draft] = fc.sample(
      fc.array(productWith(fc.nat(PRODUCTS - 1).map(String)), {
        minLength: 25_000,
        maxLength: 25_000,
        size: "max",
      }),
      {
        seed,
        numRuns: 1,
      },
    ) as [ProductDraft[]];
    const queries = fc.sample(query, { seed, numRuns: 40 });
    const searches = ["a", "ж", "na", "ae7", "7", "p1", "p12", "p123", "fiж", "a 17", "1234 e"].map(
      (words) => ({ ...EVERYTHING, words: [...words] }),
    );
    const world = new World();
    for (const [n, one] of draft.slice(0, PRODUCTS).entries()) {
      world.put({ ...one, id: `P${n}`, deleted: false });
    }
    let matched = 0;
    const compare = (drafts: readonly QueryDraft[]): void => {
      for (const one of drafts) {
        const expected = world.expected(one);
        matched += expected.length;
        const middle = expected[Math.floor(expected.length / 2)];
        const after = middle && {
          key: keyOf(world.known.get(middle.productId) as Known, one.order),
          productId: middle.productId,
        };
        const page = world.catalog.list(listQuery(one));
        assert.equal(page.total, expected.length);
        assert.deepEqual(
          idsOf(page),
          expected.slice(0, one.limit).map(({ productId }) => productId),
        );
        const deep = world.catalog.list({ ...listQuery(one), after });
        const from = expected.length === 0 ? 0 : expected.indexOf(middle as ProductState) + 1;
        assert.deepEqual(
          idsOf(deep),
          expected.slice(from, from + one.limit).map(({ productId }) => productId),
        );
      }
    };
    compare([...searches, ...queries.slice(0, 15)]);
    for (const one of draft.slice(PRODUCTS, PRODUCTS + RENAMES)) {
      world.put({ ...one, id: `P${one.id}`, deleted: false });
    }
    compare([...searches, ...queries.slice(15, 25)]);
    for (const one of draft.slice(PRODUCTS + RENAMES)) {
      world.put({ ...one, id: `P${one.id}` });
    }
    // The results of these words are cached by now, and must follow the changes.
    compare([...searches, ...queries.slice(25)]);
    t.diagnostic(`${matched} products matched`);
  });
});

describe("Catalog: examples", () => {
  const find = (world: World, words: string): string[] => idsOf(world.catalog.list({ ...ALL, words })).sort();

  it("finds words in name or ID, all of them, in any order, ignoring case and accents", () => {
    const world = worldWith(
      { id: "sku-1", name: "Crème Brûlée Torch" },
      { id: "SKU-2", name: "creme cheese" },
      { id: "x3", name: "TORCH light" },
      { id: "no-details" },
    );
    assert.deepEqual(find(world, "CREME"), ["SKU-2", "sku-1"]);
    assert.deepEqual(find(world, "crème"), ["SKU-2", "sku-1"]);
    assert.deepEqual(find(world, "torch bru"), ["sku-1"]);
    assert.deepEqual(find(world, "  torch\tcreme  "), ["sku-1"]);
    assert.deepEqual(find(world, "Sku"), ["SKU-2", "sku-1"]);
    assert.deepEqual(find(world, "sku-2 cheese"), ["SKU-2"], "a word in the ID, another in the name");
    assert.deepEqual(find(world, "DETAILS"), ["no-details"]);
    assert.deepEqual(find(world, "cheesesku"), [], "not across the end of the name");
    assert.deepEqual(find(world, "nothing"), []);
    assert.equal(find(world, "   ").length, 4, "no words match everything");
  });

  it("lists names in natural order, page by page", () => {
    const names = [
      "Lamp",
      "Lamp 2",
      "lamp 07",
      "Lamp 10",
      "Lamp 10 b",
      "Lamp 123456789",
      "Lamp 1234567890",
      "Lamp B",
    ];
    for (const descending of [false, true]) {
      const world = worldWith(...names.toReversed().map((name, n) => ({ id: `p${n}`, name })));
      const query = { ...ALL, limit: 3, descending };
      const found: (string | undefined)[] = [];
      let next: ListCursor | undefined;
      do {
        const page = world.catalog.list({ ...query, after: next });
        found.push(...page.stocks.map(({ details }) => details?.name));
        next = page.next && throughToken(page.next);
      } while (next !== undefined);
      assert.deepEqual(found, descending ? names.toReversed() : names);
    }
  });

  it("knows the collections of visible products, whether or not they are named", () => {
    const world = worldWith({ id: "a" });
    const put = (id: string, collectionId: string, deleted = false): void =>
      world.put({
        id,
        available: 1,
        updateTimeMs: 1,
        deleted,
        details: { name: ["n"], price: 1, collectionId },
      });
    assert.deepEqual(world.catalog.collectionIds, []);
    put("b", "shelf 10");
    put("c", "shelf 9");
    put("d", "shelf 9");
    put("e", "deleted", true);
    assert.deepEqual(world.catalog.collectionIds, ["shelf 9", "shelf 10"]);
    put("c", "shelf 9", true);
    assert.deepEqual(world.catalog.collectionIds, ["shelf 9", "shelf 10"]);
    put("d", "shelf 11");
    assert.deepEqual(world.catalog.collectionIds, ["shelf 10", "shelf 11"]);
    put("b", "shelf 10", true);
    assert.deepEqual(world.catalog.collectionIds, ["shelf 11"]);
  });

  it("finds a product by its new name only", () => {
    const world = worldWith({ id: "p", name: "old" });
    world.put({
      id: "p",
      available: 1,
      updateTimeMs: 1,
      deleted: false,
      details: { name: ["n"], price: 1, collectionId: "" },
    });
    assert.deepEqual(find(world, "old"), []);
    assert.deepEqual(find(world, "n"), ["p"]);
  });

  it("keeps a cursor valid when its product is deleted or moved", () => {
    const world = worldWith({ id: "a" }, { id: "b" }, { id: "c" }, { id: "d" });
    const first = world.catalog.list({ ...ALL, limit: 2 });
    assert.deepEqual(idsOf(first), ["a", "b"]);
    assert.deepEqual(first.next, { key: "b", productId: "b" });
    world.put({ id: "b", available: 0, updateTimeMs: 9, deleted: true, details: undefined });
    assert.deepEqual(idsOf(world.catalog.list({ ...ALL, limit: 2, after: first.next })), ["c", "d"]);
    world.put({ id: "c", available: 0, updateTimeMs: 9, deleted: true, details: undefined });
    world.put({ id: "d", available: 0, updateTimeMs: 9, deleted: true, details: undefined });
    const last = world.catalog.list({ ...ALL, limit: 2, after: first.next });
    assert.deepEqual([last.stocks, last.next, last.total], [[], undefined, 1]);
  });

  it("has no next page if the last one is exactly full", () => {
    const world = worldWith({ id: "a" }, { id: "b" });
    assert.equal(world.catalog.list({ ...ALL, limit: 2 }).next, undefined);
    assert.notEqual(world.catalog.list({ ...ALL, limit: 1 }).next, undefined);
  });

  it("has the products that the mirror had before, those of a reload, and none that a reload drops", () => {
    const mirror = loadedMirror([
      stateOf("a", 5),
      stateOf("dropped", 5),
      stateOf("deleted", 5, { deleted: true }),
    ]);
    const catalog = new Catalog(mirror);
    assert.deepEqual(idsOf(catalog.list(ALL)), ["a", "dropped"]);
    load(mirror, [stateOf("a", 1, { available: 0 }), stateOf("b", 1)], true);
    for (const order of LIST_ORDERS) {
      assert.deepEqual(idsOf(catalog.list({ ...ALL, order })).sort(), ["a", "b"], order);
    }
    assert.deepEqual(idsOf(catalog.list({ ...ALL, inStockOnly: true })), ["b"]);
    assert.equal(catalog.isStale, false);
  });

  it("builds its orders when the mirror is loaded, in steps if it is large", async () => {
    const mirror = new Mirror();
    const catalog = new Catalog(mirror);
    assert.equal(catalog.isSorted, false);
    const ids = Array.from({ length: 50_000 }, (_, each) => `p${each}`);
    load(
      mirror,
      ids.map((id) => stateOf(id, 1)),
    );
    await until(() => catalog.isSorted, "every order is built");
    assert.equal(catalog.list(ALL).total, ids.length);
  });
});
