import assert from "node:assert/strict";
import { it } from "node:test";
import { InventoryError } from "../../server/inventory/errors.ts";
import type { Line, Reservation } from "../../server/inventory/reservation.ts";
import type { ReservationStore } from "../../server/inventory/store.ts";
import {
  type Bench,
  DAY_MS,
  expectTold,
  HOUR_MS,
  hasLapsed,
  newId,
  onOwnStore,
  SOON_MS,
} from "./reservation-bench.ts";
import type { MakeStore } from "./store-contract.ts";

/** More than any machine needs between two calls. */
const FIRST_MS_MAX = 5_000;

/** Reserves for a moment, and extends that for an hour before it is over; tells what was reserved. A machine that stood still gets more time. */
async function reserveExtended(bench: Bench, lines: readonly Line[]): Promise<Reservation> {
  for (let ttlMs = 50; ; ttlMs *= 2) {
    const first = await bench.reserve(newId("r"), lines, ttlMs);
    try {
      await bench.calls.extend(first.reservationId, HOUR_MS);
      return first;
    } catch (error) {
      assert.ok(error instanceof InventoryError && error.code === "RESERVATION_ENDED", String(error));
      assert.ok(ttlMs < FIRST_MS_MAX, `a reservation of ${ttlMs} ms cannot be extended`);
      await bench.sweep();
    }
  }
}

export function extendRules(newBench: () => Bench): void {
  it("moves the deadline to a time from now, later or sooner, and leaves the ledger alone", async () => {
    const bench = newBench();
    const shelf = await bench.shelf(10);
    const id = newId("r");
    const reserved = await bench.reserve(id, [shelf.units(3)], HOUR_MS);
    for (const ttlMs of [2 * HOUR_MS, HOUR_MS / 2]) {
      const startMs = Date.now();
      const extended = await bench.calls.extend(id, ttlMs);
      const { expireTimeMs = 0 } = extended;
      assert.deepEqual(extended, { ...reserved, expireTimeMs });
      assert.ok(expireTimeMs >= startMs - 1 + ttlMs && expireTimeMs <= Date.now() + 1 + ttlMs);
      assert.deepEqual(await bench.calls.get(id), extended);
    }
    await shelf.expect({ reserved: 3, version: 2 });
  });

  it("keeps a reservation beyond its first deadline, and ends it at its new one", async () => {
    const bench = newBench();
    const shelf = await bench.shelf(10);
    const cut = newId("r");
    const first = await reserveExtended(bench, [shelf.units(3)]);
    const kept = first.reservationId;
    await bench.reserve(cut, [shelf.units(4)], HOUR_MS);
    await hasLapsed(await bench.calls.extend(cut, SOON_MS));
    await bench.sweep();
    await bench.expectState(cut, { state: "expired" });
    await hasLapsed(first);
    await bench.sweep();
    await bench.expectState(kept, { state: "active" });
    expectTold(await bench.commit(kept, undefined, true), { state: "committed", revived: false });
    await shelf.expect({ reserved: 0, sold: 3 });
  });

  it("refuses what is unknown, ended, or past its deadline", async () => {
    const bench = newBench();
    const shelf = await bench.shelf(20);
    const [unknown, committed, released, expired, lapsed] = Array.from({ length: 5 }, () => newId("r"));
    assert.ok(unknown && committed && released && expired && lapsed);
    await bench.refused("RESERVATION_UNKNOWN", () => bench.calls.extend(unknown, HOUR_MS));
    for (const id of [committed, released]) {
      await bench.reserve(id, [shelf.units(3)]);
    }
    await bench.commit(committed);
    await bench.calls.release(released);
    await bench.reserveExpired(expired, [shelf.units(3)]);
    await bench.reserveLapsed(lapsed, [shelf.units(3)]);
    for (const [id, state] of [
      [committed, "committed"],
      [released, "released"],
      [expired, "expired"],
      [lapsed, "expired"],
    ] as const) {
      const { message } = await bench.refused("RESERVATION_ENDED", () => bench.calls.extend(id, HOUR_MS));
      assert.ok(message.includes(state), message);
    }
  });
}

