import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { SortedIndex } from "../../server/live/catalog/sorted-index.ts";
import { seedOf } from "./states.ts";

interface Item {
  readonly key: number;
  readonly id: number;
}

const compare = (a: Item, b: Item): number => a.key - b.key || a.id - b.id;

type Beyond = (row: number) => boolean;

function ascending(index: SortedIndex, isAfter?: Beyond): number[] {
  const rows: number[] = [];
  index.ascending(isAfter, (row) => rows.push(row) > 0);
  return rows;
}

function descending(index: SortedIndex, isBefore?: Beyond): number[] {
  const rows: number[] = [];
  index.descending(isBefore, (row) => rows.push(row) > 0);
  return rows;
}

/** Few distinct keys cause ties; many items need several blocks. */
const command = fc.oneof(
  fc.record({
    kind: fc.constant("insert" as const),
    count: fc.oneof(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 500, max: 3_000 })),
    keys: fc.constantFrom(3, 50, 1_000_000),
    /** Rising and falling keys always fall into the last or the first block. */
    order: fc.constantFrom("random" as const, "rising" as const, "falling" as const),
    /** All at once, together with the existing items, or one by one. */
    built: fc.boolean(),
    salt: fc.nat(),
  }),
  fc.record({
    kind: fc.constant("delete" as const),
    part: fc.constantFrom(0.01, 0.5, 0.97, 1),
    from: fc.constantFrom("anywhere" as const, "start" as const, "end" as const),
    salt: fc.nat(),
  }),
  fc.record({ kind: fc.constant("deleteAbsent" as const), salt: fc.nat() }),
);

/** Numbers below `bound`, reproducible from the salt (a linear congruential generator). */
function numbersOf(salt: number): (bound: number) => number {
  let state = salt >>> 0;
  return (bound) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * bound);
  };
}

/** The index, and a plain array that is sorted after each command. */
class Pair {
  /** By row, which is the item's ID. */
  readonly items: Item[] = [];
  readonly index = new SortedIndex((a, b) => compare(this.item(a), this.item(b)));
  plain: Item[] = [];

  item(row: number): Item {
    const item = this.items[row];
    assert.ok(item, `row ${row} is one of the test's`);
    return item;
  }

  run(what: typeof command extends fc.Arbitrary<infer T> ? T : never): void {
    const below = numbersOf(what.salt);
    if (what.kind === "insert") {
      const keys = Array.from({ length: what.count }, () => below(what.keys));
      if (what.order !== "random") {
        keys.sort((a, b) => (what.order === "rising" ? a - b : b - a));
      }
      for (const key of keys) {
        const item = { key, id: this.items.length };
        this.items.push(item);
        this.plain.push(item);
        if (!what.built) {
          this.index.insert(item.id);
        }
      }
      this.plain.sort(compare);
      if (what.built) {
        this.index.build(Uint32Array.from(this.plain, ({ id }) => id));
      }
    } else if (what.kind === "delete") {
      const count = Math.ceil(this.plain.length * what.part);
      const shuffled = [...this.plain];
      if (what.from === "end") {
        shuffled.reverse();
      } else if (what.from === "anywhere") {
        for (let n = shuffled.length - 1; n > 0; n--) {
          const other = below(n + 1);
          [shuffled[n], shuffled[other]] = [shuffled[other] as Item, shuffled[n] as Item];
        }
      }
      const deleted = new Set(shuffled.slice(0, count));
      for (const item of deleted) {
        assert.equal(this.index.delete(item.id), true);
        assert.equal(this.index.delete(item.id), false, "it was deleted before");
      }
      this.plain = this.plain.filter((item) => !deleted.has(item));
    } else {
      const id = this.items.length;
      this.items.push({ key: below(1_000), id });
      assert.equal(this.index.delete(id), false, "it was never in the index");
      this.items.push({ key: 2_000_000, id: id + 1 });
      assert.equal(this.index.delete(id + 1), false, "it would be the last");
      const some = this.plain[below(this.plain.length)];
      if (some !== undefined) {
        this.items.push({ ...some });
        assert.equal(this.index.delete(id + 2), false, "an item with an equal key is a different item");
      }
    }
  }

  check(): void {
    assert.equal(this.index.size, this.plain.length);
    const rows = this.plain.map(({ id }) => id);
    assert.deepEqual(ascending(this.index), rows);
    assert.deepEqual(descending(this.index), rows.reverse());
  }

  /** From a point at an item, between two items, and beyond both ends. */
  checkFrom(point: Item): void {
    const isAfter = (row: number): boolean => compare(this.item(row), point) > 0;
    const isBefore = (row: number): boolean => compare(this.item(row), point) < 0;
    const rows = this.plain.map(({ id }) => id);
    assert.deepEqual(ascending(this.index, isAfter), rows.filter(isAfter));
    assert.deepEqual(descending(this.index, isBefore), rows.filter(isBefore).reverse());
    const far = (row: number): boolean => this.item(row).key > point.key + 10;
    const range = this.index.range(isAfter, far);
    const within: number[] = [];
    range.forEach((row) => {
      within.push(row);
    });
    assert.deepEqual(
      within,
      rows.filter((row) => isAfter(row) && !far(row)),
    );
    assert.equal(range.size, within.length);
  }
}

describe("SortedIndex", () => {
  it("behaves like a sorted array, over several blocks", (t) => {
    let largest = 0;
    fc.assert(
      fc.property(fc.array(command, { minLength: 1, maxLength: 8 }), fc.nat(), (commands, salt) => {
        const pair = new Pair();
        const below = numbersOf(salt);
        for (const what of commands) {
          pair.run(what);
          largest = Math.max(largest, pair.index.size);
          pair.check();
          const some = pair.plain[below(pair.plain.length)];
          for (const point of [
            { key: -1, id: 0 },
            { key: 2 ** 31, id: 0 },
            some,
            some && { ...some, id: some.id + 0.5 },
          ]) {
            if (point !== undefined) {
              pair.checkFrom(point);
            }
          }
        }
      }),
      { seed: seedOf(t), numRuns: 40 },
    );
    t.diagnostic(`the largest index had ${largest} items`);
  });

  it("is empty at first, and stops when the visitor does", () => {
    const index = new SortedIndex((a, b) => a - b);
    const firstOf = (walk: "ascending" | "descending", beyond?: Beyond): number[] => {
      const rows: number[] = [];
      index[walk](beyond, (row) => rows.push(row) < 2);
      return rows;
    };
    assert.deepEqual(ascending(index), []);
    assert.deepEqual(descending(index), []);
    assert.equal(
      index.range(
        () => true,
        () => false,
      ).size,
      0,
    );
    assert.equal(index.delete(1), false);
    for (let row = 0; row < 5_000; row++) {
      index.insert(row);
    }
    assert.deepEqual(firstOf("ascending"), [0, 1]);
    assert.deepEqual(firstOf("descending"), [4_999, 4_998]);
    assert.deepEqual(
      firstOf("ascending", (row) => row > 4_000),
      [4_001, 4_002],
    );
    assert.deepEqual(
      firstOf("descending", (row) => row < 1_024),
      [1_023, 1_022],
    );
  });
});
