import assert from "node:assert/strict";
import { it } from "node:test";
import { InventoryError } from "../../server/inventory/errors.ts";
import type { Line, Reservation } from "../../server/inventory/reservation.ts";
import type { ReservationStore } from "../../server/inventory/store.ts";
import {
  DAY_MS,
  expectReservation,
  HOUR_MS,
  hasLapsed,
  newId,
  onOwnStore,
  type ReservationFixture,
  SOON_MS,
} from "./reservation-fixture.ts";
import type { MakeStore } from "./store-contract.ts";

/** Longer than any machine needs between two calls. */
const FIRST_MS_MAX = 5_000;

/** Reserves for a moment, extends to an hour before the deadline, and resolves with the reservation. Retries with more time on a slow machine. */
async function reserveExtended(fixture: ReservationFixture, lines: readonly Line[]): Promise<Reservation> {
  for (let ttlMs = 50; ; ttlMs *= 2) {
    const first = await fixture.reserve(newId("r"), lines, ttlMs);
    try {
      await fixture.calls.extend(first.reservationId, HOUR_MS);
      return first;
    } catch (error) {
      assert.ok(error instanceof InventoryError && error.code === "RESERVATION_ENDED", String(error));
      assert.ok(ttlMs < FIRST_MS_MAX, `a reservation of ${ttlMs} ms cannot be extended`);
      await fixture.sweep();
    }
  }
}