/** By deadline, and then by the bytes of the ID. */
function byDeadline(a: Reservation, b: Reservation): number {
  const bytes = Buffer.compare(Buffer.from(a.reservationId), Buffer.from(b.reservationId));
  return (a.expireTimeMs ?? 0) - (b.expireTimeMs ?? 0) || bytes;
}

async function pages(
  calls: ReservationStore,
  limit: number,
  expireBeforeMs?: number,
): Promise<Reservation[]> {
  const listed: Reservation[] = [];
  for (;;) {
    const last = listed.at(-1);
    const after = last && { expireTimeMs: last.expireTimeMs ?? 0, reservationId: last.reservationId };
    const page = await calls.list({ limit, after, expireBeforeMs });
    assert.ok(page.length <= limit, `a page of ${limit} has ${page.length}`);
    if (page.length === 0) {
      return listed;
    }
    const [first] = page;
    assert.ok(first && (last === undefined || byDeadline(last, first) < 0), "a page does not go on");
    listed.push(...page);
  }
}

export function listRules(makeStore: MakeStore): void {
  it("lists active reservations by deadline, page by page, each once, also where deadlines tie", () =>
    onOwnStore(makeStore, async (bench, setClock) => {
      setClock?.(1_790_000_000_000);
      const shelf = await bench.shelf(1_000);
      assert.deepEqual(await pages(bench.calls, 10), []);
      // Sent at once, so that many share a millisecond; the IDs' order is not the order of sending.
      const made = await Promise.all(
        Array.from({ length: 60 }, (_, n) =>
          bench.reserve(
            `${(n * 37) % 60}${["é", "Z", "a", "🛋️"][n % 4]}`,
            [shelf.units(1)],
            HOUR_MS + (n % 3),
          ),
        ),
      );
      const expected = made.toSorted(byDeadline);
      assert.ok(new Set(made.map((one) => one.expireTimeMs)).size < made.length, "no deadlines tie");
      for (const limit of [1, 2, 7, 59, 60, 1_000]) {
        assert.deepEqual(await pages(bench.calls, limit), expected, `in pages of ${limit}`);
      }
      const bound = expected[30]?.expireTimeMs ?? 0;
      const before = expected.filter(({ expireTimeMs = 0 }) => expireTimeMs < bound);
      for (const limit of [1, 7, 1_000]) {
        assert.deepEqual(
          await pages(bench.calls, limit, bound),
          before,
          `before ${bound} in pages of ${limit}`,
        );
      }
      assert.deepEqual(await pages(bench.calls, 10, expected[0]?.expireTimeMs), []);
      assert.deepEqual(await pages(bench.calls, 10, Number.MAX_SAFE_INTEGER), expected);
    }));

  it("leaves out what has ended, and moves what was extended", () =>
    onOwnStore(makeStore, async (bench) => {
      const shelf = await bench.shelf(100);
      const ids = ["one", "two", "three", "four", "five"];
      for (const [n, id] of ids.entries()) {
        await bench.reserve(id, [shelf.units(1)], HOUR_MS * (n + 1));
      }
      const listed = async () => (await pages(bench.calls, 2)).map((one) => one.reservationId);
      assert.deepEqual(await listed(), ids);
      await bench.commit("two");
      await bench.calls.release("four");
      await bench.calls.release("never reserved");
      await bench.calls.extend("one", 4 * HOUR_MS);
      assert.deepEqual(await listed(), ["three", "one", "five"]);
      await hasLapsed(await bench.calls.extend("five", SOON_MS));
      assert.deepEqual(await listed(), ["five", "three", "one"], "it is active until it is swept up");
      await bench.sweep();
      assert.deepEqual(await listed(), ["three", "one"]);
      await bench.commit("five");
      assert.deepEqual(await listed(), ["three", "one"]);
      const [one] = (await pages(bench.calls, 10)).slice(1);
      assert.deepEqual(one, await bench.calls.get("one"));
    }));

  it("goes on after a place whose reservation has ended", () =>
    onOwnStore(makeStore, async (bench) => {
      const shelf = await bench.shelf(100);
      const [a, b, c] = [
        await bench.reserve("a", [shelf.units(1)], HOUR_MS),
        await bench.reserve("b", [shelf.units(1)], 2 * HOUR_MS),
        await bench.reserve("c", [shelf.units(1)], 3 * HOUR_MS),
      ];
      await bench.commit("b");
      const after = { expireTimeMs: b.expireTimeMs ?? 0, reservationId: "b" };
      const page = { limit: 10, after, expireBeforeMs: undefined };
      assert.deepEqual(await bench.calls.list(page), [c]);
      const first = { expireTimeMs: a.expireTimeMs ?? 0, reservationId: "A" };
      assert.deepEqual(await bench.calls.list({ ...page, after: first }), [a, c]);
      assert.deepEqual(await bench.calls.list({ ...page, expireBeforeMs: a.expireTimeMs }), []);
    }));
}

