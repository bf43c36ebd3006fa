import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { SortedIndex } from "../../server/live/sorted-index.ts";
import { seedOf } from "./states.ts";

interface Item {
  readonly key: number;
  readonly id: number;
}

const compare = (a: Item, b: Item): number => a.key - b.key || a.id - b.id;

/** Few distinct keys make ties; many items make several blocks. */
const command = fc.oneof(
  fc.record({
    kind: fc.constant("insert" as const),
    count: fc.oneof(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 500, max: 3_000 })),
    keys: fc.constantFrom(3, 50, 1_000_000),
    /** Rising and falling keys always hit the last or the first block. */
    order: fc.constantFrom("random" as const, "rising" as const, "falling" as const),
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

/** Numbers below `bound`, always the same of one salt (a linear congruential generator). */
function numbersOf(salt: number): (bound: number) => number {
  let state = salt >>> 0;
  return (bound) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * bound);
  };
}

/** The index beside a plain array that is sorted anew after each command. */
class Pair {
  readonly index = new SortedIndex<Item>(compare);
  plain: Item[] = [];
  #ids = 0;

  run(what: typeof command extends fc.Arbitrary<infer T> ? T : never): void {
    const below = numbersOf(what.salt);
    if (what.kind === "insert") {
      const keys = Array.from({ length: what.count }, () => below(what.keys));
      if (what.order !== "random") {
        keys.sort((a, b) => (what.order === "rising" ? a - b : b - a));
      }
      for (const key of keys) {
        const item = { key, id: this.#ids++ };
        this.index.insert(item);
        this.plain.push(item);
      }
      this.plain.sort(compare);
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
      const gone = new Set(shuffled.slice(0, count));
      for (const item of gone) {
        assert.equal(this.index.delete(item), true);
        assert.equal(this.index.delete(item), false, "it is gone after the first deletion");
      }
      this.plain = this.plain.filter((item) => !gone.has(item));
    } else {
      const some = this.plain[below(this.plain.length)];
      assert.equal(this.index.delete({ key: below(1_000), id: -1 }), false);
      assert.equal(this.index.delete({ key: 2_000_000, id: 0 }), false);
      assert.equal(
        some !== undefined && this.index.delete({ ...some }),
        false,
        "an equal item is another item",
      );
    }
  }

  check(): void {
    assert.equal(this.index.size, this.plain.length);
    assert.deepEqual([...this.index.ascending()], this.plain);
    assert.deepEqual([...this.index.descending()], this.plain.toReversed());
  }

  /** From a point that is an item, from one between items, and from beyond both ends. */
  checkFrom(point: Item): void {
    const after = this.plain.filter((item) => compare(item, point) > 0);
    const before = this.plain.filter((item) => compare(item, point) < 0);
    assert.deepEqual([...this.index.ascending((item) => compare(item, point) > 0)], after);
    assert.deepEqual([...this.index.descending((item) => compare(item, point) < 0)], before.toReversed());
  }
}

describe("SortedIndex", () => {
  it("is like a plain sorted array, over several blocks", (t) => {
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

  it("can be read in part, and is empty at first", () => {
    const index = new SortedIndex<Item>(compare);
    assert.deepEqual([...index.ascending()], []);
    assert.deepEqual([...index.descending()], []);
    assert.equal(index.delete({ key: 1, id: 1 }), false);
    for (let id = 0; id < 5_000; id++) {
      index.insert({ key: 0, id });
    }
    assert.equal(index.ascending().next().value?.id, 0);
    assert.equal(index.descending().next().value?.id, 4_999);
    assert.equal(index.ascending((item) => item.id > 4_000).next().value?.id, 4_001);
    assert.equal(index.descending((item) => item.id < 1_024).next().value?.id, 1_023);
  });
});
