import assert from "node:assert/strict";
import { it } from "node:test";
import type { Line } from "../../server/inventory/reservation.ts";
import {
  expectReservation,
  HOUR_MS,
  newId,
  QUANTITY_MAX,
  type ReservationFixture,
} from "./reservation-fixture.ts";

export function releaseRules(newFixture: () => ReservationFixture): void {
  it("returns all units to stock, once", async () => {
    const fixture = newFixture();
    const [lamp, torch] = [await fixture.shelf(10), await fixture.shelf(5)];
    const id = newId("r");
    await fixture.reserve(id, [lamp.units(3), torch.units(1)]);
    const released = await fixture.calls.release(id);
    expectReservation(released, { state: "released", committedLines: [], revived: false });
    assert.deepEqual(await fixture.calls.get(id), released);
    await lamp.expect({ reserved: 0, sold: 0, version: 3, available: 10 });
    assert.deepEqual((await lamp.recorded()).at(-1), ["released", 3, id]);
    assert.deepEqual((await torch.recorded()).at(-1), ["released", 1, id]);
    await fixture.repeated(id, () => fixture.calls.release(id));
  });

  it("records an unknown ID, so that a delayed reserve holds nothing", async () => {
    const fixture = newFixture();
    const shelf = await fixture.shelf(10);
    const id = newId("r");
    const tombstone = await fixture.calls.release(id);
    expectReservation(tombstone, { reservationId: id, state: "released", lines: [], committedLines: [] });
    assert.equal(tombstone.expireTimeMs, undefined);
    assert.equal(tombstone.revived, false);
    assert.deepEqual(await fixture.calls.get(id), tombstone);
    const { message } = await fixture.refused("RESERVATION_ENDED", () =>
      fixture.reserve(id, [shelf.units(1)]),
    );
    assert.ok(message.includes(id), message);
    await fixture.repeated(id, () => fixture.calls.release(id));
    await fixture.refused("RESERVATION_ENDED", () => fixture.commit(id));
    await fixture.refused("RESERVATION_ENDED", () => fixture.calls.extend(id, HOUR_MS));
    await fixture.refused("RESERVATION_ENDED", () => fixture.return(id, newId("ret"), [shelf.units(1)]));
  });

  it("rejects a committed reservation", async () => {
    const fixture = newFixture();
    const shelf = await fixture.shelf(10);
    const id = newId("r");
    await fixture.reserve(id, [shelf.units(3)]);
    await fixture.commit(id);
    await fixture.refused("RESERVATION_ENDED", () => fixture.calls.release(id));
    await fixture.return(id, newId("ret"), [shelf.units(3)]);
    await fixture.refused("RESERVATION_ENDED", () => fixture.calls.release(id));
  });

  it("prevents a late commit of an expired reservation, without a change of the ledger", async () => {
    const fixture = newFixture();
    const shelf = await fixture.shelf(10);
    const id = newId("r");
    await fixture.reserveExpired(id, [shelf.units(3)]);
    const { version } = await shelf.ledger();
    expectReservation(await fixture.calls.release(id), { state: "released", lines: [shelf.units(3)] });
    await shelf.expect({ reserved: 0, version, available: 10 });
    await fixture.refused("RESERVATION_ENDED", () => fixture.commit(id));
    await fixture.repeated(id, () => fixture.calls.release(id));
    await fixture.repeated(id, () => fixture.reserve(id, [shelf.units(3)]));
  });

  it("releases a reservation that is past its deadline and not yet swept", async () => {
    const fixture = newFixture();
    const shelf = await fixture.shelf(10);
    const id = newId("r");
    await fixture.reserveLapsed(id, [shelf.units(3)]);
    expectReservation(await fixture.calls.release(id), { state: "released" });
    await fixture.sweep();
    await fixture.expectState(id, { state: "released" });
    assert.deepEqual(await shelf.recorded(), [
      ["reserved", -3, id],
      ["released", 3, id],
    ]);
  });
}

