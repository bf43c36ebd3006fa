import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { createRegistry } from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import { type Client, Code, ConnectError, createClient, type Transport } from "@connectrpc/connect";
import {
  createConnectTransport,
  createGrpcTransport,
  createGrpcWebTransport,
} from "@connectrpc/connect-node";
import { Redis } from "ioredis";
import { BadRequestSchema, RetryInfoSchema } from "../../gen/google/rpc/error_details_pb.ts";
import type { Status } from "../../gen/google/rpc/status_pb.ts";
import { ReservationService } from "../../gen/inventory/v1/reservation_pb.ts";
import { StockService } from "../../gen/inventory/v1/stock_pb.ts";
import { SupplyService } from "../../gen/inventory/v1/supply_pb.ts";
import { REQUEST_BYTES_MAX } from "../../server/rpc/connect-handler.ts";
import { startTestApp, type TestApp } from "../support/app.ts";
import { need } from "../support/programs.ts";
import { startRedis } from "../support/redis-server.ts";
import { startTcpProxy, type TcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";

const SIZE_MAX = 1_000;
/** Delay of each script call, each way; far below the response timeout. */
const DELAY_MS = 100;
const U = { seconds: 1_700_000_000n, nanos: 0 };

const TRANSPORTS: Readonly<Record<string, (baseUrl: string) => Transport>> = {
  gRPC: (baseUrl) => createGrpcTransport({ baseUrl }),
  "gRPC-Web": (baseUrl) => createGrpcWebTransport({ baseUrl, httpVersion: "1.1" }),
  JSON: (baseUrl) =>
    createConnectTransport({
      baseUrl,
      httpVersion: "1.1",
      useBinaryFormat: false,
      jsonOptions: { registry: createRegistry(BadRequestSchema, RetryInfoSchema) },
    }),
};

interface Outcome {
  readonly code: string;
  readonly fields: readonly string[];
}

/** The code of a result, and the fields that its BadRequest names. */
function outcomeOf({ error }: { readonly error?: Status | undefined }): Outcome {
  if (error === undefined) return { code: "OK", fields: [] };
  assert.notEqual(error.message, "");
  const [detail] = error.details.map((each) => anyUnpack(each, BadRequestSchema));
  const fields = detail?.fieldViolations.map(({ field }) => field) ?? [];
  return { code: Code[error.code] ?? "?", fields };
}

const refusalOf = (call: Promise<unknown>): Promise<ConnectError> =>
  call.then(() => assert.fail("the call succeeded"), ConnectError.from);

let made = 0;
const newId = () => `batch-${++made}`;

for (const onRedis of [false, true]) {
  const skip = onRedis && need("redis-server").missing;
  describe(`batches, with ${onRedis ? "Redis" : "the memory store"}`, { skip }, () => {
    let redis: Awaited<ReturnType<typeof startRedis>> | undefined;
    let app: TestApp;
    let supply: Client<typeof SupplyService>;
    before(async () => {
      redis = onRedis ? await startRedis() : undefined;
      app = await startTestApp(redis ? { REDIS_URL: redis.url } : {});
      supply = createClient(SupplyService, createGrpcTransport({ baseUrl: app.url }));
    });
    after(async () => {
      await app?.stop();
      await redis?.stop();
    });

    for (const [name, transportTo] of Object.entries(TRANSPORTS)) {
      it(`each request succeeds or fails alone, over ${name}`, async () => {
        const client = createClient(SupplyService, transportTo(app.url));
        const [a, b] = [newId(), newId()];
        const put = await client.batchPutProducts({
          requests: [
            { productId: a, declared: 5, updateTime: U },
            { productId: "", declared: -1, product: { name: "No price" }, updateTime: U },
            { productId: b, declared: 2, product: { name: "Mug", price: 3 }, updateTime: U },
          ],
        });
        assert.deepEqual(put.results.map(outcomeOf), [
          { code: "OK", fields: [] },
          { code: "InvalidArgument", fields: ["product_id", "product.price", "declared"] },
          { code: "OK", fields: [] },
        ]);
        assert.deepEqual(
          put.results.map(({ response }) => response?.ledger?.onHand),
          [5, undefined, 2],
        );
        const adjusted = await client.batchAdjustStock({
          requests: [
            { productId: a, delta: 1, adjustmentId: newId() },
            { productId: "batch-unknown", delta: 1, adjustmentId: newId() },
            { productId: b, delta: -3, adjustmentId: newId() },
            { productId: b, adjustmentId: newId() },
          ],
        });
        assert.deepEqual(adjusted.results.map(outcomeOf), [
          { code: "OK", fields: [] },
          { code: "NotFound", fields: [] },
          { code: "FailedPrecondition", fields: [] },
          { code: "InvalidArgument", fields: ["delta"] },
        ]);
        const counted = await client.batchCountStock({
          requests: [
            { productId: a, count: 9, countId: newId(), expectedVersion: 77n },
            { productId: b, count: 7, countId: newId() },
          ],
        });
        assert.deepEqual(counted.results.map(outcomeOf), [
          { code: "Aborted", fields: [] },
          { code: "OK", fields: [] },
        ]);
        assert.equal(counted.results[1]?.response?.ledger?.onHand, 7);
        assert.equal((await client.getLedger({ productId: a })).ledger?.onHand, 6);
      });
    }

    it("requests for a product are applied in order, also after one that failed", async () => {
      const productId = newId();
      await supply.putProduct({ productId, declared: 0, updateTime: U });
      const deltas = [3, -4, 5, -5, -3, 10, -7];
      const { results } = await supply.batchAdjustStock({
        requests: deltas.map((delta) => ({ productId, delta, adjustmentId: newId() })),
      });
      assert.deepEqual(
        results.map(({ response }) => response?.ledger?.onHand),
        [3, undefined, 8, 3, 0, 10, 3],
      );
    });

    it("a repeated batch changes nothing and has the same results", async () => {
      const ids = Array.from({ length: 200 }, newId);
      const puts = {
        requests: ids.map((productId, n) => ({
          productId,
          declared: n,
          product: { name: `Mug ${n}`, price: n },
          updateTime: U,
        })),
      };
      const adjustments = {
        requests: ids.map((productId, n) => ({
          productId,
          delta: n % 7 === 0 ? -1_000 : 2,
          adjustmentId: newId(),
        })),
      };
      const first = [await supply.batchPutProducts(puts), await supply.batchAdjustStock(adjustments)];
      const versions = (await supply.listLedgers({ pageSize: SIZE_MAX })).ledgers.map(
        ({ version }) => version,
      );
      const second = [await supply.batchPutProducts(puts), await supply.batchAdjustStock(adjustments)];
      assert.deepEqual(
        second.map(({ results }) => results.map(outcomeOf)),
        first.map(({ results }) => results.map(outcomeOf)),
      );
      assert.deepEqual(
        (await supply.listLedgers({ pageSize: SIZE_MAX })).ledgers.map(({ version }) => version),
        versions,
      );
    });

    it(`a batch has 1 to ${SIZE_MAX} requests`, async () => {
      const requests = Array.from({ length: SIZE_MAX }, (_, n) => ({ productId: `size-${n}`, declared: n }));
      const { results } = await supply.batchPutProducts({ requests });
      assert.deepEqual(new Set(results.map(({ error }) => error)), new Set([undefined]));
      for (const refused of [[], [...requests, { productId: "one-more", declared: 1 }]]) {
        const error = await refusalOf(supply.batchPutProducts({ requests: refused }));
        assert.equal(error.code, Code.InvalidArgument);
        assert.match(error.rawMessage, new RegExp(`requests has ${refused.length} entries; give 1 to 1000`));
      }
      await assert.rejects(supply.getLedger({ productId: "one-more" }), /no product/);
    });

    it("a batch above the limit of a request's bytes is refused as a whole, with the limit", async () => {
      const product = { name: "Mug", price: 1, description: "x".repeat(16_384) };
      const requests = Array.from({ length: 65 }, (_, n) => ({ productId: `bytes-${n}`, product }));
      const error = await refusalOf(supply.batchPutProducts({ requests }));
      assert.equal(error.code, Code.ResourceExhausted, error.rawMessage);
      assert.match(error.rawMessage, new RegExp(String(REQUEST_BYTES_MAX)));
      await assert.rejects(supply.getLedger({ productId: "bytes-0" }), /no product/);
      const { results } = await supply.batchPutProducts({ requests: requests.slice(0, 60) });
      assert.equal(results.length, 60);
    });

    it("a batch whose requests are all invalid still has a result for each", async () => {
      const { results } = await supply.batchCountStock({ requests: [{}, { productId: "x" }] });
      assert.deepEqual(results.map(outcomeOf), [
        { code: "InvalidArgument", fields: ["product_id", "count", "count_id"] },
        { code: "InvalidArgument", fields: ["count", "count_id"] },
      ]);
    });

    it("collections are put and deleted, and ListCollections follows", async () => {
      const stock = createClient(StockService, createGrpcTransport({ baseUrl: app.url }));
      const collectionId = newId();
      const names = async () =>
        (await stock.listCollections({})).collections
          .filter((each) => each.collectionId === collectionId)
          .map(({ name }) => name);
      const collection = { collectionId, name: "Mugs", description: "To drink from" };
      assert.equal((await supply.putCollection({ collection, updateTime: U })).applied, true);
      assert.equal((await supply.putCollection({ collection, updateTime: U })).applied, true);
      await until(async () => (await names()).join() === "Mugs", "the collection is listed");
      const older = { ...U, seconds: U.seconds - 1n };
      assert.equal((await supply.deleteCollection({ collectionId, updateTime: older })).applied, false);
      assert.equal((await supply.deleteCollection({ collectionId })).applied, true);
      await until(async () => (await names()).length === 0, "the collection is not listed");
      assert.equal((await supply.putCollection({ collection, updateTime: U })).applied, false);
    });

    it("reservations are listed by product, in pages", async () => {
      const reservations = createClient(ReservationService, createGrpcTransport({ baseUrl: app.url }));
      const [productId, other] = [newId(), newId()];
      await supply.batchPutProducts({
        requests: [productId, other].map((id) => ({ productId: id, declared: 100 })),
      });
      for (let n = 0; n < 6; n++) {
        const lines = [{ productId: n % 2 === 0 ? productId : other, quantity: 1 }];
        await reservations.reserve({ reservationId: `${productId}-${n}`, lines });
      }
      const found: string[] = [];
      let pageToken = "";
      do {
        const page = await reservations.listReservations({ productId, pageSize: 2, pageToken });
        assert.ok(page.reservations.length <= 2);
        found.push(...page.reservations.map(({ reservationId }) => reservationId));
        pageToken = page.nextPageToken;
      } while (pageToken !== "");
      assert.deepEqual(
        found.sort(),
        [0, 2, 4].map((n) => `${productId}-${n}`),
      );
    });
  });
}

describe("batches while Redis goes away", { skip: need("redis-server").missing }, () => {
  let redis: Awaited<ReturnType<typeof startRedis>>;
  let proxy: TcpProxy;
  let app: TestApp;
  let direct: Redis;
  let supply: Client<typeof SupplyService>;
  before(async () => {
    redis = await startRedis();
    proxy = await startTcpProxy({ target: redis });
    app = await startTestApp({ REDIS_URL: `redis://127.0.0.1:${proxy.port}` });
    direct = new Redis(redis.url);
    supply = createClient(SupplyService, createGrpcTransport({ baseUrl: app.url }));
  });
  after(async () => {
    direct?.disconnect();
    await app?.stop();
    await proxy?.close();
    await redis?.stop();
  });
  const ids = Array.from({ length: SIZE_MAX }, (_, n) => `away-${n}`);
  const adjustments = ids.map((productId) => ({ productId, delta: 1, adjustmentId: `adjust-${productId}` }));

  it("a batch that is answered in part has UNAVAILABLE with RetryInfo for the rest; its repetition completes it", async () => {
    await supply.batchPutProducts({ requests: ids.map((productId) => ({ productId, declared: 10 })) });
    // Each of the 16 script calls, two at a time, is delayed, so that Redis goes away in the middle of the batch.
    await proxy.delay(DELAY_MS);
    const running = supply.batchAdjustStock({ requests: adjustments });
    const adjusted = async () => (await direct.keys("{b*}:op:adjust:*")).length;
    await until(async () => (await adjusted()) > 128, "the first script calls were answered");
    await proxy.freeze();
    const outcome = await running.then(
      ({ results }) => results,
      (error: unknown) => ConnectError.from(error),
    );
    await proxy.pass();
    assert.ok(Array.isArray(outcome), `the call failed: ${outcome}`);
    const codes = new Set(outcome.map((result) => outcomeOf(result).code));
    assert.deepEqual(codes, new Set(["OK", "Unavailable"]));
    const failed = outcome.filter(({ error }) => error !== undefined);
    for (const { error } of failed) {
      assert.ok(
        error?.details.some((detail) => anyUnpack(detail, RetryInfoSchema)?.retryDelay !== undefined),
      );
    }
    assert.ok((await adjusted()) < SIZE_MAX, "requests were sent after Redis had gone away");
    await until(
      async () =>
        (await supply.batchAdjustStock({ requests: adjustments }).catch(() => undefined))?.results.every(
          ({ error }) => error === undefined,
        ),
      "the repeated batch succeeds",
    );
    for (const productId of ids) {
      const { ledger } = await supply.getLedger({ productId });
      assert.equal(ledger?.onHand, 11, `${productId} has ${ledger?.onHand} units`);
    }
  });

  it("a batch fails as a whole with UNAVAILABLE if no request was executed", async () => {
    await proxy.freeze();
    const error = await refusalOf(supply.batchAdjustStock({ requests: adjustments }));
    await proxy.pass();
    assert.equal(error.code, Code.Unavailable, error.rawMessage);
    assert.equal(error.findDetails(RetryInfoSchema).length, 1);
  });

  it("a batch whose deadline passes is not continued", async () => {
    await until(
      async () => (await supply.getLedger({ productId: "away-0" }).catch(() => undefined)) !== undefined,
      "Redis is back",
    );
    await proxy.delay(DELAY_MS);
    const late = ids.map((productId) => ({ productId, delta: 1, adjustmentId: `late-${productId}` }));
    const error = await refusalOf(supply.batchAdjustStock({ requests: late }, { timeoutMs: 100 }));
    assert.equal(error.code, Code.DeadlineExceeded);
    await proxy.pass();
    // Batches take turns, so the rest of a batch that went on would be done by the end of this one.
    const next = ids.map((productId) => ({ productId, delta: 1, adjustmentId: `next-${productId}` }));
    await supply.batchAdjustStock({ requests: next });
    assert.ok((await direct.keys("{b*}:op:adjust:*:late-*")).length < SIZE_MAX);
  });
});