export function extendRules(newFixture: () => ReservationFixture): void {
  it("sets the deadline relative to now, later or earlier, without a change of the ledger", async () => {
    const fixture = newFixture();
    const shelf = await fixture.shelf(10);
    const id = newId("r");
    const reserved = await fixture.reserve(id, [shelf.units(3)], HOUR_MS);
    for (const ttlMs of [2 * HOUR_MS, HOUR_MS / 2]) {
      const startMs = Date.now();
      const extended = await fixture.calls.extend(id, ttlMs);
      const { expireTimeMs = 0 } = extended;
      assert.deepEqual(extended, { ...reserved, expireTimeMs });
      assert.ok(expireTimeMs >= startMs - 1 + ttlMs && expireTimeMs <= Date.now() + 1 + ttlMs);
      assert.deepEqual(await fixture.calls.get(id), extended);
    }
    await shelf.expect({ reserved: 3, version: 2 });
  });

  it("keeps a reservation beyond its first deadline, and expires it at the new one", async () => {
    const fixture = newFixture();
    const shelf = await fixture.shelf(10);
    const cut = newId("r");
    const first = await reserveExtended(fixture, [shelf.units(3)]);
    const kept = first.reservationId;
    await fixture.reserve(cut, [shelf.units(4)], HOUR_MS);
    await hasLapsed(await fixture.calls.extend(cut, SOON_MS));
    await fixture.sweep();
    await fixture.expectState(cut, { state: "expired" });
    await hasLapsed(first);
    await fixture.sweep();
    await fixture.expectState(kept, { state: "active" });
    expectReservation(await fixture.commit(kept, undefined, true), { state: "committed", revived: false });
    await shelf.expect({ reserved: 0, sold: 3 });
  });

  it("rejects a reservation that is unknown, ended, or past its deadline", async () => {
    const fixture = newFixture();
    const shelf = await fixture.shelf(20);
    const [unknown, committed, released, expired, lapsed] = Array.from({ length: 5 }, () => newId("r"));
    assert.ok(unknown && committed && released && expired && lapsed);
    await fixture.refused("RESERVATION_UNKNOWN", () => fixture.calls.extend(unknown, HOUR_MS));
    for (const id of [committed, released]) {
      await fixture.reserve(id, [shelf.units(3)]);
    }
    await fixture.commit(committed);
    await fixture.calls.release(released);
    await fixture.reserveExpired(expired, [shelf.units(3)]);
    await fixture.reserveLapsed(lapsed, [shelf.units(3)]);
    for (const [id, state] of [
      [committed, "committed"],
      [released, "released"],
      [expired, "expired"],
      [lapsed, "expired"],
    ] as const) {
      const { message } = await fixture.refused("RESERVATION_ENDED", () => fixture.calls.extend(id, HOUR_MS));
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
  it("lists active reservations by deadline, page by page, each once, also with equal deadlines", () =>
    onOwnStore(makeStore, async (fixture, setClock) => {
      setClock?.(1_790_000_000_000);
      const shelf = await fixture.shelf(1_000);
      assert.deepEqual(await pages(fixture.calls, 10), []);
      // Sent concurrently, so that many share a millisecond. The order of IDs is not the order of sending.
      const made = await Promise.all(
        Array.from({ length: 60 }, (_, n) =>
          fixture.reserve(
            `${(n * 37) % 60}${["é", "Z", "a", "🛋️"][n % 4]}`,
            [shelf.units(1)],
            HOUR_MS + (n % 3),
          ),
        ),
      );
      const expected = made.toSorted(byDeadline);
      assert.ok(new Set(made.map((one) => one.expireTimeMs)).size < made.length, "no deadlines tie");
      for (const limit of [1, 2, 7, 59, 60, 1_000]) {
        assert.deepEqual(await pages(fixture.calls, limit), expected, `in pages of ${limit}`);
      }
      const bound = expected[30]?.expireTimeMs ?? 0;
      const before = expected.filter(({ expireTimeMs = 0 }) => expireTimeMs < bound);
      for (const limit of [1, 7, 1_000]) {
        assert.deepEqual(
          await pages(fixture.calls, limit, bound),
          before,
          `before ${bound} in pages of ${limit}`,
        );
      }
      assert.deepEqual(await pages(fixture.calls, 10, expected[0]?.expireTimeMs), []);
      assert.deepEqual(await pages(fixture.calls, 10, Number.MAX_SAFE_INTEGER), expected);
    }));

  it("omits ended reservations, and moves extended ones", () =>
    onOwnStore(makeStore, async (fixture) => {
      const shelf = await fixture.shelf(100);
      const ids = ["one", "two", "three", "four", "five"];
      for (const [n, id] of ids.entries()) {
        await fixture.reserve(id, [shelf.units(1)], HOUR_MS * (n + 1));
      }
      const listed = async () => (await pages(fixture.calls, 2)).map((one) => one.reservationId);
      assert.deepEqual(await listed(), ids);
      await fixture.commit("two");
      await fixture.calls.release("four");
      await fixture.calls.release("never reserved");
      await fixture.calls.extend("one", 4 * HOUR_MS);
      assert.deepEqual(await listed(), ["three", "one", "five"]);
      await hasLapsed(await fixture.calls.extend("five", SOON_MS));
      assert.deepEqual(await listed(), ["five", "three", "one"], "it is active until it is swept up");
      await fixture.sweep();
      assert.deepEqual(await listed(), ["three", "one"]);
      await fixture.commit("five");
      assert.deepEqual(await listed(), ["three", "one"]);
      const [one] = (await pages(fixture.calls, 10)).slice(1);
      assert.deepEqual(one, await fixture.calls.get("one"));
    }));

  it("continues after a position whose reservation has ended", () =>
    onOwnStore(makeStore, async (fixture) => {
      const shelf = await fixture.shelf(100);
      const [a, b, c] = [
        await fixture.reserve("a", [shelf.units(1)], HOUR_MS),
        await fixture.reserve("b", [shelf.units(1)], 2 * HOUR_MS),
        await fixture.reserve("c", [shelf.units(1)], 3 * HOUR_MS),
      ];
      await fixture.commit("b");
      const after = { expireTimeMs: b.expireTimeMs ?? 0, reservationId: "b" };
      const page = { limit: 10, after, expireBeforeMs: undefined };
      assert.deepEqual(await fixture.calls.list(page), [c]);
      const first = { expireTimeMs: a.expireTimeMs ?? 0, reservationId: "A" };
      assert.deepEqual(await fixture.calls.list({ ...page, after: first }), [a, c]);
      assert.deepEqual(await fixture.calls.list({ ...page, expireBeforeMs: a.expireTimeMs }), []);
    }));
}

export function expiryRules(makeStore: MakeStore): void {
  it("returns units to stock after the deadline, once, and records it", () =>
    onOwnStore(makeStore, async (fixture) => {
      const [lamp, torch] = [await fixture.shelf(10), await fixture.shelf(5)];
      const [id, staying] = [newId("r"), newId("r")];
      await fixture.reserve(staying, [lamp.units(1)]);
      assert.equal(await fixture.unchangedBy(() => fixture.expireDue(100)), 0);
      await fixture.reserveLapsed(id, [lamp.units(3), torch.units(1)]);
      assert.equal(await fixture.expireDue(100), 1);
      const expired = await fixture.expectState(id, { state: "expired", committedLines: [], revived: false });
      assert.ok((expired.endTimeMs ?? 0) >= (expired.expireTimeMs ?? 0));
      await lamp.expect({ reserved: 1, sold: 0, available: 9 });
      assert.deepEqual((await lamp.recorded()).at(-1), ["expired", 3, id]);
      assert.deepEqual((await torch.recorded()).at(-1), ["expired", 1, id]);
      assert.equal(await fixture.unchangedBy(() => fixture.expireDue(100)), 0);
      await fixture.expectState(staying, { state: "active" });
    }));

  it("never occurs before the deadline", () =>
    onOwnStore(makeStore, async (fixture) => {
      const shelf = await fixture.shelf(1_000);
      for (let n = 0; n < 10; n++) {
        const { expireTimeMs = 0, reservationId } = await fixture.reserve(
          newId("r"),
          [shelf.units(1)],
          n + 1,
        );
        while ((await fixture.expireDue(10)) === 0) {
          assert.ok(Date.now() <= expireTimeMs + 5_000, "nothing expires");
        }
        const { endTimeMs = 0 } = await fixture.calls.get(reservationId);
        assert.ok(Date.now() >= expireTimeMs && endTimeMs >= expireTimeMs, `${endTimeMs}, ${expireTimeMs}`);
      }
    }));

  it("expires at most `limit` reservations at a time, and finally all", () =>
    onOwnStore(makeStore, async (fixture) => {
      const shelf = await fixture.shelf(1_000);
      const made = await Promise.all(
        Array.from({ length: 25 }, () => fixture.reserve(newId("r"), [shelf.units(2)], SOON_MS)),
      );
      await Promise.all(made.map(hasLapsed));
      let left = made.length;
      for (let n = 0; left > 0; n++) {
        const limit = [1, 7, 10][n] ?? 7;
        const expired = await fixture.expireDue(limit);
        // A store with several buckets may divide the limit among them.
        assert.ok(expired >= 1 && expired <= limit, `${expired} of ${left} expired with the limit ${limit}`);
        left -= expired;
        await shelf.expect({ reserved: 2 * left });
      }
      assert.equal(await fixture.expireDue(5), 0);
      for (const { reservationId } of made) {
        await fixture.expectState(reservationId, { state: "expired" });
      }
    }));

  it("expires each reservation once with concurrent sweeps", () =>
    onOwnStore(makeStore, async (fixture) => {
      const shelf = await fixture.shelf(1_000);
      const made = await Promise.all(
        Array.from({ length: 40 }, () => fixture.reserve(newId("r"), [shelf.units(1)], SOON_MS)),
      );
      await Promise.all(made.map(hasLapsed));
      const counts = await Promise.all(Array.from({ length: 8 }, () => fixture.expireDue(9)));
      for (let count = -1; count !== 0; counts.push(count)) count = await fixture.expireDue(9);
      assert.equal(
        counts.reduce((sum, count) => sum + count, 0),
        40,
      );
      await shelf.expect({ reserved: 0, version: 81 });
    }));

  it("occurs at the deadline and not a millisecond before", (t) =>
    onOwnStore(makeStore, async (fixture, setClock) => {
      if (setClock === undefined) {
        t.skip("the test cannot control the clock of this store");
        return;
      }
      const noon = 1_790_000_000_000;
      setClock(noon);
      const shelf = await fixture.shelf(10);
      for (const id of ["swept", "sold", "strict", "extended"]) {
        await fixture.reserve(id, [shelf.units(1)], 1_000);
      }
      setClock(noon + 999);
      assert.equal(await fixture.expireDue(10), 0);
      expectReservation(await fixture.commit("strict", undefined, true), {
        revived: false,
        endTimeMs: noon + 999,
      });
      expectReservation(await fixture.calls.extend("extended", 1_000), { expireTimeMs: noon + 1_999 });
      setClock(noon + 1_000);
      await fixture.refused("RESERVATION_ENDED", () => fixture.commit("sold", undefined, true));
      await fixture.refused("RESERVATION_ENDED", () => fixture.calls.extend("sold", 1_000));
      expectReservation(await fixture.commit("sold"), { revived: true });
      assert.equal(await fixture.expireDue(10), 1);
      await fixture.expectState("swept", { state: "expired", endTimeMs: noon + 1_000 });
      await fixture.expectState("extended", { state: "active" });
    }));

  it("starts with the longest overdue, and keeps ended reservations for at least 24 hours", (t) =>
    onOwnStore(makeStore, async (fixture, setClock) => {
      if (setClock === undefined) {
        t.skip("the test cannot control the clock of this store");
        return;
      }
      const noon = 1_790_000_000_000;
      setClock(noon);
      const shelf = await fixture.shelf(10);
      await fixture.reserve("later", [shelf.units(1)], 2_000);
      await fixture.reserve("sooner", [shelf.units(1)], 1_000);
      setClock(noon + 3_000);
      assert.equal(await fixture.expireDue(1), 1);
      await fixture.expectState("sooner", { state: "expired" });
      await fixture.expireDue(1);
      await fixture.reserve("sold", [shelf.units(2)]);
      await fixture.commit("sold", [shelf.units(1)]);
      await fixture.return("sold", "ret", [shelf.units(1)]);
      await fixture.reserve("released", [shelf.units(1)]);
      await fixture.calls.release("released");
      await fixture.calls.release("tombstone");
      setClock(noon + 3_000 + DAY_MS - 1);
      await fixture.calls.release("another"); // gives the store an occasion to forget
      await fixture.repeated("sold", () => fixture.commit("sold", [shelf.units(1)]));
      await fixture.repeated("sold", () => fixture.return("sold", "ret", [shelf.units(1)]));
      await fixture.repeated("released", () => fixture.reserve("released", [shelf.units(1)]));
      await fixture.refused("RESERVATION_ENDED", () => fixture.reserve("tombstone", [shelf.units(1)]));
      await fixture.refused("ID_REUSED", () => fixture.reserve("sooner", [shelf.units(2)]));
      expectReservation(await fixture.commit("later"), { revived: true });
    }));

  it("keeps an active reservation and its units for longer than the retention", (t) =>
    onOwnStore(makeStore, async (fixture, setClock) => {
      if (setClock === undefined) {
        t.skip("the test cannot control the clock of this store");
        return;
      }
      const noon = 1_790_000_000_000;
      setClock(noon);
      const shelf = await fixture.shelf(10);
      await fixture.reserve("held", [shelf.units(4)]);
      setClock(noon + 3 * DAY_MS);
      await fixture.calls.release("another");
      await fixture.expectState("held", { state: "active" });
      await shelf.expect({ reserved: 4 });
      assert.equal(await fixture.expireDue(10), 1);
      await shelf.expect({ reserved: 0, available: 10 });
      expectReservation(await fixture.commit("held"), { revived: true });
    }));
}
