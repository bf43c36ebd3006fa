import assert from "node:assert/strict";
import { it } from "node:test";
import { InventoryError } from "../../server/inventory/errors.ts";
import type { Line } from "../../server/inventory/reservation.ts";
import { type Bench, newId, Shelf, short } from "./reservation-bench.ts";

export function reserveRules(newBench: () => Bench): void {
  it("holds the units, tells of the hold, and records it", async () => {
    const bench = newBench();
    const [lamp, torch] = [await bench.shelf(10), await bench.shelf(5)];
    const id = newId("r");
    const lines = [torch.units(5), lamp.units(3)] as const;
    const startMs = Date.now();
    const reservation = await bench.reserve(id, lines, 90_000);
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
    assert.deepEqual(await bench.calls.get(id), reservation);
    await lamp.expect({ declared: 10, reserved: 3, sold: 0, version: 2, available: 7 });
    await torch.expect({ declared: 5, reserved: 5, sold: 0, version: 2, available: 0 });
    assert.deepEqual(await lamp.recorded(), [["reserved", -3, id]]);
    assert.deepEqual(await torch.recorded(), [["reserved", -5, id]]);
    const change = (await lamp.changes()).at(-1);
    assert.equal(change?.reason, "");
    assert.equal(change?.changeTimeMs, (await bench.store.getStock(lamp.productId)).updateTimeMs);
  });

  it("holds all lines or none, and names every line that is short", async () => {
    const bench = newBench();
    const [one, two, three] = [await bench.shelf(1), await bench.shelf(2), await bench.shelf(3)];
    const id = newId("r");
    const { shortage, message } = await bench.refused("STOCK_SHORT", () =>
      bench.reserve(id, [three.units(4), two.units(2), one.units(5)]),
    );
    assert.deepEqual(shortage, [short(three, 4, 3), short(one, 5, 1)]);
    assert.ok(message.includes(three.productId) && message.includes(one.productId), message);
    await bench.refused("RESERVATION_UNKNOWN", () => bench.calls.get(id));
    // The refusal has left the ID free.
    await bench.reserve(id, [three.units(3)]);
    await three.expect({ reserved: 3 });
  });

  it("counts what others hold and what is kept back, to the last unit", async () => {
    const bench = newBench();
    const shelf = await bench.shelf(10);
    await bench.store.setSafetyStock(shelf.productId, 2);
    await bench.reserve(newId("r"), [shelf.units(5)]);
    const refusal = await bench.refused("STOCK_SHORT", () => bench.reserve(newId("r"), [shelf.units(4)]));
    assert.deepEqual(refusal.shortage, [short(shelf, 4, 3)]);
    await bench.reserve(newId("r"), [shelf.units(3)]);
    const none = await bench.refused("STOCK_SHORT", () => bench.reserve(newId("r"), [shelf.units(1)]));
    assert.deepEqual(none.shortage, [short(shelf, 1, 0)]);
    await shelf.count(0);
    const below = await bench.refused("STOCK_SHORT", () => bench.reserve(newId("r"), [shelf.units(1)]));
    assert.deepEqual(below.shortage, [short(shelf, 1, 0)], "below 0 shows as 0");
  });

  it("refuses all lines for one unknown product", async () => {
    const bench = newBench();
    const shelf = await bench.shelf(10);
    const unknown = new Shelf(bench.store, newId("unknown"));
    const id = newId("r");
    for (const lines of [[shelf.units(1), unknown.units(1)], [unknown.units(1)]]) {
      const { message } = await bench.refused("PRODUCT_UNKNOWN", () => bench.reserve(id, lines));
      assert.ok(message.includes(unknown.productId), message);
    }
    await bench.reserve(id, [shelf.units(1)]);
  });

  it("answers a repetition with the reservation as it is, and holds nothing more", async () => {
    const bench = newBench();
    const [lamp, torch] = [await bench.shelf(10), await bench.shelf(5)];
    const id = newId("r");
    const lines: Line[] = [torch.units(5), lamp.units(3)];
    await bench.reserve(id, lines);
    await bench.repeated(id, () => bench.reserve(id, lines));
    await bench.repeated(id, () => bench.reserve(id, lines, 1));
    await bench.repeated(id, () => bench.reserve(id, lines.toReversed()));
    await torch.delete();
    await bench.repeated(id, () => bench.reserve(id, lines));
    await bench.commit(id, [lamp.units(2)]);
    await bench.repeated(id, () => bench.reserve(id, lines));
  });

  it("answers a repetition after a release and after expiry, and holds nothing", async () => {
    const bench = newBench();
    const shelf = await bench.shelf(10);
    const [released, expired] = [newId("r"), newId("r")];
    await bench.reserve(released, [shelf.units(3)]);
    await bench.calls.release(released);
    await bench.repeated(released, () => bench.reserve(released, [shelf.units(3)]));
    await bench.reserveExpired(expired, [shelf.units(3)]);
    await bench.repeated(expired, () => bench.reserve(expired, [shelf.units(3)]));
    await shelf.expect({ reserved: 0, available: 10 });
  });

  it("refuses an ID that stands for other lines, whatever became of it", async () => {
    const bench = newBench();
    const [lamp, torch] = [await bench.shelf(10), await bench.shelf(5)];
    const id = newId("r");
    await bench.reserve(id, [lamp.units(3)]);
    const refuseAll = async () => {
      const lamps: Line = lamp.units(3);
      for (const lines of [[lamp.units(4)], [torch.units(3)], [lamps, torch.units(1)]]) {
        const { message } = await bench.refused("ID_REUSED", () => bench.reserve(id, lines));
        assert.match(message, /reservation_id/);
      }
    };
    await refuseAll();
    await bench.commit(id);
    await refuseAll();
    const released = newId("r");
    await bench.reserve(released, [lamp.units(1)]);
    await bench.calls.release(released);
    await bench.refused("ID_REUSED", () => bench.reserve(released, [lamp.units(2)]));
  });

  it("holds once what is sent many times at once", async () => {
    const bench = newBench();
    const shelf = await bench.shelf(10);
    const id = newId("r");
    const answers = await Promise.all(Array.from({ length: 30 }, () => bench.reserve(id, [shelf.units(2)])));
    const expected = await bench.calls.get(id);
    assert.ok(answers.every((answer) => answer.expireTimeMs === expected.expireTimeMs));
    await shelf.expect({ reserved: 2, version: 2 });
  });

  it("sells no unit twice to buyers who come at once", async () => {
    const bench = newBench();
    const [lamp, torch] = [await bench.shelf(20), await bench.shelf(1_000)];
    const outcomes = await Promise.allSettled(
      Array.from({ length: 60 }, (_, n) =>
        n % 2 === 0
          ? bench.reserve(newId("r"), [torch.units(1), lamp.units(1)])
          : bench.reserve(newId("r"), [lamp.units(1), torch.units(1)]),
      ),
    );
    const held = outcomes.filter(({ status }) => status === "fulfilled").length;
    assert.equal(held, 20);
    for (const outcome of outcomes) {
      if (outcome.status === "rejected") {
        assert.ok(outcome.reason instanceof InventoryError);
        assert.deepEqual(outcome.reason.shortage, [short(lamp, 1, 0)]);
      }
    }
    await lamp.expect({ reserved: 20, version: 21, available: 0 });
    await torch.expect({ reserved: 20, version: 21, available: 980 });
    assert.equal((await lamp.recorded()).length, 20);
  });
}