export function expiryRules(makeStore: MakeStore): void {
  it("gives units back once the deadline has passed, once, and records it", () =>
    onOwnStore(makeStore, async (bench) => {
      const [lamp, torch] = [await bench.shelf(10), await bench.shelf(5)];
      const [id, staying] = [newId("r"), newId("r")];
      await bench.reserve(staying, [lamp.units(1)]);
      assert.equal(await bench.unchangedBy(() => bench.calls.expireDue(100)), 0);
      await bench.reserveLapsed(id, [lamp.units(3), torch.units(1)]);
      assert.equal(await bench.calls.expireDue(100), 1);
      const expired = await bench.expectState(id, { state: "expired", committedLines: [], revived: false });
      assert.ok((expired.endTimeMs ?? 0) >= (expired.expireTimeMs ?? 0));
      await lamp.expect({ reserved: 1, sold: 0, available: 9 });
      assert.deepEqual((await lamp.recorded()).at(-1), ["expired", 3, id]);
      assert.deepEqual((await torch.recorded()).at(-1), ["expired", 1, id]);
      assert.equal(await bench.unchangedBy(() => bench.calls.expireDue(100)), 0);
      await bench.expectState(staying, { state: "active" });
    }));

  it("is never early", () =>
    onOwnStore(makeStore, async (bench) => {
      const shelf = await bench.shelf(1_000);
      for (let n = 0; n < 10; n++) {
        const { expireTimeMs = 0, reservationId } = await bench.reserve(newId("r"), [shelf.units(1)], n + 1);
        while ((await bench.calls.expireDue(10)) === 0) {
          assert.ok(Date.now() <= expireTimeMs + 5_000, "nothing expires");
        }
        const { endTimeMs = 0 } = await bench.calls.get(reservationId);
        assert.ok(Date.now() >= expireTimeMs && endTimeMs >= expireTimeMs, `${endTimeMs}, ${expireTimeMs}`);
      }
    }));

  it("expires no more than it is told, and all in the end", () =>
    onOwnStore(makeStore, async (bench) => {
      const shelf = await bench.shelf(1_000);
      const made = await Promise.all(
        Array.from({ length: 25 }, () => bench.reserve(newId("r"), [shelf.units(2)], SOON_MS)),
      );
      await Promise.all(made.map(hasLapsed));
      const reserved = [50];
      for (const expected of [1, 7, 10, 7, 0]) {
        assert.equal(
          await bench.calls.expireDue(10 > expected && expected > 1 ? 7 : expected || 5),
          expected,
        );
        const last = reserved.at(-1) ?? 0;
        await shelf.expect({ reserved: last - 2 * expected });
        reserved.push(last - 2 * expected);
      }
      assert.equal(reserved.at(-1), 0);
      for (const { reservationId } of made) {
        await bench.expectState(reservationId, { state: "expired" });
      }
    }));

  it("expires each reservation once where several sweep at once", () =>
    onOwnStore(makeStore, async (bench) => {
      const shelf = await bench.shelf(1_000);
      const made = await Promise.all(
        Array.from({ length: 40 }, () => bench.reserve(newId("r"), [shelf.units(1)], SOON_MS)),
      );
      await Promise.all(made.map(hasLapsed));
      const counts = await Promise.all(Array.from({ length: 8 }, () => bench.calls.expireDue(9)));
      assert.equal(
        counts.reduce((sum, count) => sum + count, 0),
        40,
      );
      await shelf.expect({ reserved: 0, version: 81 });
    }));

  it("is due at its deadline and not a millisecond before", (t) =>
    onOwnStore(makeStore, async (bench, setClock) => {
      if (setClock === undefined) {
        t.skip("this store's clock cannot be moved");
        return;
      }
      const noon = 1_790_000_000_000;
      setClock(noon);
      const shelf = await bench.shelf(10);
      for (const id of ["swept", "sold", "strict", "extended"]) {
        await bench.reserve(id, [shelf.units(1)], 1_000);
      }
      setClock(noon + 999);
      assert.equal(await bench.calls.expireDue(10), 0);
      expectTold(await bench.commit("strict", undefined, true), { revived: false, endTimeMs: noon + 999 });
      expectTold(await bench.calls.extend("extended", 1_000), { expireTimeMs: noon + 1_999 });
      setClock(noon + 1_000);
      await bench.refused("RESERVATION_ENDED", () => bench.commit("sold", undefined, true));
      await bench.refused("RESERVATION_ENDED", () => bench.calls.extend("sold", 1_000));
      expectTold(await bench.commit("sold"), { revived: true });
      assert.equal(await bench.calls.expireDue(10), 1);
      await bench.expectState("swept", { state: "expired", endTimeMs: noon + 1_000 });
      await bench.expectState("extended", { state: "active" });
    }));

  it("sweeps up the longest overdue first, and remembers what ended for 24 hours at least", (t) =>
    onOwnStore(makeStore, async (bench, setClock) => {
      if (setClock === undefined) {
        t.skip("this store's clock cannot be moved");
        return;
      }
      const noon = 1_790_000_000_000;
      setClock(noon);
      const shelf = await bench.shelf(10);
      await bench.reserve("later", [shelf.units(1)], 2_000);
      await bench.reserve("sooner", [shelf.units(1)], 1_000);
      setClock(noon + 3_000);
      assert.equal(await bench.calls.expireDue(1), 1);
      await bench.expectState("sooner", { state: "expired" });
      await bench.calls.expireDue(1);
      await bench.reserve("sold", [shelf.units(2)]);
      await bench.commit("sold", [shelf.units(1)]);
      await bench.return("sold", "ret", [shelf.units(1)]);
      await bench.reserve("released", [shelf.units(1)]);
      await bench.calls.release("released");
      await bench.calls.release("tombstone");
      setClock(noon + 3_000 + DAY_MS - 1);
      await bench.calls.release("another"); // gives the store an occasion to forget
      await bench.repeated("sold", () => bench.commit("sold", [shelf.units(1)]));
      await bench.repeated("sold", () => bench.return("sold", "ret", [shelf.units(1)]));
      await bench.repeated("released", () => bench.reserve("released", [shelf.units(1)]));
      await bench.refused("RESERVATION_ENDED", () => bench.reserve("tombstone", [shelf.units(1)]));
      await bench.refused("ID_REUSED", () => bench.reserve("sooner", [shelf.units(2)]));
      expectTold(await bench.commit("later"), { revived: true });
    }));

  it("keeps an active reservation, however old, and units that are held longer than the retention", (t) =>
    onOwnStore(makeStore, async (bench, setClock) => {
      if (setClock === undefined) {
        t.skip("this store's clock cannot be moved");
        return;
      }
      const noon = 1_790_000_000_000;
      setClock(noon);
      const shelf = await bench.shelf(10);
      await bench.reserve("held", [shelf.units(4)]);
      setClock(noon + 3 * DAY_MS);
      await bench.calls.release("another");
      await bench.expectState("held", { state: "active" });
      await shelf.expect({ reserved: 4 });
      assert.equal(await bench.calls.expireDue(10), 1);
      await shelf.expect({ reserved: 0, available: 10 });
      expectTold(await bench.commit("held"), { revived: true });
    }));
}
