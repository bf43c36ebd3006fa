import assert from "node:assert/strict";
import { it } from "node:test";
import {
  expectReservation,
  hasLapsed,
  newId,
  QUANTITY_MAX,
  type ReservationFixture,
  RUN,
  SOON_MS,
  short,
  U,
} from "./reservation-fixture.ts";

export function deletionRules(newFixture: () => ReservationFixture): void {
  it("rejects new reservations of a deleted product", async () => {
    const fixture = newFixture();
    const [shelf, gone] = [await fixture.shelf(10), await fixture.shelf(10)];
    await gone.delete();
    const { message } = await fixture.refused("PRODUCT_UNKNOWN", () =>
      fixture.reserve(newId("r"), [shelf.units(1), gone.units(1)]),
    );
    assert.ok(message.includes(gone.productId), message);
  });

  it("allows existing reservations to be committed, returned, released, extended, and to expire", async () => {
    const fixture = newFixture();
    const shelf = await fixture.shelf(20);
    const [sold, released, expired] = [newId("r"), newId("r"), newId("r")];
    await fixture.reserve(sold, [shelf.units(3)]);
    await fixture.reserve(released, [shelf.units(4)]);
    await fixture.reserve(expired, [shelf.units(5)]);
    await shelf.delete();
    await fixture.commit(sold, [shelf.units(2)]);
    await fixture.calls.release(released);
    await hasLapsed(await fixture.calls.extend(expired, SOON_MS));
    await fixture.sweep();
    await fixture.expectState(expired, { state: "expired" });
    await shelf.expect({ reserved: 0, sold: 2, deleted: true });
    const returnId = newId("ret");
    await fixture.return(sold, returnId, [shelf.units(1)]);
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

  it("has nothing available for a late commit while the product is deleted, unless it is not swept yet", async () => {
    const fixture = newFixture();
    const shelf = await fixture.shelf(10);
    const [expired, lapsed] = [newId("r"), newId("r")];
    await fixture.reserveExpired(expired, [shelf.units(3)]);
    await fixture.reserveLapsed(lapsed, [shelf.units(2)]);
    await shelf.delete();
    const { shortage } = await fixture.refused("STOCK_SHORT", () => fixture.commit(expired));
    assert.deepEqual(
      shortage?.map(({ version: _, ...line }) => line),
      [{ productId: shelf.productId, requested: 3, available: 0 }],
    );
    expectReservation(await fixture.commit(lapsed), { revived: true });
    await shelf.put(10, U + 2);
    expectReservation(await fixture.commit(expired), { revived: true });
    await shelf.expect({ sold: 5, reserved: 0 });
  });
}

export function sizeRules(newFixture: () => ReservationFixture): void {
  it("holds, partly sells, and takes back 100 lines, all or none", async () => {
    const fixture = newFixture();
    const shelves = await Promise.all(Array.from({ length: 100 }, (_, n) => fixture.shelf(n + 1)));
    const all = (quantity: (n: number) => number) =>
      shelves.map((shelf, n) => shelf.units(quantity(n))).filter((line) => line.quantity > 0);
    const [refused, id, returnId] = [newId("r"), newId("r"), newId("ret")];
    const tooMany = all((n) => (n === 99 ? 101 : n + 1));
    const { shortage } = await fixture.refused("STOCK_SHORT", () => fixture.reserve(refused, tooMany));
    assert.deepEqual(
      shortage.map((line) => [line.requested, line.available]),
      [[101, 100]],
    );
    const everyShort = await fixture.refused("STOCK_SHORT", () =>
      fixture.reserve(
        refused,
        all((n) => n + 2),
      ),
    );
    assert.deepEqual(
      everyShort.shortage,
      await Promise.all(
        shelves.map(async (shelf, n) => short(shelf, n + 2, n + 1, (await shelf.ledger()).version)),
      ),
    );
    const reserved = await fixture.reserve(
      id,
      all((n) => n + 1),
    );
    expectReservation(reserved, { lines: all((n) => n + 1) });
    const sold = (n: number) => (n % 3 === 0 ? 0 : n % 3 === 1 ? n : n + 1);
    const committed = await fixture.commit(id, all(sold));
    assert.deepEqual(
      committed.committedLines.map(({ quantity }) => quantity),
      shelves.map((_, n) => sold(n)),
    );
    await fixture.return(id, returnId, all(sold));
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
    const fixture = newFixture();
    const shelf = await fixture.shelf(QUANTITY_MAX);
    const id = newId("r");
    await fixture.reserve(id, [shelf.units(QUANTITY_MAX)]);
    await shelf.expect({ reserved: QUANTITY_MAX, available: 0 });
    await fixture.commit(id, [shelf.units(QUANTITY_MAX - 1)]);
    await fixture.return(id, newId("ret"), [shelf.units(QUANTITY_MAX - 2)]);
    await shelf.expect({ reserved: 0, sold: 1, available: QUANTITY_MAX - 1 });
    await fixture.expectState(id, { committedLines: [shelf.units(1)] });
  });

  it("sells on for ever, and returns only what on hand has room for", async () => {
    const fixture = newFixture();
    const shelf = await fixture.shelf(QUANTITY_MAX);
    const returned = newId("ret");
    let [id, sold] = ["", 0];
    for (let round = 1; round <= 4; round++) {
      id = newId("r");
      await fixture.reserve(id, [shelf.units(QUANTITY_MAX)]);
      await fixture.commit(id);
      sold += QUANTITY_MAX;
      await shelf.expect({ sold, reserved: 0, available: 0 });
      await shelf.count(QUANTITY_MAX);
    }
    await shelf.expect({ sold: 4 * QUANTITY_MAX, adjusted: 4 * QUANTITY_MAX, available: QUANTITY_MAX });
    const { message } = await fixture.refused("STOCK_OUT_OF_RANGE", () =>
      fixture.return(id, returned, [shelf.units(1)]),
    );
    assert.match(message, /^Cannot return 1 of .*: 2147483647 are on hand, /);
    await shelf.count(QUANTITY_MAX - 1);
    await fixture.return(id, returned, [shelf.units(1)]);
    await shelf.expect({ sold: 4 * QUANTITY_MAX - 1, available: QUANTITY_MAX });
  });

  it("rejects a declaration that takes the shortfall above the int32 maximum, and still commits what is held", async () => {
    const fixture = newFixture();
    const shelf = await fixture.shelf(QUANTITY_MAX);
    const [first, second] = [newId("r"), newId("r")];
    await fixture.reserve(first, [shelf.units(QUANTITY_MAX)]);
    await fixture.commit(first);
    await shelf.count(QUANTITY_MAX);
    await fixture.reserve(second, [shelf.units(QUANTITY_MAX)]);
    await shelf.count(1);
    await fixture.refused("STOCK_OUT_OF_RANGE", () => shelf.put(0, U + 1));
    await shelf.put(QUANTITY_MAX - 1, U + 1);
    await fixture.commit(second);
    await shelf.expect({ declared: QUANTITY_MAX - 1, sold: 2 * QUANTITY_MAX, reserved: 0, available: 0 });
  });

  it("distinguishes unusual IDs, and keeps them unchanged", async () => {
    const fixture = newFixture();
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
    const shelves = await Promise.all(words.map((word, n) => fixture.shelf(n + 2, `p${word}`)));
    for (const [n, word] of words.entries()) {
      const shelf = shelves[n];
      assert.ok(shelf);
      const reserved = await fixture.reserve(word, [shelf.units(2)]);
      expectReservation(reserved, { reservationId: word, lines: [shelf.units(2)] });
    }
    for (const [n, word] of words.entries()) {
      const shelf = shelves[n];
      assert.ok(shelf);
      await fixture.repeated(word, () => fixture.reserve(word, [shelf.units(2)]));
      await fixture.commit(word, [shelf.units(1)]);
      await fixture.return(word, word, [shelf.units(1)]);
      assert.deepEqual(await shelf.recorded(), [
        ["reserved", -2, word],
        ["committed", 1, word],
        ["returned", 1, word],
      ]);
      await shelf.expect({ reserved: 0, sold: 0, available: n + 2 });
    }
  });
}
