import assert from "node:assert/strict";
import { it } from "node:test";
import type { Line } from "../../server/inventory/reservation.ts";
import {
  expectReservation,
  newId,
  QUANTITY_MAX,
  type ReservationFixture,
  short,
  U,
} from "./reservation-fixture.ts";

export function commitRules(newFixture: () => ReservationFixture): void {
  it("converts all held units to sold ones, without a change of available", async () => {
    const fixture = newFixture();
    const [lamp, torch] = [await fixture.shelf(10), await fixture.shelf(5)];
    const id = newId("r");
    const { createTimeMs, expireTimeMs, lines } = await fixture.reserve(id, [lamp.units(3), torch.units(1)]);
    const committed = await fixture.commit(id);
    expectReservation(committed, { state: "committed", committedLines: [], revived: false });
    assert.deepEqual(
      [committed.createTimeMs, committed.expireTimeMs, committed.lines],
      [createTimeMs, expireTimeMs, lines],
    );
    assert.deepEqual(await fixture.calls.get(id), committed);
    await lamp.expect({ reserved: 0, sold: 3, version: 3, available: 7 });
    await torch.expect({ reserved: 0, sold: 1, version: 3, available: 4 });
    assert.deepEqual(await lamp.recorded(), [
      ["reserved", -3, id],
      ["committed", 0, id],
    ]);
  });

  it("returns unsold units to stock, and records it per line", async () => {
    const fixture = newFixture();
    const [lamp, torch, bulb] = [await fixture.shelf(10), await fixture.shelf(5), await fixture.shelf(7)];
    const id = newId("r");
    await fixture.reserve(id, [lamp.units(3), torch.units(2), bulb.units(4)]);
    const committed = await fixture.commit(id, [bulb.units(4), lamp.units(1)]);
    const sold: Line[] = [lamp.units(1), torch.units(0), bulb.units(4)];
    expectReservation(committed, { state: "committed", committedLines: sold });
    await lamp.expect({ reserved: 0, sold: 1, available: 9 });
    await torch.expect({ reserved: 0, sold: 0, available: 5 });
    await bulb.expect({ reserved: 0, sold: 4, available: 3 });
    assert.deepEqual((await lamp.recorded()).at(-1), ["committed", 2, id]);
    assert.deepEqual((await torch.recorded()).at(-1), ["released", 2, id]);
    assert.deepEqual((await bulb.recorded()).at(-1), ["committed", 0, id]);
  });

  it("accepts a repetition of the same commit, and rejects a different one", async () => {
    const fixture = newFixture();
    const [lamp, torch] = [await fixture.shelf(10), await fixture.shelf(5)];
    const [whole, part] = [newId("r"), newId("r")];
    const lines: Line[] = [lamp.units(3), torch.units(1)];
    await fixture.reserve(whole, lines);
    await fixture.commit(whole);
    for (const again of [undefined, lines, lines.toReversed()]) {
      await fixture.repeated(whole, () => fixture.commit(whole, again));
    }
    await fixture.refused("ID_REUSED", () => fixture.commit(whole, [lamp.units(3)]));
    await fixture.reserve(part, lines);
    await fixture.commit(part, [lamp.units(2)]);
    await fixture.repeated(part, () => fixture.commit(part, [lamp.units(2)]));
    for (const other of [undefined, [lamp.units(1)], [torch.units(1)], lines]) {
      await fixture.refused("ID_REUSED", () => fixture.commit(part, other));
    }
    await fixture.return(part, newId("ret"), [lamp.units(1)]);
    await fixture.repeated(part, () => fixture.commit(part, [lamp.units(2)]));
    await fixture.refused("ID_REUSED", () => fixture.commit(part, [lamp.units(1)]));
  });

  it("rejects more units than are held, or a product that is not in it, and names the line", async () => {
    const fixture = newFixture();
    const [lamp, torch, other] = [await fixture.shelf(10), await fixture.shelf(5), await fixture.shelf(5)];
    const id = newId("r");
    await fixture.reserve(id, [lamp.units(3), torch.units(1)]);
    const field = async (lines: readonly Line[]) => {
      const { violations } = await fixture.refused("INVALID_INPUT", () => fixture.commit(id, lines));
      return violations.map((violation) => violation.field);
    };
    const lamps: Line = lamp.units(3);
    assert.deepEqual(await field([lamps, torch.units(2)]), ["lines[1].quantity"]);
    assert.deepEqual(await field([lamp.units(QUANTITY_MAX)]), ["lines[0].quantity"]);
    assert.deepEqual(await field([lamps, other.units(1)]), ["lines[1].product_id"]);
    await fixture.commit(id);
  });

  it("sums the lines of a product, and quotes each of them as sent in an error", async () => {
    const fixture = newFixture();
    const [lamp, torch, other] = [await fixture.shelf(10), await fixture.shelf(5), await fixture.shelf(5)];
    const id = newId("r");
    await fixture.reserve(id, [lamp.units(1), torch.units(1), lamp.units(2)]);
    await fixture.expectState(id, { lines: [lamp.units(3), torch.units(1)] });
    const violations = async (lines: readonly Line[]) =>
      (await fixture.refused("INVALID_INPUT", () => fixture.commit(id, lines))).violations;
    const lampId = JSON.stringify(lamp.productId);
    assert.deepEqual(await violations([lamp.units(2), torch.units(1), lamp.units(4)]), [
      {
        field: "lines[0].quantity",
        description: `is 2, and the lines of ${lampId} have 6 in total; 3 of ${lampId} are held`,
      },
      {
        field: "lines[2].quantity",
        description: `is 4, and the lines of ${lampId} have 6 in total; 3 of ${lampId} are held`,
      },
    ]);
    const missing = `is ${JSON.stringify(other.productId)}, which is not in the reservation`;
    assert.deepEqual(await violations([lamp.units(1), lamp.units(1), other.units(1), other.units(1)]), [
      { field: "lines[2].product_id", description: missing },
      { field: "lines[3].product_id", description: missing },
    ]);
    const committed = await fixture.commit(id, [lamp.units(1), torch.units(1), lamp.units(1)]);
    assert.deepEqual(committed.committedLines, [lamp.units(2), torch.units(1)]);
    await fixture.repeated(id, () => fixture.commit(id, [torch.units(1), lamp.units(2)]));
  });

  it("rejects an unknown reservation and a released one", async () => {
    const fixture = newFixture();
    const shelf = await fixture.shelf(10);
    const [unknown, released] = [newId("r"), newId("r")];
    const { message } = await fixture.refused("RESERVATION_UNKNOWN", () => fixture.commit(unknown));
    assert.ok(message.includes(unknown), message);
    await fixture.refused("RESERVATION_UNKNOWN", () => fixture.calls.get(unknown));
    await fixture.reserve(released, [shelf.units(3)]);
    await fixture.calls.release(released);
    for (const strict of [false, true]) {
      await fixture.refused("RESERVATION_ENDED", () => fixture.commit(released, undefined, strict));
      await fixture.refused("RESERVATION_ENDED", () => fixture.commit(released, [shelf.units(1)], strict));
    }
  });

  it("sells held units even if a count or the seller removed them", async () => {
    const fixture = newFixture();
    const shelf = await fixture.shelf(10);
    const id = newId("r");
    await fixture.reserve(id, [shelf.units(6)]);
    await shelf.count(4);
    await shelf.put(3, U + 1);
    await fixture.commit(id, undefined, true);
    await shelf.expect({ declared: 3, adjusted: -6, reserved: 0, sold: 6, available: 0 });
  });

  it("lets either a concurrent commit or a release succeed, never both", async () => {
    const fixture = newFixture();
    const shelf = await fixture.shelf(100);
    let committed = 0;
    for (let round = 0; round < 10; round++) {
      const id = newId("r");
      await fixture.reserve(id, [shelf.units(1)]);
      const calls = [
        () => fixture.commit(id),
        () => fixture.calls.release(id),
        () => fixture.commit(id),
        () => fixture.calls.release(id),
      ];
      const order = round % 2 === 0 ? calls : calls.toReversed();
      await Promise.allSettled(order.map((call) => call()));
      const { state } = await fixture.calls.get(id);
      assert.ok(state === "committed" || state === "released");
      committed += state === "committed" ? 1 : 0;
    }
    await shelf.expect({ reserved: 0, sold: committed, version: 21 });
  });
}

