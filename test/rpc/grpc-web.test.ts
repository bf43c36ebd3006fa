import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, describe, it } from "node:test";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient, type Transport } from "@connectrpc/connect";
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-web";
import { BadRequestSchema } from "../../gen/google/rpc/error_details_pb.ts";
import { Health, HealthCheckResponse_ServingStatus as Serving } from "../../gen/health/v1/health_pb.ts";
import { StockService } from "../../gen/inventory/v1/stock_pb.ts";
import { ChangeCause, SupplyService } from "../../gen/inventory/v1/supply_pb.ts";
import { Inventory } from "../../gen/inventory_pb.ts";
import { startTestApp, type TestApp } from "../support/app.ts";

// Browser clients on Node's fetch, which differs from a browser's in CORS only.

/** A sent request: `POST application/grpc-web+proto`, `GET`. */
type Sent = string;

interface Variant {
  readonly name: string;
  readonly transport: (baseUrl: string, fetch: typeof globalThis.fetch) => Transport;
  readonly read: Sent;
  readonly write: Sent;
}

const VARIANTS: readonly Variant[] = [
  {
    name: "gRPC-Web",
    transport: (baseUrl, fetch) => createGrpcWebTransport({ baseUrl, fetch }),
    read: "POST application/grpc-web+proto",
    write: "POST application/grpc-web+proto",
  },
  {
    name: "gRPC-Web in JSON",
    transport: (baseUrl, fetch) => createGrpcWebTransport({ baseUrl, fetch, useBinaryFormat: false }),
    read: "POST application/grpc-web+json",
    write: "POST application/grpc-web+json",
  },
  {
    name: "Connect in JSON",
    transport: (baseUrl, fetch) => createConnectTransport({ baseUrl, fetch }),
    read: "POST application/json",
    write: "POST application/json",
  },
  {
    name: "Connect in protobuf",
    transport: (baseUrl, fetch) => createConnectTransport({ baseUrl, fetch, useBinaryFormat: true }),
    read: "POST application/proto",
    write: "POST application/proto",
  },
  {
    name: "Connect in JSON, reading by GET",
    transport: (baseUrl, fetch) => createConnectTransport({ baseUrl, fetch, useHttpGet: true }),
    read: "GET",
    write: "POST application/json",
  },
  {
    name: "Connect in protobuf, reading by GET",
    transport: (baseUrl, fetch) =>
      createConnectTransport({ baseUrl, fetch, useHttpGet: true, useBinaryFormat: true }),
    read: "GET",
    write: "POST application/proto",
  },
];

async function errorOf(call: Promise<unknown>): Promise<ConnectError> {
  try {
    await call;
  } catch (error) {
    assert.ok(error instanceof ConnectError, String(error));
    return error;
  }
  assert.fail("the call ended with OK");
}

for (const [index, { name, transport, read, write }] of VARIANTS.entries()) {
  describe(`${name}, by connect-web`, () => {
    const sent: Sent[] = [];
    const productId = `web-${index}`;
    let app: TestApp;
    let over: Transport;
    before(async () => {
      app = await startTestApp();
      over = transport(app.url, async (input, init) => {
        const type = new Headers(init?.headers).get("content-type");
        const method = init?.method ?? "GET";
        sent.push(method === "GET" ? method : `${method} ${type}`);
        return await fetch(input, init);
      });
    });
    after(() => app?.stop());

    it("puts, reads and adjusts a product", async () => {
      const inventory = createClient(Inventory, over);
      const stock = createClient(StockService, over);
      const supply = createClient(SupplyService, over);
      sent.length = 0;

      const updateTime = timestampFromMs(Date.UTC(2024, 0, 2, 3, 4, 5, 678));
      const product = { name: "Straw Hat 👒", description: "", price: 38.5, collectionId: "spring" };
      const put = await supply.putProduct({ productId, declared: 12, product, updateTime });
      assert.equal(put.applied, true);
      const adjusted = await supply.adjustStock({ productId, delta: -2, adjustmentId: "a", reason: "torn" });
      assert.equal(adjusted.ledger?.version, 2n);
      assert.deepEqual(sent, [write, write]);
      sent.length = 0;

      assert.equal((await inventory.get({ id: productId })).count, "10");
      const one = await stock.getStock({ productId });
      assert.partialDeepStrictEqual(one.stock, { productId, available: 10, version: 2n, product });
      const batch = await stock.batchGetStock({ productIds: ["nowhere", productId] });
      assert.deepEqual(batch.unknownProductIds, ["nowhere"]);
      assert.deepEqual(batch.stocks, [one.stock]);
      const { ledger } = await supply.getLedger({ productId });
      assert.partialDeepStrictEqual(ledger, {
        declared: 12,
        adjusted: -2,
        onHand: 10,
        declareTime: updateTime,
      });
      const { changes, nextPageToken } = await supply.listChanges({ productId, pageSize: 1 });
      assert.deepEqual(
        changes.map(({ cause, delta, reason }) => ({ cause, delta, reason })),
        [{ cause: ChangeCause.ADJUSTED, delta: -2, reason: "torn" }],
      );
      assert.notEqual(nextPageToken, "");
      assert.deepEqual(sent, [read, read, read, read, read]);
    });

    it("reports errors with their code, message and details", async () => {
      const inventory = createClient(Inventory, over);
      const supply = createClient(SupplyService, over);
      const unknown = await errorOf(inventory.get({ id: "nowhere" }));
      assert.equal(unknown.code, Code.NotFound);
      assert.equal(unknown.rawMessage, 'There is no product "nowhere"');

      const invalid = await errorOf(supply.adjustStock({ productId: "é\n", delta: 0, adjustmentId: "b" }));
      assert.equal(invalid.code, Code.InvalidArgument);
      const [detail] = invalid.findDetails(BadRequestSchema);
      assert.deepEqual(
        detail?.fieldViolations.map(({ field }) => field),
        ["product_id", "delta"],
      );
      assert.ok(invalid.rawMessage.includes(`product_id ${detail?.fieldViolations[0]?.description}`));

      const adjustmentId = randomUUID();
      const short = await errorOf(supply.adjustStock({ productId, delta: -1_000, adjustmentId }));
      assert.equal(short.code, Code.FailedPrecondition);
      assert.match(short.rawMessage, /by -1000/);
    });

    it("accepts headers and a deadline, and a call can be cancelled", async () => {
      const inventory = createClient(Inventory, over);
      const headers = { "x-request-id": "one" };
      const { count } = await inventory.get({ id: productId }, { headers, timeoutMs: 10_000 });
      assert.match(count, /^\d+$/);
      const cancelled = await errorOf(inventory.get({ id: productId }, { signal: AbortSignal.abort() }));
      assert.equal(cancelled.code, Code.Canceled);
      assert.equal((await inventory.get({ id: productId })).count, count);
    });

    it("streams until the caller cancels", async () => {
      const health = createClient(Health, over);
      const calling = new AbortController();
      const statuses: Serving[] = [];
      const watching = (async () => {
        for await (const { status } of health.watch({ service: "" }, { signal: calling.signal })) {
          statuses.push(status);
          calling.abort();
        }
      })();
      assert.equal((await errorOf(watching)).code, Code.Canceled);
      assert.deepEqual(statuses, [Serving.SERVING]);
    });
  });
}
