import assert from "node:assert/strict";
import { it } from "node:test";
import {
  type Bench,
  expectTold,
  hasLapsed,
  newId,
  QUANTITY_MAX,
  RUN,
  SOON_MS,
  short,
  U,
} from "./reservation-bench.ts";

export function deletionRules(newBench: () => Bench): void {
  it("holds nothing more of a deleted product", async () => {
    const bench = newBench();
    const [shelf, gone] = [await bench.shelf(10), await bench.shelf(10)];
    await gone.delete();
    const { message } = await bench.refused("PRODUCT_UNKNOWN", () =>
      bench.reserve(newId("r"), [shelf.units(1), gone.units(1)]),
    );
    assert.ok(message.includes(gone.productId), message);
  });

  it("lets what is held be committed, returned, released, extended, and expire", async () => {
    const bench = newBench();
    const shelf = await bench.shelf(20);
    const [sold, released, expired] = [newId("r"), newId("r"), newId("r")];
    await bench.reserve(sold, [shelf.units(3)]);
    await bench.reserve(released, [shelf.units(4)]);
    await bench.reserve(expired, [shelf.units(5)]);
    await shelf.delete();
    await bench.commit(sold, [shelf.units(2)]);
    await bench.calls.release(released);
    await hasLapsed(await bench.calls.extend(expired, SOON_MS));
    await bench.sweep();
    await bench.expectState(expired, { state: "expired" });
    await shelf.expect({ reserved: 0, sold: 2, deleted: true });
    const returnId = newId("ret");
    await bench.return(sold, returnId, [shelf.units(1)]);
    await shelf.expect({ sold: 1, version: 9, deleted: true });
    assert.deepEqual(
      (await shelf.recorded()).slice(4).map(([cause, delta]) => [cause, delta]),
      [
        ["committed", 1],
        ["released", 4],
        ["expired", 5],
        ["returned", 1],
      ],
    );
    await shelf.put(20, U + 2);
    await shelf.expect({ sold: 1, reserved: 0, deleted: false, available: 19 });
  });

  it("has nothing available for a late commit while the product is deleted", async () => {
    const bench = newBench();
    const shelf = await bench.shelf(10);
    const [expired, lapsed] = [newId("r"), newId("r")];
    await bench.reserveExpired(expired, [shelf.units(3)]);
    await bench.reserveLapsed(lapsed, [shelf.units(2)]);
    await shelf.delete();
    const refusals = [
      await bench.refused("STOCK_SHORT", () => bench.commit(expired)),
      await bench.refused("STOCK_SHORT", () => bench.commit(lapsed)),
    ];
    assert.deepEqual(
      refusals.map(({ shortage }) => shortage),
      [[short(shelf, 3, 0)], [short(shelf, 2, 0)]],
    );
    await shelf.put(10, U + 2);
    expectTold(await bench.commit(expired), { revived: true });
    expectTold(await bench.commit(lapsed), { revived: true });
    await shelf.expect({ sold: 5, reserved: 0 });
  });
}

export function sizeRules(newBench: () => Bench): void {
  it("holds, sells in part, and takes back 100 lines, all or none", async () => {
    const bench = newBench();
    const shelves = await Promise.all(Array.from({ length: 100 }, (_, n) => bench.shelf(n + 1)));
    const all = (quantity: (n: number) => number) =>
      shelves.map((shelf, n) => shelf.units(quantity(n))).filter((line) => line.quantity > 0);
    const [refused, id, returnId] = [newId("r"), newId("r"), newId("ret")];
    const tooMany = all((n) => (n === 99 ? 101 : n + 1));
    const { shortage } = await bench.refused("STOCK_SHORT", () => bench.reserve(refused, tooMany));
    assert.deepEqual(
      shortage.map((line) => [line.requested, line.available]),
      [[101, 100]],
    );
    const everyShort = await bench.refused("STOCK_SHORT", () =>
      bench.reserve(
        refused,
        all((n) => n + 2),
      ),
    );
    assert.deepEqual(
      everyShort.shortage,
      shelves.map((shelf, n) => short(shelf, n + 2, n + 1)),
    );
    const reserved = await bench.reserve(
      id,
      all((n) => n + 1),
    );
    expectTold(reserved, { lines: all((n) => n + 1) });
    const sold = (n: number) => (n % 3 === 0 ? 0 : n % 3 === 1 ? n : n + 1);
    const committed = await bench.commit(id, all(sold));
    assert.deepEqual(
      committed.committedLines.map(({ quantity }) => quantity),
      shelves.map((_, n) => sold(n)),
    );
    await bench.return(id, returnId, all(sold));
    for (const [n, shelf] of shelves.entries()) {
      await shelf.expect({ reserved: 0, sold: 0, available: n + 1 });
      const expected = [
        ["reserved", -(n + 1), id],
        [sold(n) > 0 ? "committed" : "released", n + 1 - sold(n), id],
        ...(sold(n) > 0 ? [["returned", sold(n), returnId]] : []),
      ];
      assert.deepEqual(await shelf.recorded(), expected);
    }
  });

  it("holds the largest quantities exactly", async () => {
    const bench = newBench();
    const shelf = await bench.shelf(QUANTITY_MAX);
    const id = newId("r");
    await bench.reserve(id, [shelf.units(QUANTITY_MAX)]);
    await shelf.expect({ reserved: QUANTITY_MAX, available: 0 });
    await bench.commit(id, [shelf.units(QUANTITY_MAX - 1)]);
    await bench.return(id, newId("ret"), [shelf.units(QUANTITY_MAX - 2)]);
    await shelf.expect({ reserved: 0, sold: 1, available: QUANTITY_MAX - 1 });
    await bench.expectState(id, { committedLines: [shelf.units(1)] });
  });

  it("tells odd IDs apart, and keeps them to the letter", async () => {
    const bench = newBench();
    const odd = ["a b", "a:b", "{a}", "}{", "a/b", "a\\b", "'a'", '"a"', "[1,2]", "__proto__", "%s", "%1"];
    const more = [
      "-1",
      "1e3",
      "café",
      "cafe\u0301",
      "商品",
      "🛋️",
      "A",
      "a",
      "null",
      "\u2028",
      "x".repeat(100),
    ];
    const words = [...odd, ...more].map((text) => `${text}${RUN}`);
    const shelves = await Promise.all(words.map((word, n) => bench.shelf(n + 2, `p${word}`)));
    for (const [n, word] of words.entries()) {
      const shelf = shelves[n];
      assert.ok(shelf);
      const reserved = await bench.reserve(word, [shelf.units(2)]);
      expectTold(reserved, { reservationId: word, lines: [shelf.units(2)] });
    }
    for (const [n, word] of words.entries()) {
      const shelf = shelves[n];
      assert.ok(shelf);
      await bench.repeated(word, () => bench.reserve(word, [shelf.units(2)]));
      await bench.commit(word, [shelf.units(1)]);
      await bench.return(word, word, [shelf.units(1)]);
      assert.deepEqual(await shelf.recorded(), [
        ["reserved", -2, word],
        ["committed", 1, word],
        ["returned", 1, word],
      ]);
      await shelf.expect({ reserved: 0, sold: 0, available: n + 2 });
    }
  });
}
