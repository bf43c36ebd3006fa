import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import type { ProductState } from "../../server/inventory/feed.ts";
import { sortByNumber } from "../../server/live/catalog/sort-numbers.ts";
import { sortRows, textKey } from "../../server/live/catalog/sort-rows.ts";
import { CHANGED, CHANGED_ALL, NO_ROW, ProductTable } from "../../server/live/products/product-table.ts";
import {
  type Bytes,
  bytesOf,
  compareBytes,
  compareNatural,
  foldText,
  NaturalKeyWriter,
} from "../../server/live/products/text-order.ts";
import { detailsOf, seedOf, stateOf } from "./states.ts";

const text = fc.string({ unit: "grapheme", maxLength: 12 });
const put = fc.record({
  kind: fc.constant("put" as const),
  id: fc.oneof(fc.integer({ min: 0, max: 40 }).map(String), fc.constantFrom("ä", "日本", "💡")),
  available: fc.nat(3),
  price: fc.constantFrom(0, 0.5, 1e12),
  collectionId: fc.constantFrom("", "c1", "c2", "c3"),
  name: fc.option(text, { nil: undefined }),
  /** Long texts fill the chunks. */
  description: fc.oneof(
    text,
    fc.integer({ min: 0, max: 16_000 }).map((length) => "x".repeat(length)),
  ),
  deleted: fc.nat(5).map((n) => n === 0),
  isReserved: fc.boolean(),
  isShort: fc.boolean(),
});
const remove = fc.record({ kind: fc.constant("remove" as const), id: put.map(({ id }) => id) });
const command = fc.oneof({ weight: 9, arbitrary: put }, { weight: 1, arbitrary: remove });
type Command = typeof command extends fc.Arbitrary<infer T> ? T : never;

/** The table, a plain map of the same products, and a copy that an observer keeps. */
class Pair {
  readonly table = new ProductTable();
  readonly plain = new Map<string, ProductState>();
  readonly rows = new Map<string, number>();
  /** The visible products, as the observer copied them. */
  readonly followed = new Map<number, ProductState>();

  constructor() {
    this.table.observe({
      beforeChange: (row) => {
        const { available, price, collection } = this.#columns(row);
        const before = this.followed.get(row);
        assert.ok(before, "it was notified of the product before");
        assert.equal(available, before.available, "the columns still have the old values");
        assert.equal(price, before.details?.price ?? 0);
        assert.equal(collection, this.#collectionOf(before));
        this.followed.delete(row);
      },
      afterChange: (row, changed) => {
        assert.ok(changed >= 0 && changed <= CHANGED_ALL);
        this.followed.set(row, { ...this.table.state(row) });
      },
    });
  }

  run(what: Command, version: number): void {
    const row = this.table.find(what.id);
    assert.equal(row, this.rows.get(what.id) ?? NO_ROW);
    if (what.kind === "remove") {
      if (row !== NO_ROW) {
        this.table.remove(row);
        this.rows.delete(what.id);
        this.plain.delete(what.id);
      }
      return;
    }
    const { available, deleted, price, collectionId, description, isReserved, isShort } = what;
    const details =
      what.name === undefined ? undefined : detailsOf(what.name, { price, collectionId, description });
    const state = stateOf(what.id, version, { available, deleted, details, isReserved, isShort });
    const put = this.table.put(state);
    assert.ok(row === NO_ROW || put === row, "a product keeps its row");
    this.rows.set(what.id, put);
    this.plain.set(what.id, state);
  }

  check(): void {
    assert.equal(this.table.size, this.plain.size);
    assert.equal(new Set(this.rows.values()).size, this.rows.size, "rows are distinct");
    for (const [id, state] of this.plain) {
      const row = this.table.find(id);
      assert.equal(row, this.rows.get(id));
      assert.deepEqual(this.table.state(row), state);
      assert.equal(this.table.isVisible(row), !state.deleted);
      assert.equal(this.table.isReserved(row), state.isReserved);
      assert.equal(this.table.isShort(row), state.isShort);
    }
    const visible = [...this.plain.values()].filter(({ deleted }) => !deleted);
    assert.equal([...this.table.visibleRows()].length, visible.length);
    assert.deepEqual(
      new Map([...this.followed.values()].map((state) => [state.productId, state])),
      new Map(visible.map((state) => [state.productId, state])),
    );
  }

  #columns(row: number) {
    const { table } = this;
    return { available: table.available(row), price: table.price(row), collection: table.collection(row) };
  }

  #collectionOf(state: ProductState): number {
    return this.table.collectionNumber(state.details?.collectionId ?? "") ?? NO_ROW;
  }
}

