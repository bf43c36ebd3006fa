import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, describe, it } from "node:test";
import type { CollectionEvent } from "../../server/inventory/collection.ts";
import { InventoryError } from "../../server/inventory/errors.ts";
import type { ReservationPosition } from "../../server/inventory/reservation.ts";
import type { MakeStore, StoreUnderTest } from "./store-contract.ts";

const RUN = randomUUID().slice(0, 8);
/** A seller's time long past, µs. */
const U = 1_700_000_000_123_456;
const HOUR_MS = 3_600_000;

/** The part of the store contract that lists, exports and imports use, as one test suite for every store. */
export function describeBulkContract(
  name: string,
  makeStore: MakeStore,
  options: { readonly skip?: string | undefined } = {},
): void {
  describe(`${name} implements the bulk part of the store contract`, { skip: options.skip ?? false }, () => {
    let opened: StoreUnderTest;
    before(async () => {
      opened = await makeStore();
    });
    after(() => opened?.close());
    const put = (productId: string, declared: number) =>
      opened.store.putProduct({ productId, details: undefined, declared, updateTimeMicros: U });

    describe("ledgers of many products", () => {
      it("are returned in request order, with deleted products and gaps for unknown ones", async () => {
        const { store } = opened;
        const [a, b, unknown] = [`a-${RUN}`, `b-${RUN}`, `unknown-${RUN}`];
        await put(a, 3);
        await put(b, 5);
        await store.deleteProduct({ productId: b, updateTimeMicros: U + 1 });
        const ledgers = await store.batchGetLedgers([b, unknown, a, b]);
        assert.deepEqual(ledgers, [
          await store.getLedger(b),
          undefined,
          await store.getLedger(a),
          await store.getLedger(b),
        ]);
        assert.equal(ledgers[0]?.deleted, true);
      });

      it("are stored in buckets that depend on the product alone", () => {
        const ids = Array.from({ length: 100 }, (_, n) => `bucket-${n}`);
        const buckets = ids.map((id) => opened.store.bucketOf(id));
        assert.deepEqual(
          ids.map((id) => opened.store.bucketOf(id)),
          buckets,
        );
        assert.ok(buckets.every((bucket) => Number.isInteger(bucket) && bucket >= 0));
      });
    });

    describe("collections", () => {
      let collections = 0;
      const newCollection = () => {
        collections += 1;
        const collectionId = `collection-${collections}-${RUN}`;
        const event = (updateTimeMicros: number | undefined, name?: string): CollectionEvent => ({
          collectionId,
          collection: name === undefined ? undefined : { collectionId, name, description: "" },
          updateTimeMicros,
        });
        const current = async () =>
          (await opened.store.listCollections()).find((each) => each.collectionId === collectionId)?.name;
        const send = (updateTimeMicros: number | undefined, name?: string) =>
          opened.store.putCollection(event(updateTimeMicros, name));
        return { send, current };
      };

      it("are changed by the newest event, and an event returns whether it is in force", async () => {
        const { send, current } = newCollection();
        assert.deepEqual(await send(U, "Lamps"), { applied: true, changed: true });
        assert.deepEqual(await send(U + 1, "Lights"), { applied: true, changed: true });
        assert.deepEqual(await send(U, "Old"), { applied: false, changed: false });
        assert.equal(await current(), "Lights");
      });

      it("return that a repeated event is in force and changes nothing", async () => {
        const { send, current } = newCollection();
        await send(U, "Lamps");
        assert.deepEqual(await send(U, "Lamps"), { applied: true, changed: false });
        assert.deepEqual(await send(U, "Another"), { applied: false, changed: false });
        assert.equal(await current(), "Lamps");
        await send(U);
        assert.deepEqual(await send(U), { applied: true, changed: false });
        assert.deepEqual(await send(U, "Lamps"), { applied: false, changed: false });
        assert.equal(await current(), undefined);
      });

      it("use the store's time for an event without one", async () => {
        const { send, current } = newCollection();
        assert.deepEqual(await send(undefined, "Now"), { applied: true, changed: true });
        assert.deepEqual(await send(U, "Earlier"), { applied: false, changed: false });
        assert.deepEqual(await send((Date.now() + 60_000) * 1_000, "Later"), {
          applied: true,
          changed: true,
        });
        assert.equal(await current(), "Later");
      });

      it("reject an event more than five minutes ahead", async () => {
        const { send } = newCollection();
        await assert.rejects(
          send((Date.now() + HOUR_MS) * 1_000, "Too early"),
          (error) => error instanceof InventoryError && error.violations[0]?.field === "update_time",
        );
      });
    });

    describe("reservations of a product", () => {
      it("are the same as those of the whole list with a line of it, page by page", async () => {
        const { reservations } = opened.store;
        const [mug, bowl] = [`mug-${RUN}`, `bowl-${RUN}`];
        await put(mug, 100);
        await put(bowl, 100);
        const lineOf = (productId: string) => ({ productId, quantity: 1 });
        for (let n = 0; n < 12; n++) {
          const lines = [[mug], [bowl], [bowl, mug]][n % 3]?.map(lineOf) ?? [];
          await reservations.reserve({ reservationId: `r${n}-${RUN}`, lines, ttlMs: HOUR_MS - (n % 4) });
        }
        await reservations.release(`r0-${RUN}`);
        const whole = { limit: 1_000, after: undefined, expireBeforeMs: undefined };
        const expected = (await reservations.list(whole)).filter(({ lines }) =>
          lines.some(({ productId }) => productId === mug),
        );
        assert.equal(expected.length, 7);
        for (const limit of [1, 3, 7, 1_000]) {
          const found = [];
          let after: ReservationPosition | undefined;
          do {
            const page = await reservations.listOfProduct(mug, { ...whole, limit, after });
            assert.ok(page.reservations.length <= limit);
            found.push(...page.reservations);
            after = page.next;
          } while (after !== undefined);
          assert.deepEqual(found, expected, `with pages of ${limit}`);
        }
        const expireBeforeMs = expected[2]?.expireTimeMs ?? 0;
        const early = await reservations.listOfProduct(mug, { ...whole, expireBeforeMs });
        assert.deepEqual(
          early.reservations,
          expected.filter(({ expireTimeMs = 0 }) => expireTimeMs < expireBeforeMs),
        );
      });
    });
  });
}
