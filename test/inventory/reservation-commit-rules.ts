import assert from "node:assert/strict";
import { it } from "node:test";
import type { Line } from "../../server/inventory/reservation.ts";
import { type Bench, expectTold, newId, QUANTITY_MAX, short, U } from "./reservation-bench.ts";

export function commitRules(newBench: () => Bench): void {
  it("turns all that is held into sold, and moves nothing that shoppers see", async () => {
    const bench = newBench();
    const [lamp, torch] = [await bench.shelf(10), await bench.shelf(5)];
    const id = newId("r");
    const { createTimeMs, expireTimeMs, lines } = await bench.reserve(id, [lamp.units(3), torch.units(1)]);
    const committed = await bench.commit(id);
    expectTold(committed, { state: "committed", committedLines: [], revived: false });
    assert.deepEqual(
      [committed.createTimeMs, committed.expireTimeMs, committed.lines],
      [createTimeMs, expireTimeMs, lines],
    );
    assert.deepEqual(await bench.calls.get(id), committed);
    await lamp.expect({ reserved: 0, sold: 3, version: 3, available: 7 });
    await torch.expect({ reserved: 0, sold: 1, version: 3, available: 4 });
    assert.deepEqual(await lamp.recorded(), [
      ["reserved", -3, id],
      ["committed", 0, id],
    ]);
  });

  it("gives back what is not sold, and records it line by line", async () => {
    const bench = newBench();
    const [lamp, torch, bulb] = [await bench.shelf(10), await bench.shelf(5), await bench.shelf(7)];
    const id = newId("r");
    await bench.reserve(id, [lamp.units(3), torch.units(2), bulb.units(4)]);
    const committed = await bench.commit(id, [bulb.units(4), lamp.units(1)]);
    const sold: Line[] = [lamp.units(1), torch.units(0), bulb.units(4)];
    expectTold(committed, { state: "committed", committedLines: sold });
    await lamp.expect({ reserved: 0, sold: 1, available: 9 });
    await torch.expect({ reserved: 0, sold: 0, available: 5 });
    await bulb.expect({ reserved: 0, sold: 4, available: 3 });
    assert.deepEqual((await lamp.recorded()).at(-1), ["committed", 2, id]);
    assert.deepEqual((await torch.recorded()).at(-1), ["released", 2, id]);
    assert.deepEqual((await bulb.recorded()).at(-1), ["committed", 0, id]);
  });

  it("answers a repetition of the same commit, and refuses another one", async () => {
    const bench = newBench();
    const [lamp, torch] = [await bench.shelf(10), await bench.shelf(5)];
    const [whole, part] = [newId("r"), newId("r")];
    const lines: Line[] = [lamp.units(3), torch.units(1)];
    await bench.reserve(whole, lines);
    await bench.commit(whole);
    for (const again of [undefined, lines, lines.toReversed()]) {
      await bench.repeated(whole, () => bench.commit(whole, again));
    }
    await bench.refused("ID_REUSED", () => bench.commit(whole, [lamp.units(3)]));
    await bench.reserve(part, lines);
    await bench.commit(part, [lamp.units(2)]);
    await bench.repeated(part, () => bench.commit(part, [lamp.units(2)]));
    for (const other of [undefined, [lamp.units(1)], [torch.units(1)], lines]) {
      await bench.refused("ID_REUSED", () => bench.commit(part, other));
    }
    await bench.return(part, newId("ret"), [lamp.units(1)]);
    await bench.repeated(part, () => bench.commit(part, [lamp.units(2)]));
    await bench.refused("ID_REUSED", () => bench.commit(part, [lamp.units(1)]));
  });

  it("refuses to sell more than is held, or a product that is not in it, and names the line", async () => {
    const bench = newBench();
    const [lamp, torch, other] = [await bench.shelf(10), await bench.shelf(5), await bench.shelf(5)];
    const id = newId("r");
    await bench.reserve(id, [lamp.units(3), torch.units(1)]);
    const field = async (lines: readonly Line[]) => {
      const { violations } = await bench.refused("INVALID_INPUT", () => bench.commit(id, lines));
      return violations.map((violation) => violation.field);
    };
    const lamps: Line = lamp.units(3);
    assert.deepEqual(await field([lamps, torch.units(2)]), ["lines[1].quantity"]);
    assert.deepEqual(await field([lamp.units(QUANTITY_MAX)]), ["lines[0].quantity"]);
    assert.deepEqual(await field([lamps, other.units(1)]), ["lines[1].product_id"]);
    await bench.commit(id);
  });

  it("refuses an unknown reservation and a released one", async () => {
    const bench = newBench();
    const shelf = await bench.shelf(10);
    const [unknown, released] = [newId("r"), newId("r")];
    const { message } = await bench.refused("RESERVATION_UNKNOWN", () => bench.commit(unknown));
    assert.ok(message.includes(unknown), message);
    await bench.refused("RESERVATION_UNKNOWN", () => bench.calls.get(unknown));
    await bench.reserve(released, [shelf.units(3)]);
    await bench.calls.release(released);
    for (const strict of [false, true]) {
      await bench.refused("RESERVATION_ENDED", () => bench.commit(released, undefined, strict));
      await bench.refused("RESERVATION_ENDED", () => bench.commit(released, [shelf.units(1)], strict));
    }
  });

  it("sells what is held even where a count or the seller took it away", async () => {
    const bench = newBench();
    const shelf = await bench.shelf(10);
    const id = newId("r");
    await bench.reserve(id, [shelf.units(6)]);
    await shelf.count(4);
    await shelf.put(3, U + 1);
    await bench.commit(id, undefined, true);
    await shelf.expect({ declared: 3, adjusted: -6, reserved: 0, sold: 6, available: 0 });
  });

  it("lets either a commit or a release win, never both", async () => {
    const bench = newBench();
    const shelf = await bench.shelf(100);
    let committed = 0;
    for (let round = 0; round < 10; round++) {
      const id = newId("r");
      await bench.reserve(id, [shelf.units(1)]);
      const calls = [
        () => bench.commit(id),
        () => bench.calls.release(id),
        () => bench.commit(id),
        () => bench.calls.release(id),
      ];
      const order = round % 2 === 0 ? calls : calls.toReversed();
      await Promise.allSettled(order.map((call) => call()));
      const { state } = await bench.calls.get(id);
      assert.ok(state === "committed" || state === "released");
      committed += state === "committed" ? 1 : 0;
    }
    await shelf.expect({ reserved: 0, sold: committed, version: 21 });
  });
}