describe("ProductTable", () => {
  it("behaves like a plain map, and notifies an observer before and after each change", (t) => {
    fc.assert(
      fc.property(fc.array(command, { minLength: 1, maxLength: 400, size: "max" }), (commands) => {
        const pair = new Pair();
        for (const [n, what] of commands.entries()) {
          pair.run(what, n + 1);
        }
        pair.check();
      }),
      { seed: seedOf(t), numRuns: 60 },
    );
  });

  it("keeps 30,000 products while their texts are rewritten, in bounded memory", () => {
    const table = new ProductTable();
    const stateAt = (n: number, round: number): ProductState =>
      stateOf(`product-${n}`, round, {
        details: detailsOf(`${n} of ${round}`, { description: "d".repeat(n % 200) }),
      });
    let atFirst = 0;
    for (let round = 1; round <= 4; round++) {
      for (let n = 0; n < 30_000; n++) {
        table.put(stateAt(n, round));
      }
      atFirst ||= table.textBytes;
      assert.ok(table.textBytes <= 2.5 * atFirst, `${table.textBytes} bytes of texts in round ${round}`);
    }
    for (let n = 0; n < 30_000; n += 7) {
      assert.deepEqual(table.state(table.find(`product-${n}`)), stateAt(n, 4));
    }
  });

  it("returns the same object for a product until it changes, and keeps unchanged details", () => {
    const table = new ProductTable();
    const details = detailsOf("name");
    const row = table.put(stateOf("p", 1, { details }));
    const first = table.state(row);
    assert.equal(table.state(row), first);
    table.put(stateOf("p", 2, { details: first.details }));
    assert.notEqual(table.state(row), first);
    assert.equal(table.state(row).details, first.details);
  });

  it("reports which columns changed", () => {
    const table = new ProductTable();
    const reported: number[] = [];
    table.observe({ beforeChange: () => {}, afterChange: (_, changed) => reported.push(changed) });
    const before = stateOf("p", 1, { available: 1, updateTimeMs: 1, details: detailsOf("a") });
    table.put(before);
    table.put({ ...before, version: 2, available: 2 });
    table.put({ ...before, version: 3, available: 2, updateTimeMs: 2 });
    table.put({ ...before, version: 4, available: 2, updateTimeMs: 2, details: detailsOf("b") });
    table.put({
      ...before,
      version: 5,
      available: 2,
      updateTimeMs: 2,
      details: detailsOf("b", { price: 9 }),
    });
    assert.deepEqual(reported, [
      CHANGED_ALL,
      CHANGED.available,
      CHANGED.updateTime,
      CHANGED.text,
      CHANGED.price,
    ]);
  });
});

describe("sortRows", () => {
  const names = fc.array(
    fc.oneof(fc.string({ unit: fc.constantFrom("a", "b", "ä", "\0"), maxLength: 9 }), fc.string()),
    { maxLength: 200, size: "max" },
  );

  it("sorts texts by their bytes, stably", (t) => {
    fc.assert(
      fc.property(names, (texts) => {
        const rows = Uint32Array.from(texts.keys());
        const expected = [...rows].sort(
          (a, b) => Buffer.compare(Buffer.from(texts[a] ?? ""), Buffer.from(texts[b] ?? "")) || a - b,
        );
        assert.deepEqual(
          [
            ...sortRows(
              rows,
              textKey(rows, (row) => bytesOf(texts[row] ?? "")),
            ),
          ],
          expected,
        );
      }),
      { seed: seedOf(t), numRuns: 300 },
    );
  });

  it("sorts names in natural order, as they are compared", (t) => {
    const name = fc.string({
      unit: fc.constantFrom("0", "1", "2", "9", "a", "A", " ", ":", "/", "é"),
      maxLength: 30,
    });
    const writer = new NaturalKeyWriter();
    fc.assert(
      fc.property(name, name, (a, b) => {
        const [left, right] = [a, b].map((text) => bytesOf(foldText(text))) as [Bytes, Bytes];
        const key = { ...writer.write(left) };
        const keyOfA = { ...key, bytes: key.bytes.slice() };
        const order = Math.sign(compareNatural(left, right));
        assert.equal(Math.sign(compareBytes(keyOfA, writer.write(right))), order);
        assert.equal(Math.sign(compareNatural(right, left)), 0 - order);
      }),
      { seed: seedOf(t), numRuns: 5_000 },
    );
  });

  it("sorts non-negative numbers, including fractions", (t) => {
    const number = fc.oneof(
      fc.constantFrom(0, -0, 0.01, 0.1, 1, 5e-324, 2 ** 31, 2 ** 53 - 1),
      fc.nat(5),
      fc.double({ min: 0, max: 1e12, noNaN: true }),
      // Times, and numbers that differ in the middle of their bits.
      fc.nat(5_000).map((n) => 1.7e12 + n),
      fc.nat(255).map((n) => 1 + n * 2 ** -24),
    );
    fc.assert(
      fc.property(fc.array(number, { maxLength: 200, size: "max" }), (numbers) => {
        const rows = Uint32Array.from(numbers.keys());
        const expected = [...rows].sort((a, b) => (numbers[a] ?? 0) - (numbers[b] ?? 0) || a - b);
        assert.deepEqual([...sortByNumber(rows, (row) => numbers[row] ?? 0)], expected);
      }),
      { seed: seedOf(t), numRuns: 300 },
    );
  });
});
