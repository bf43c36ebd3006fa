import assert from "node:assert/strict";
import { it } from "node:test";
import type { Line } from "../../server/inventory/reservation.ts";
import { type Bench, expectTold, HOUR_MS, newId, QUANTITY_MAX } from "./reservation-bench.ts";

export function releaseRules(newBench: () => Bench): void {
  it("gives all units back, once", async () => {
    const bench = newBench();
    const [lamp, torch] = [await bench.shelf(10), await bench.shelf(5)];
    const id = newId("r");
    await bench.reserve(id, [lamp.units(3), torch.units(1)]);
    const released = await bench.calls.release(id);
    expectTold(released, { state: "released", committedLines: [], revived: false });
    assert.deepEqual(await bench.calls.get(id), released);
    await lamp.expect({ reserved: 0, sold: 0, version: 3, available: 10 });
    assert.deepEqual((await lamp.recorded()).at(-1), ["released", 3, id]);
    assert.deepEqual((await torch.recorded()).at(-1), ["released", 1, id]);
    await bench.repeated(id, () => bench.calls.release(id));
  });

  it("remembers an unknown ID, so that a reserve that comes too late holds nothing", async () => {
    const bench = newBench();
    const shelf = await bench.shelf(10);
    const id = newId("r");
    const tombstone = await bench.calls.release(id);
    expectTold(tombstone, { reservationId: id, state: "released", lines: [], committedLines: [] });
    assert.equal(tombstone.expireTimeMs, undefined);
    assert.equal(tombstone.revived, false);
    assert.deepEqual(await bench.calls.get(id), tombstone);
    const { message } = await bench.refused("RESERVATION_ENDED", () => bench.reserve(id, [shelf.units(1)]));
    assert.ok(message.includes(id), message);
    await bench.repeated(id, () => bench.calls.release(id));
    await bench.refused("RESERVATION_ENDED", () => bench.commit(id));
    await bench.refused("RESERVATION_ENDED", () => bench.calls.extend(id, HOUR_MS));
    await bench.refused("RESERVATION_ENDED", () => bench.return(id, newId("ret"), [shelf.units(1)]));
  });

  it("refuses a committed reservation", async () => {
    const bench = newBench();
    const shelf = await bench.shelf(10);
    const id = newId("r");
    await bench.reserve(id, [shelf.units(3)]);
    await bench.commit(id);
    await bench.refused("RESERVATION_ENDED", () => bench.calls.release(id));
    await bench.return(id, newId("ret"), [shelf.units(3)]);
    await bench.refused("RESERVATION_ENDED", () => bench.calls.release(id));
  });

  it("shuts the late commit out of an expired reservation, and leaves the ledger alone", async () => {
    const bench = newBench();
    const shelf = await bench.shelf(10);
    const id = newId("r");
    await bench.reserveExpired(id, [shelf.units(3)]);
    const { version } = await shelf.ledger();
    expectTold(await bench.calls.release(id), { state: "released", lines: [shelf.units(3)] });
    await shelf.expect({ reserved: 0, version, available: 10 });
    await bench.refused("RESERVATION_ENDED", () => bench.commit(id));
    await bench.repeated(id, () => bench.calls.release(id));
    await bench.repeated(id, () => bench.reserve(id, [shelf.units(3)]));
  });

  it("releases one that is past its deadline and not swept up yet", async () => {
    const bench = newBench();
    const shelf = await bench.shelf(10);
    const id = newId("r");
    await bench.reserveLapsed(id, [shelf.units(3)]);
    expectTold(await bench.calls.release(id), { state: "released" });
    await bench.sweep();
    await bench.expectState(id, { state: "released" });
    assert.deepEqual(await shelf.recorded(), [
      ["reserved", -3, id],
      ["released", 3, id],
    ]);
  });
}