export function returnRules(newFixture: () => ReservationFixture): void {
  it("returns units to on hand, step by step until nothing is sold", async () => {
    const fixture = newFixture();
    const [lamp, torch] = [await fixture.shelf(10), await fixture.shelf(5)];
    const id = newId("r");
    const [first, second] = [newId("ret"), newId("ret")];
    await fixture.reserve(id, [lamp.units(3), torch.units(2)]);
    const committed = await fixture.commit(id);
    const partly: Line[] = [lamp.units(2), torch.units(2)];
    expectReservation(await fixture.return(id, first, [lamp.units(1)]), {
      state: "committed",
      committedLines: partly,
    });
    await lamp.expect({ sold: 2, reserved: 0, available: 8 });
    await torch.expect({ sold: 2, version: 3 });
    assert.deepEqual((await lamp.recorded()).at(-1), ["returned", 1, first]);
    const nothing: Line[] = [lamp.units(0), torch.units(0)];
    const returned = await fixture.return(id, second, partly.toReversed());
    expectReservation(returned, {
      state: "committed",
      committedLines: nothing,
      endTimeMs: committed.endTimeMs,
    });
    assert.deepEqual(await fixture.calls.get(id), returned);
    await lamp.expect({ sold: 0, available: 10 });
    await torch.expect({ sold: 0, available: 5 });
    assert.deepEqual((await torch.recorded()).at(-1), ["returned", 2, second]);
  });

  it("resolves a repetition with the current reservation, and returns nothing twice", async () => {
    const fixture = newFixture();
    const [lamp, torch] = [await fixture.shelf(10), await fixture.shelf(5)];
    const id = newId("r");
    const [first, second] = [newId("ret"), newId("ret")];
    const lines: Line[] = [lamp.units(2), torch.units(2)];
    await fixture.reserve(id, lines);
    await fixture.commit(id);
    await fixture.return(id, first, lines);
    await fixture.repeated(id, () => fixture.return(id, first, lines));
    await fixture.repeated(id, () => fixture.return(id, first, lines.toReversed()));
    await fixture.refused("RETURN_TOO_LARGE", () => fixture.return(id, second, [lamp.units(1)]));
    await torch.delete();
    await fixture.repeated(id, () => fixture.return(id, first, lines));
  });

  it("rejects an ID of another return of the reservation, and accepts it for another reservation", async () => {
    const fixture = newFixture();
    const [lamp, torch] = [await fixture.shelf(10), await fixture.shelf(5)];
    const [one, two, active] = [newId("r"), newId("r"), newId("r")];
    const returnId = newId("ret");
    for (const id of [one, two, active]) {
      await fixture.reserve(id, [lamp.units(2), torch.units(1)]);
    }
    await fixture.commit(one);
    await fixture.commit(two);
    await fixture.return(one, returnId, [lamp.units(1)]);
    for (const lines of [[lamp.units(2)], [torch.units(1)]]) {
      const { message } = await fixture.refused("ID_REUSED", () => fixture.return(one, returnId, lines));
      assert.match(message, /return_id/);
    }
    await fixture.return(two, returnId, [lamp.units(2)]);
    await fixture.repeated(two, () => fixture.return(two, returnId, [lamp.units(2)]));
    await fixture.refused("ID_REUSED", () => fixture.return(two, returnId, [lamp.units(1)]));
    await fixture.refused("RESERVATION_UNKNOWN", () => fixture.return(newId("r"), returnId, [lamp.units(1)]));
    // Operation IDs of other kinds do not collide.
    const { productId } = lamp;
    await fixture.store.adjustStock({ productId, delta: 1, adjustmentId: returnId, reason: "" });
    await fixture.return(two, one, [torch.units(1)]);
    await lamp.expect({ adjusted: 1, sold: 1 });
    await torch.expect({ sold: 1 });
  });

  it("rejects more than was sold and not yet returned, all lines or none, and does not use up the ID", async () => {
    const fixture = newFixture();
    const [lamp, torch, other] = [await fixture.shelf(10), await fixture.shelf(5), await fixture.shelf(5)];
    const id = newId("r");
    const returnId = newId("ret");
    await fixture.reserve(id, [lamp.units(3), torch.units(2)]);
    await fixture.commit(id, [lamp.units(2)]);
    const tooLarge: Line[][] = [[lamp.units(3)], [torch.units(1)], [lamp.units(1), torch.units(1)]];
    for (const lines of tooLarge) {
      await fixture.refused("RETURN_TOO_LARGE", () => fixture.return(id, returnId, lines));
    }
    const { message } = await fixture.refused("RETURN_TOO_LARGE", () =>
      fixture.return(id, returnId, [lamp.units(QUANTITY_MAX)]),
    );
    assert.ok(message.includes(lamp.productId), message);
    const { violations } = await fixture.refused("INVALID_INPUT", () =>
      fixture.return(id, returnId, [lamp.units(1), other.units(1)]),
    );
    assert.deepEqual(
      violations.map((violation) => violation.field),
      ["lines[1].product_id"],
    );
    await fixture.return(id, returnId, [lamp.units(2)]);
    await lamp.expect({ sold: 0, available: 10 });
  });

  it("sums the lines of a product, and quotes each line of a product that is not in it as sent", async () => {
    const fixture = newFixture();
    const [lamp, other] = [await fixture.shelf(10), await fixture.shelf(10)];
    const id = newId("r");
    await fixture.reserve(id, [lamp.units(3)]);
    await fixture.commit(id);
    const lines = [lamp.units(1), lamp.units(1), other.units(1)];
    const { violations } = await fixture.refused("INVALID_INPUT", () =>
      fixture.return(id, newId("ret"), lines),
    );
    assert.deepEqual(
      violations.map(({ field }) => field),
      ["lines[2].product_id"],
    );
    const returned = await fixture.return(id, newId("ret"), [lamp.units(1), lamp.units(1)]);
    assert.deepEqual(returned.committedLines, [lamp.units(1)]);
  });

  it("rejects an unknown or uncommitted reservation", async () => {
    const fixture = newFixture();
    const shelf = await fixture.shelf(20);
    const [unknown, active, released, expired] = Array.from({ length: 4 }, () => newId("r"));
    assert.ok(unknown && active && released && expired);
    const returnId = newId("ret");
    await fixture.refused("RESERVATION_UNKNOWN", () => fixture.return(unknown, returnId, [shelf.units(1)]));
    await fixture.reserve(active, [shelf.units(3)]);
    await fixture.reserve(released, [shelf.units(3)]);
    await fixture.calls.release(released);
    await fixture.reserveExpired(expired, [shelf.units(3)]);
    for (const id of [active, released, expired]) {
      await fixture.refused("RESERVATION_ENDED", () => fixture.return(id, returnId, [shelf.units(1)]));
    }
    await fixture.commit(expired);
    await fixture.return(expired, returnId, [shelf.units(3)]);
    await shelf.expect({ sold: 0, reserved: 3 });
  });

  it("returns units once if sent many times concurrently, and never more than were sold", async () => {
    const fixture = newFixture();
    const shelf = await fixture.shelf(10);
    const id = newId("r");
    const same = newId("ret");
    await fixture.reserve(id, [shelf.units(6)]);
    await fixture.commit(id, [shelf.units(4)]);
    await Promise.all(Array.from({ length: 10 }, () => fixture.return(id, same, [shelf.units(1)])));
    await shelf.expect({ sold: 3 });
    const outcomes = await Promise.allSettled(
      Array.from({ length: 8 }, () => fixture.return(id, newId("ret"), [shelf.units(2)])),
    );
    assert.equal(outcomes.filter(({ status }) => status === "fulfilled").length, 1);
    await shelf.expect({ sold: 1, version: 5 });
  });
}
