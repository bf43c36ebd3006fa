import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { BadRequestSchema } from "../../gen/google/rpc/error_details_pb.ts";
import { ReservationService } from "../../gen/inventory/v1/reservation_pb.ts";
import { StockService } from "../../gen/inventory/v1/stock_pb.ts";
import { SupplyService } from "../../gen/inventory/v1/supply_pb.ts";
import { startTestApp, type TestApp } from "../support/app.ts";
import { need } from "../support/programs.ts";
import { startRedis } from "../support/redis-server.ts";

const DETAILS = { name: "Lamp", description: "Brass", price: 40, collectionId: "desk" };

/** The fields that an INVALID_ARGUMENT names, with their descriptions. */
async function violationsOf(call: Promise<unknown>): Promise<Record<string, string>> {
  const error = await call.then(
    () => assert.fail("the call succeeded"),
    (reason: unknown) => ConnectError.from(reason),
  );
  assert.equal(error.code, Code.InvalidArgument, error.message);
  const [detail] = error.findDetails(BadRequestSchema);
  return Object.fromEntries(
    (detail?.fieldViolations ?? []).map(({ field, description }) => [field, description]),
  );
}

for (const onRedis of [false, true]) {
  const skip = onRedis && need("redis-server").missing;
  describe(`absent fields, with ${onRedis ? "Redis" : "the memory store"}`, { skip }, () => {
    let redis: Awaited<ReturnType<typeof startRedis>> | undefined;
    let app: TestApp;
    before(async () => {
      redis = onRedis ? await startRedis() : undefined;
      app = await startTestApp(redis ? { REDIS_URL: redis.url } : {});
    });
    after(async () => {
      await app?.stop();
      await redis?.stop();
    });
    const clients = () => {
      const transport = createGrpcTransport({ baseUrl: app.url });
      return {
        stock: createClient(StockService, transport),
        supply: createClient(SupplyService, transport),
        reservations: createClient(ReservationService, transport),
      };
    };
    let count = 0;
    const newProduct = async () => {
      const productId = `absent-${++count}`;
      await clients().supply.putProduct({ productId, product: DETAILS, declared: 10 });
      return productId;
    };
    const detailsOf = async (productId: string) => {
      const { $typeName, ...details } = (await clients().stock.getStock({ productId })).stock?.product ?? {};
      return details;
    };

    it("details without a name or a price are invalid, and erase nothing", async () => {
      const productId = await newProduct();
      const partial = [
        [{ description: "Steel" }, ["product.name", "product.price"]],
        [{}, ["product.name", "product.price"]],
        [{ name: "Mug" }, ["product.price"]],
        [{ price: 1, collectionId: "kitchen" }, ["product.name"]],
      ] as const;
      for (const [product, missing] of partial) {
        const violations = await violationsOf(clients().supply.putProduct({ productId, product }));
        assert.deepEqual(Object.keys(violations), missing, JSON.stringify(product));
        for (const description of Object.values(violations)) {
          assert.match(description, /^is absent; /);
        }
      }
      assert.deepEqual(await detailsOf(productId), DETAILS);
    });

    it("details replace the stored ones as a whole", async () => {
      const productId = await newProduct();
      await clients().supply.putProduct({ productId, product: { name: "", price: 0 } });
      assert.deepEqual(await detailsOf(productId), { name: "", description: "", price: 0, collectionId: "" });
    });

    it("an update without details or declared keeps the stored part", async () => {
      const productId = await newProduct();
      const { ledger } = await clients().supply.putProduct({ productId, product: { ...DETAILS, price: 0 } });
      assert.equal(ledger?.declared, 10);
      await clients().supply.putProduct({ productId, declared: 0 });
      assert.deepEqual(await detailsOf(productId), { ...DETAILS, price: 0 });
      assert.equal((await clients().stock.getStock({ productId })).stock?.available, 0);
    });

    it("a count, a safety stock and an adjustment need their number, and 0 is one", async () => {
      const productId = await newProduct();
      const { supply } = clients();
      const calls: readonly [Promise<unknown>, string][] = [
        [supply.countStock({ productId, countId: "c1" }), "count"],
        [supply.setSafetyStock({ productId }), "safety"],
        [supply.adjustStock({ productId, adjustmentId: "a1" }), "delta"],
      ];
      for (const [call, field] of calls) {
        const violations = await violationsOf(call);
        assert.deepEqual(Object.keys(violations), [field]);
        assert.match(violations[field] ?? "", /^is absent; /);
      }
      const { ledger } = await supply.getLedger({ productId });
      assert.partialDeepStrictEqual(ledger, { onHand: 10, safety: 0, adjusted: 0 });

      await supply.setSafetyStock({ productId, safety: 3 });
      assert.equal((await supply.setSafetyStock({ productId, safety: 0 })).ledger?.safety, 0);
      assert.equal((await supply.countStock({ productId, countId: "c1", count: 0 })).ledger?.onHand, 0);
    });

    it("a line needs its quantity, and a partly committed reservation shows a quantity of 0", async () => {
      const [one, two] = [await newProduct(), await newProduct()];
      const { reservations } = clients();
      const reservationId = `order-${one}`;
      const violations = await violationsOf(
        reservations.reserve({ reservationId, lines: [{ productId: one }] }),
      );
      assert.deepEqual(violations, {
        "lines[0].quantity": "is absent; give a whole number from 1 to 2147483647",
      });
      const lines = [one, two].map((productId) => ({ productId, quantity: 2 }));
      await reservations.reserve({ reservationId, lines });
      await reservations.commitReservation({ reservationId, lines: lines.slice(0, 1) });
      const response = await fetch(`${app.url}/inventory.v1.ReservationService/GetReservation`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ reservationId }),
      });
      assert.partialDeepStrictEqual(await response.json(), {
        reservation: { committedLines: [lines[0], { productId: two, quantity: 0 }] },
      });
    });
  });
}
