import assert from "node:assert/strict";
import { it } from "node:test";
import { InventoryError } from "../../server/inventory/errors.ts";
import type { Line } from "../../server/inventory/reservation.ts";
import { newId, type ReservationFixture, Shelf, short } from "./reservation-fixture.ts";

export function reserveRules(newFixture: () => ReservationFixture): void {
  it("holds the units, returns the reservation, and records the change", async () => {
    const fixture = newFixture();
    const [lamp, torch] = [await fixture.shelf(10), await fixture.shelf(5)];
    const id = newId("r");
    const lines = [torch.units(5), lamp.units(3)] as const;
    const startMs = Date.now();
    const reservation = await fixture.reserve(id, lines, 90_000);
    assert.deepEqual(reservation, {
      reservationId: id,
      state: "active",
      lines,
      committedLines: [],
      createTimeMs: reservation.createTimeMs,
      expireTimeMs: reservation.createTimeMs + 90_000,
      endTimeMs: undefined,
      revived: false,
    });
    assert.ok(reservation.createTimeMs >= startMs - 1 && reservation.createTimeMs <= Date.now() + 1);
    assert.deepEqual(await fixture.calls.get(id), reservation);
    await lamp.expect({ declared: 10, reserved: 3, sold: 0, version: 2, available: 7 });
    await torch.expect({ declared: 5, reserved: 5, sold: 0, version: 2, available: 0 });
    assert.deepEqual(await lamp.recorded(), [["reserved", -3, id]]);
    assert.deepEqual(await torch.recorded(), [["reserved", -5, id]]);
    const change = (await lamp.changes()).at(-1);
    assert.equal(change?.reason, "");
    assert.equal(change?.changeTimeMs, (await fixture.store.getStock(lamp.productId)).updateTimeMs);
  });

  it("holds all lines or none, and names every line that is short", async () => {
    const fixture = newFixture();
    const [one, two, three] = [await fixture.shelf(1), await fixture.shelf(2), await fixture.shelf(3)];
    const id = newId("r");
    const { shortage, message } = await fixture.refused("STOCK_SHORT", () =>
      fixture.reserve(id, [three.units(4), two.units(2), one.units(5)]),
    );
    assert.deepEqual(shortage, [short(three, 4, 3), short(one, 5, 1)]);
    assert.ok(message.includes(three.productId) && message.includes(one.productId), message);
    await fixture.refused("RESERVATION_UNKNOWN", () => fixture.calls.get(id));
    // The failed reserve did not use up the ID.
    await fixture.reserve(id, [three.units(3)]);
    await three.expect({ reserved: 3 });
  });

  it("accounts for other reservations and safety stock, to the last unit", async () => {
    const fixture = newFixture();
    const shelf = await fixture.shelf(10);
    await fixture.store.setSafetyStock(shelf.productId, 2);
    await fixture.reserve(newId("r"), [shelf.units(5)]);
    const refusal = await fixture.refused("STOCK_SHORT", () => fixture.reserve(newId("r"), [shelf.units(4)]));
    assert.deepEqual(refusal.shortage, [short(shelf, 4, 3, 3)]);
    await fixture.reserve(newId("r"), [shelf.units(3)]);
    const none = await fixture.refused("STOCK_SHORT", () => fixture.reserve(newId("r"), [shelf.units(1)]));
    assert.deepEqual(none.shortage, [short(shelf, 1, 0, 4)]);
    await shelf.count(0);
    const below = await fixture.refused("STOCK_SHORT", () => fixture.reserve(newId("r"), [shelf.units(1)]));
    assert.deepEqual(below.shortage, [short(shelf, 1, 0, 5)], "below 0 shows as 0");
  });

  it("rejects all lines if one product is unknown", async () => {
    const fixture = newFixture();
    const shelf = await fixture.shelf(10);
    const unknown = new Shelf(fixture.store, newId("unknown"), false);
    const id = newId("r");
    for (const lines of [[shelf.units(1), unknown.units(1)], [unknown.units(1)]]) {
      const { message } = await fixture.refused("PRODUCT_UNKNOWN", () => fixture.reserve(id, lines));
      assert.ok(message.includes(unknown.productId), message);
    }
    await fixture.reserve(id, [shelf.units(1)]);
  });

  it("resolves a repetition with the current reservation, and holds nothing more", async () => {
    const fixture = newFixture();
    const [lamp, torch] = [await fixture.shelf(10), await fixture.shelf(5)];
    const id = newId("r");
    const lines: Line[] = [torch.units(5), lamp.units(3)];
    await fixture.reserve(id, lines);
    await fixture.repeated(id, () => fixture.reserve(id, lines));
    await fixture.repeated(id, () => fixture.reserve(id, lines, 1));
    await fixture.repeated(id, () => fixture.reserve(id, lines.toReversed()));
    await torch.delete();
    await fixture.repeated(id, () => fixture.reserve(id, lines));
    await fixture.commit(id, [lamp.units(2)]);
    await fixture.repeated(id, () => fixture.reserve(id, lines));
  });

  it("resolves a repetition after a release and after expiry, and holds nothing", async () => {
    const fixture = newFixture();
    const shelf = await fixture.shelf(10);
    const [released, expired] = [newId("r"), newId("r")];
    await fixture.reserve(released, [shelf.units(3)]);
    await fixture.calls.release(released);
    await fixture.repeated(released, () => fixture.reserve(released, [shelf.units(3)]));
    await fixture.reserveExpired(expired, [shelf.units(3)]);
    await fixture.repeated(expired, () => fixture.reserve(expired, [shelf.units(3)]));
    await shelf.expect({ reserved: 0, available: 10 });
  });

  it("rejects an ID of a reservation with other lines, in any state", async () => {
    const fixture = newFixture();
    const [lamp, torch] = [await fixture.shelf(10), await fixture.shelf(5)];
    const id = newId("r");
    await fixture.reserve(id, [lamp.units(3)]);
    const refuseAll = async () => {
      const lamps: Line = lamp.units(3);
      for (const lines of [[lamp.units(4)], [torch.units(3)], [lamps, torch.units(1)]]) {
        const { message } = await fixture.refused("ID_REUSED", () => fixture.reserve(id, lines));
        assert.match(message, /reservation_id/);
      }
    };
    await refuseAll();
    await fixture.commit(id);
    await refuseAll();
    const released = newId("r");
    await fixture.reserve(released, [lamp.units(1)]);
    await fixture.calls.release(released);
    await fixture.refused("ID_REUSED", () => fixture.reserve(released, [lamp.units(2)]));
  });

  it("holds units once if sent many times concurrently", async () => {
    const fixture = newFixture();
    const shelf = await fixture.shelf(10);
    const id = newId("r");
    const answers = await Promise.all(
      Array.from({ length: 30 }, () => fixture.reserve(id, [shelf.units(2)])),
    );
    const expected = await fixture.calls.get(id);
    assert.ok(answers.every((answer) => answer.expireTimeMs === expected.expireTimeMs));
    await shelf.expect({ reserved: 2, version: 2 });
  });

  it("tells which IDs have a record, whatever their state", async () => {
    const fixture = newFixture();
    const shelf = await fixture.shelf(10);
    const [active, expired, tombstone] = [newId("r"), newId("r"), newId("r")];
    const [refused, unknown] = [newId("r"), newId("r")];
    const { reservations } = fixture.store;
    await fixture.reserve(active, [shelf.units(1)]);
    await fixture.reserveExpired(expired, [shelf.units(1)]);
    await reservations.release(tombstone);
    await fixture.refused("STOCK_SHORT", () => fixture.reserve(refused, [shelf.units(11)]));
    const known = await reservations.findKnown([unknown, tombstone, active, refused, expired]);
    assert.deepEqual([...known].sort(), [active, expired, tombstone].sort());
    assert.deepEqual([...(await reservations.findKnown([unknown]))], []);
  });

  it("holds no unit twice for concurrent buyers", async () => {
    const fixture = newFixture();
    const [lamp, torch] = [await fixture.shelf(20), await fixture.shelf(1_000)];
    const outcomes = await Promise.allSettled(
      Array.from({ length: 60 }, (_, n) =>
        n % 2 === 0
          ? fixture.reserve(newId("r"), [torch.units(1), lamp.units(1)])
          : fixture.reserve(newId("r"), [lamp.units(1), torch.units(1)]),
      ),
    );
    const held = outcomes.filter(({ status }) => status === "fulfilled").length;
    assert.equal(held, 20);
    for (const outcome of outcomes) {
      if (outcome.status === "rejected") {
        assert.ok(outcome.reason instanceof InventoryError);
        assert.deepEqual(outcome.reason.shortage, [short(lamp, 1, 0, 21)]);
      }
    }
    await lamp.expect({ reserved: 20, version: 21, available: 0 });
    const version = fixture.recordsRefusedHolds ? (await torch.ledger()).version : 21;
    await torch.expect({ reserved: 20, version, available: 980 });
    assert.equal((await lamp.recorded()).length, 20);
  });
}