export function lateCommitRules(newBench: () => Bench): void {
  it("acquires the units again where they are available", async () => {
    const bench = newBench();
    const [lamp, torch] = [await bench.shelf(10), await bench.shelf(5)];
    const id = newId("r");
    await bench.reserveExpired(id, [lamp.units(3), torch.units(1)]);
    await lamp.expect({ reserved: 0, available: 10 });
    const revived = await bench.commit(id);
    expectTold(revived, { state: "committed", revived: true, committedLines: [] });
    await lamp.expect({ reserved: 0, sold: 3, available: 7 });
    assert.deepEqual(await lamp.recorded(), [
      ["reserved", -3, id],
      ["expired", 3, id],
      ["committed", -3, id],
    ]);
    await bench.repeated(id, () => bench.commit(id));
    await bench.refused("ID_REUSED", () => bench.commit(id, [lamp.units(1)]));
    await bench.refused("RESERVATION_ENDED", () => bench.calls.release(id));
  });

  it("acquires only what it sells", async () => {
    const bench = newBench();
    const [lamp, torch] = [await bench.shelf(3), await bench.shelf(5)];
    const id = newId("r");
    await bench.reserveExpired(id, [lamp.units(3), torch.units(1)]);
    await bench.reserve(newId("r"), [lamp.units(2)]);
    const sold: Line[] = [lamp.units(1), torch.units(0)];
    expectTold(await bench.commit(id, [lamp.units(1)]), { revived: true, committedLines: sold });
    await lamp.expect({ reserved: 2, sold: 1, available: 0 });
    // No unit of the torch moved, so nothing was recorded for it.
    assert.deepEqual(
      (await torch.recorded()).map(([cause]) => cause),
      ["reserved", "expired"],
    );
  });

  it("refuses all lines with a shortage where one is gone, and may succeed later", async () => {
    const bench = newBench();
    const [lamp, torch, bulb] = [await bench.shelf(3), await bench.shelf(5), await bench.shelf(1)];
    const id = newId("r");
    await bench.reserveExpired(id, [lamp.units(3), torch.units(2), bulb.units(1)]);
    await bench.reserve(newId("r"), [lamp.units(1)]);
    await bench.store.setSafetyStock(bulb.productId, 1);
    const { shortage } = await bench.refused("STOCK_SHORT", () => bench.commit(id));
    assert.deepEqual(shortage, [short(lamp, 3, 2), short(bulb, 1, 0)]);
    const part = await bench.refused("STOCK_SHORT", () => bench.commit(id, [torch.units(1), bulb.units(1)]));
    assert.deepEqual(part.shortage, [short(bulb, 1, 0)]);
    await bench.expectState(id, { state: "expired", revived: false });
    await lamp.count(4);
    await bench.store.setSafetyStock(bulb.productId, 0);
    expectTold(await bench.commit(id), { state: "committed", revived: true });
    await lamp.expect({ reserved: 1, sold: 3, available: 0 });
  });

  it("refuses at once if strict, and leaves the way open for one that is not", async () => {
    const bench = newBench();
    const shelf = await bench.shelf(10);
    const [expired, lapsed] = [newId("r"), newId("r")];
    await bench.reserveExpired(expired, [shelf.units(3)]);
    await bench.reserveLapsed(lapsed, [shelf.units(3)]);
    for (const id of [expired, lapsed]) {
      const { message } = await bench.refused("RESERVATION_ENDED", () => bench.commit(id, undefined, true));
      assert.match(message, /expired/);
      expectTold(await bench.commit(id), { state: "committed", revived: true });
    }
    await shelf.expect({ reserved: 0, sold: 6, available: 4 });
  });

  it("counts a reservation past its deadline as expired before anybody swept it up", async () => {
    const bench = newBench();
    const shelf = await bench.shelf(5);
    const id = newId("r");
    await bench.reserveLapsed(id, [shelf.units(5)]);
    await shelf.expect({ reserved: 5, available: 0 }); // until the sweeper comes
    expectTold(await bench.commit(id, [shelf.units(4)]), { state: "committed", revived: true });
    await shelf.expect({ reserved: 0, sold: 4, version: 3, available: 1 });
    assert.deepEqual((await shelf.recorded()).at(-1), ["committed", 1, id]);
    await bench.sweep();
    await bench.expectState(id, { state: "committed" });
    await shelf.expect({ version: 3 });
  });

  it("does not let a reservation past its deadline take what is not there any more", async () => {
    const bench = newBench();
    const shelf = await bench.shelf(5);
    const id = newId("r");
    await bench.reserveLapsed(id, [shelf.units(4)]);
    await shelf.count(3);
    const { shortage } = await bench.refused("STOCK_SHORT", () => bench.commit(id));
    assert.deepEqual(shortage, [short(shelf, 4, 3)], "its own hold does not stand against it");
    expectTold(await bench.commit(id, [shelf.units(3)]), { revived: true });
    await shelf.expect({ reserved: 0, sold: 3, available: 0 });
  });
}
