import assert from "node:assert/strict";
import { randomInt } from "node:crypto";
import { describe, it } from "node:test";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import fc from "fast-check";
import { ReservationService } from "../../gen/inventory/v1/reservation_pb.ts";
import { type Ledger, SupplyService } from "../../gen/inventory/v1/supply_pb.ts";
import {
  available,
  onHand,
  QUANTITY_MAX,
  type StockChange,
  shortfall,
} from "../../server/inventory/ledger.ts";
import { stockChangedJson, toLedger } from "../../server/wire/stock-changed.ts";
import { startTestApp } from "../support/app.ts";
import { need } from "../support/programs.ts";
import { startRedis } from "../support/redis-server.ts";

const seed = Number(process.env["FC_SEED"] ?? randomInt(2 ** 31));

type Counts = Pick<
  Ledger,
  "declared" | "adjusted" | "sold" | "reserved" | "safety" | "onHand" | "available" | "shortfall"
>;

/** Every formula of the ledger, on the numbers that are reported, each an int32. */
function assertAddsUp(ledger: Counts): void {
  const { declared, adjusted, sold, reserved, safety } = ledger;
  const { onHand, available, shortfall } = ledger;
  for (const number of [declared, adjusted, sold, reserved, safety, onHand, available, shortfall]) {
    assert.equal(number, number | 0, "int32");
  }
  assert.equal(onHand, declared + adjusted - sold, "on_hand");
  assert.equal(available, Math.max(0, onHand - reserved - safety), "available");
  assert.equal(shortfall, Math.max(0, reserved - onHand), "shortfall");
}

const quantity = fc.oneof(fc.constantFrom(0, 1, QUANTITY_MAX), fc.nat(QUANTITY_MAX));
/** A ledger that the store's rules can reach: on hand and shortfall are in range, the totals are not bounded. */
const reachable = fc
  .record({
    declared: quantity,
    sold: fc.oneof(quantity, fc.integer({ min: 0, max: 2 ** 40 })),
    reserved: quantity,
    safety: quantity,
    onHand: fc.oneof(fc.constantFrom(-QUANTITY_MAX, QUANTITY_MAX), fc.integer()),
  })
  .map(({ onHand: units, ...rest }) => ({
    ...rest,
    productId: "p",
    declareTimeMicros: 0,
    adjusted: units - rest.declared + rest.sold,
    version: 1,
    deleted: false,
  }))
  .filter((ledger) => onHand(ledger) >= -QUANTITY_MAX && shortfall(ledger) <= QUANTITY_MAX);

describe("the numbers of a ledger", () => {
  it("are int32 and add up in every ledger that can be reached, in messages and in the topic", (t) => {
    t.diagnostic(`FC_SEED=${seed}`);
    fc.assert(
      fc.property(reachable, (ledger) => {
        const message = toLedger(ledger);
        assertAddsUp(message);
        assert.equal(message.onHand, onHand(ledger));
        assert.equal(message.available, available(ledger));
        const change = {
          cause: "committed",
          delta: 0,
          ledger,
          changeTimeMs: 0,
          referenceId: "",
          reason: "",
          actor: "",
        } as const;
        const json = JSON.parse(stockChangedJson({ ...change, details: undefined } satisfies StockChange));
        assertAddsUp(json.ledger);
      }),
      { seed, numRuns: 20_000 },
    );
  });

  it("are the totals themselves while those are in range", () => {
    const ledger = {
      productId: "p",
      declareTimeMicros: 0,
      reserved: 0,
      safety: 0,
      version: 1,
      deleted: false,
    };
    const bounds = { declared: 0, adjusted: QUANTITY_MAX, sold: QUANTITY_MAX };
    assert.partialDeepStrictEqual(toLedger({ ...ledger, ...bounds }), bounds);
    const above = { declared: 1, adjusted: QUANTITY_MAX, sold: QUANTITY_MAX + 1 };
    assert.partialDeepStrictEqual(toLedger({ ...ledger, ...above }), {
      adjusted: QUANTITY_MAX - 2 ** 30,
      sold: QUANTITY_MAX + 1 - 2 ** 30,
    });
  });

  for (const onRedis of [false, true]) {
    const skip = onRedis && need("redis-server").missing;
    const store = onRedis ? "Redis" : "the memory store";
    it(`add up over the wire after more sales than int32 can count, with ${store}`, { skip }, async () => {
      await using redis = onRedis ? await startRedis() : undefined;
      await using app = await startTestApp(redis ? { REDIS_URL: redis.url } : {});
      const transport = createGrpcTransport({ baseUrl: app.url });
      const supply = createClient(SupplyService, transport);
      const reservations = createClient(ReservationService, transport);
      const productId = "best-seller";
      await supply.putProduct({ productId, declared: QUANTITY_MAX });
      for (let round = 1; round <= 5; round++) {
        const reservationId = `order-${round}`;
        await reservations.reserve({ reservationId, lines: [{ productId, quantity: QUANTITY_MAX }] });
        await reservations.commitReservation({ reservationId });
        await supply.countStock({ productId, count: QUANTITY_MAX, countId: `count-${round}` });
      }
      const { ledger } = await supply.getLedger({ productId });
      assert.ok(ledger);
      assertAddsUp(ledger);
      assert.equal(ledger.onHand, QUANTITY_MAX);
      const { changes } = await supply.listChanges({ productId });
      assert.equal(changes.length, 16);
      for (const change of changes) {
        assert.ok(change.ledger);
        assertAddsUp(change.ledger);
      }
    });
  }
});