export function returnRules(newBench: () => Bench): void {
  it("puts units back on hand, step by step down to nothing sold", async () => {
    const bench = newBench();
    const [lamp, torch] = [await bench.shelf(10), await bench.shelf(5)];
    const id = newId("r");
    const [first, second] = [newId("ret"), newId("ret")];
    await bench.reserve(id, [lamp.units(3), torch.units(2)]);
    const committed = await bench.commit(id);
    const partly: Line[] = [lamp.units(2), torch.units(2)];
    expectTold(await bench.return(id, first, [lamp.units(1)]), {
      state: "committed",
      committedLines: partly,
    });
    await lamp.expect({ sold: 2, reserved: 0, available: 8 });
    await torch.expect({ sold: 2, version: 3 });
    assert.deepEqual((await lamp.recorded()).at(-1), ["returned", 1, first]);
    const nothing: Line[] = [lamp.units(0), torch.units(0)];
    const returned = await bench.return(id, second, partly.toReversed());
    expectTold(returned, { state: "committed", committedLines: nothing, endTimeMs: committed.endTimeMs });
    assert.deepEqual(await bench.calls.get(id), returned);
    await lamp.expect({ sold: 0, available: 10 });
    await torch.expect({ sold: 0, available: 5 });
    assert.deepEqual((await torch.recorded()).at(-1), ["returned", 2, second]);
  });

  it("answers a repetition with the reservation as it is, and returns nothing twice", async () => {
    const bench = newBench();
    const [lamp, torch] = [await bench.shelf(10), await bench.shelf(5)];
    const id = newId("r");
    const [first, second] = [newId("ret"), newId("ret")];
    const lines: Line[] = [lamp.units(2), torch.units(2)];
    await bench.reserve(id, lines);
    await bench.commit(id);
    await bench.return(id, first, lines);
    await bench.repeated(id, () => bench.return(id, first, lines));
    await bench.repeated(id, () => bench.return(id, first, lines.toReversed()));
    await bench.refused("RETURN_TOO_LARGE", () => bench.return(id, second, [lamp.units(1)]));
    await torch.delete();
    await bench.repeated(id, () => bench.return(id, first, lines));
  });

  it("refuses an ID that stands for another return, of whichever reservation", async () => {
    const bench = newBench();
    const [lamp, torch] = [await bench.shelf(10), await bench.shelf(5)];
    const [one, two, active] = [newId("r"), newId("r"), newId("r")];
    const returnId = newId("ret");
    for (const id of [one, two, active]) {
      await bench.reserve(id, [lamp.units(2), torch.units(1)]);
    }
    await bench.commit(one);
    await bench.commit(two);
    await bench.return(one, returnId, [lamp.units(1)]);
    for (const lines of [[lamp.units(2)], [torch.units(1)]]) {
      const { message } = await bench.refused("ID_REUSED", () => bench.return(one, returnId, lines));
      assert.match(message, /return_id/);
    }
    await bench.refused("ID_REUSED", () => bench.return(two, returnId, [lamp.units(1)]));
    await bench.refused("RESERVATION_UNKNOWN", () => bench.return(newId("r"), returnId, [lamp.units(1)]));
    // IDs of other operations are others.
    const { productId } = lamp;
    await bench.store.adjustStock({ productId, delta: 1, adjustmentId: returnId, reason: "" });
    await bench.return(two, one, [lamp.units(1)]);
    await lamp.expect({ adjusted: 1, sold: 2 });
  });

  it("refuses more than was sold and not returned, all lines or none, and leaves the ID free", async () => {
    const bench = newBench();
    const [lamp, torch, other] = [await bench.shelf(10), await bench.shelf(5), await bench.shelf(5)];
    const id = newId("r");
    const returnId = newId("ret");
    await bench.reserve(id, [lamp.units(3), torch.units(2)]);
    await bench.commit(id, [lamp.units(2)]);
    const tooLarge: Line[][] = [[lamp.units(3)], [torch.units(1)], [lamp.units(1), torch.units(1)]];
    for (const lines of tooLarge) {
      await bench.refused("RETURN_TOO_LARGE", () => bench.return(id, returnId, lines));
    }
    const { message } = await bench.refused("RETURN_TOO_LARGE", () =>
      bench.return(id, returnId, [lamp.units(QUANTITY_MAX)]),
    );
    assert.ok(message.includes(lamp.productId), message);
    const { violations } = await bench.refused("INVALID_INPUT", () =>
      bench.return(id, returnId, [lamp.units(1), other.units(1)]),
    );
    assert.deepEqual(
      violations.map((violation) => violation.field),
      ["lines[1].product_id"],
    );
    await bench.return(id, returnId, [lamp.units(2)]);
    await lamp.expect({ sold: 0, available: 10 });
  });

  it("refuses what is unknown or not committed", async () => {
    const bench = newBench();
    const shelf = await bench.shelf(20);
    const [unknown, active, released, expired] = Array.from({ length: 4 }, () => newId("r"));
    assert.ok(unknown && active && released && expired);
    const returnId = newId("ret");
    await bench.refused("RESERVATION_UNKNOWN", () => bench.return(unknown, returnId, [shelf.units(1)]));
    await bench.reserve(active, [shelf.units(3)]);
    await bench.reserve(released, [shelf.units(3)]);
    await bench.calls.release(released);
    await bench.reserveExpired(expired, [shelf.units(3)]);
    for (const id of [active, released, expired]) {
      await bench.refused("RESERVATION_ENDED", () => bench.return(id, returnId, [shelf.units(1)]));
    }
    await bench.commit(expired);
    await bench.return(expired, returnId, [shelf.units(3)]);
    await shelf.expect({ sold: 0, reserved: 3 });
  });

  it("returns once what is sent many times at once, and never more than was sold", async () => {
    const bench = newBench();
    const shelf = await bench.shelf(10);
    const id = newId("r");
    const same = newId("ret");
    await bench.reserve(id, [shelf.units(6)]);
    await bench.commit(id, [shelf.units(4)]);
    await Promise.all(Array.from({ length: 10 }, () => bench.return(id, same, [shelf.units(1)])));
    await shelf.expect({ sold: 3 });
    const outcomes = await Promise.allSettled(
      Array.from({ length: 8 }, () => bench.return(id, newId("ret"), [shelf.units(2)])),
    );
    assert.equal(outcomes.filter(({ status }) => status === "fulfilled").length, 1);
    await shelf.expect({ sold: 1, version: 5 });
  });
}