export function lateCommitRules(newFixture: () => ReservationFixture): void {
  it("re-acquires the units if they are available", async () => {
    const fixture = newFixture();
    const [lamp, torch] = [await fixture.shelf(10), await fixture.shelf(5)];
    const id = newId("r");
    await fixture.reserveExpired(id, [lamp.units(3), torch.units(1)]);
    await lamp.expect({ reserved: 0, available: 10 });
    const revived = await fixture.commit(id);
    expectReservation(revived, { state: "committed", revived: true, committedLines: [] });
    await lamp.expect({ reserved: 0, sold: 3, available: 7 });
    assert.deepEqual(await lamp.recorded(), [
      ["reserved", -3, id],
      ["expired", 3, id],
      ["reserved", -3, id],
      ["committed", 0, id],
    ]);
    await fixture.repeated(id, () => fixture.commit(id));
    await fixture.refused("ID_REUSED", () => fixture.commit(id, [lamp.units(1)]));
    await fixture.refused("RESERVATION_ENDED", () => fixture.calls.release(id));
  });

  it("re-acquires only the units that it sells", async () => {
    const fixture = newFixture();
    const [lamp, torch] = [await fixture.shelf(3), await fixture.shelf(5)];
    const id = newId("r");
    await fixture.reserveExpired(id, [lamp.units(3), torch.units(1)]);
    await fixture.reserve(newId("r"), [lamp.units(2)]);
    const sold: Line[] = [lamp.units(1), torch.units(0)];
    expectReservation(await fixture.commit(id, [lamp.units(1)]), { revived: true, committedLines: sold });
    await lamp.expect({ reserved: 2, sold: 1, available: 0 });
    // No unit of the torch was moved, so it has no change record.
    assert.deepEqual(
      (await torch.recorded()).map(([cause]) => cause),
      ["reserved", "expired"],
    );
  });

  it("rejects all lines with a shortage if one is short, and may succeed later", async () => {
    const fixture = newFixture();
    const [lamp, torch, bulb] = [await fixture.shelf(3), await fixture.shelf(5), await fixture.shelf(1)];
    const id = newId("r");
    await fixture.reserveExpired(id, [lamp.units(3), torch.units(2), bulb.units(1)]);
    await fixture.reserve(newId("r"), [lamp.units(1)]);
    await fixture.store.setSafetyStock(bulb.productId, 1);
    const { shortage } = await fixture.refused("STOCK_SHORT", () => fixture.commit(id));
    assert.deepEqual(shortage, [short(lamp, 3, 2, 4), short(bulb, 1, 0, 4)]);
    const part = await fixture.refused("STOCK_SHORT", () =>
      fixture.commit(id, [torch.units(1), bulb.units(1)]),
    );
    assert.deepEqual(part.shortage, [short(bulb, 1, 0, 4)]);
    await fixture.expectState(id, { state: "expired", revived: false });
    await lamp.count(4);
    await fixture.store.setSafetyStock(bulb.productId, 0);
    expectReservation(await fixture.commit(id), { state: "committed", revived: true });
    await lamp.expect({ reserved: 1, sold: 3, available: 0 });
  });

  it("rejects if strict, and a later commit without strict may succeed", async () => {
    const fixture = newFixture();
    const shelf = await fixture.shelf(10);
    const [expired, lapsed] = [newId("r"), newId("r")];
    await fixture.reserveExpired(expired, [shelf.units(3)]);
    await fixture.reserveLapsed(lapsed, [shelf.units(3)]);
    for (const id of [expired, lapsed]) {
      const { message } = await fixture.refused("RESERVATION_ENDED", () =>
        fixture.commit(id, undefined, true),
      );
      assert.match(message, /expired/);
      expectReservation(await fixture.commit(id), { state: "committed", revived: true });
    }
    await shelf.expect({ reserved: 0, sold: 6, available: 4 });
  });

  it("treats a reservation past its deadline as expired before it is swept", async () => {
    const fixture = newFixture();
    const shelf = await fixture.shelf(5);
    const id = newId("r");
    await fixture.reserveLapsed(id, [shelf.units(5)]);
    await shelf.expect({ reserved: 5, available: 0 }); // until the sweeper comes
    expectReservation(await fixture.commit(id, [shelf.units(4)]), { state: "committed", revived: true });
    await shelf.expect({ reserved: 0, sold: 4, version: 3, available: 1 });
    assert.deepEqual((await shelf.recorded()).at(-1), ["committed", 1, id]);
    await fixture.sweep();
    await fixture.expectState(id, { state: "committed" });
    await shelf.expect({ version: 3 });
  });

  it("sells what a reservation past its deadline holds until it is swept, as before the deadline", async () => {
    const fixture = newFixture();
    const shelf = await fixture.shelf(5);
    const id = newId("r");
    await fixture.reserveLapsed(id, [shelf.units(4)]);
    await shelf.count(3);
    expectReservation(await fixture.commit(id), { revived: true });
    await shelf.expect({ reserved: 0, sold: 4, available: 0 });
  });
}
