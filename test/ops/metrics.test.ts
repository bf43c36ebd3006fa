import assert from "node:assert/strict";
import { createHash, randomUUID } from "node:crypto";
import { request as httpRequest } from "node:http";
import { after, before, describe, it } from "node:test";
import { gzipSync } from "node:zlib";
import { createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport } from "@connectrpc/connect-node";
import { ReservationService } from "../../gen/inventory/v1/reservation_pb.ts";
import { StockService } from "../../gen/inventory/v1/stock_pb.ts";
import { SupplyService } from "../../gen/inventory/v1/supply_pb.ts";
import { startTestApp, type TestApp } from "../support/app.ts";
import { need } from "../support/programs.ts";
import { startRedis } from "../support/redis-server.ts";
import { type Scrape, scrape } from "../support/scrape.ts";
import { until } from "../support/until.ts";

const GET_STOCK = "/inventory.v1.StockService/GetStock";
const STOCK = { grpc_service: "inventory.v1.StockService", grpc_method: "GetStock" };

function clients(baseUrl: string) {
  const transport = createGrpcTransport({ baseUrl });
  return {
    stock: createClient(StockService, transport),
    supply: createClient(SupplyService, transport),
    reservations: createClient(ReservationService, transport),
  };
}

function put(productId: string, declared: number) {
  return { productId, declared, updateTime: { seconds: 1n, nanos: 0 } };
}

describe("metrics of calls", () => {
  let app: TestApp;

  before(async () => {
    app = await startTestApp({ ADMIN_PORT: "0", LOW_STOCK_MAX: "3" });
    await clients(app.url).supply.putProduct(put("p1", 5));
  });
  after(() => app.stop());

  it("counts the requests of a batch by their codes", async () => {
    const requests = [put("p1", 5), put("p1", 5), put("", 1)];
    await clients(app.url).supply.batchPutProducts({ requests });
    const { value } = await scrape(app.adminUrl);
    const ofMethod = (grpc_code: string): number | undefined =>
      value("inventory_batch_requests_total", { grpc_method: "BatchPutProducts", grpc_code });
    assert.deepEqual([ofMethod("OK"), ofMethod("InvalidArgument")], [2, 1]);
    assert.equal(value("grpc_server_handled_total", { grpc_method: "BatchPutProducts", grpc_code: "OK" }), 1);
  });

  it("counts each call once by its code, on both paths and in every protocol", async () => {
    const before = await scrape(app.adminUrl);
    const json = createClient(
      StockService,
      createConnectTransport({ baseUrl: app.url, httpVersion: "1.1", useBinaryFormat: false }),
    );
    await clients(app.url).stock.getStock({ productId: "p1" });
    await json.getStock({ productId: "p1" });
    await assert.rejects(json.getStock({ productId: "none" }));
    const body = gzipSync(JSON.stringify({ productId: "p1" }));
    const headers = { "content-type": "application/json", "content-encoding": "gzip" };
    assert.equal((await fetch(app.url + GET_STOCK, { method: "POST", headers, body })).status, 200);
    const query = new URLSearchParams({ connect: "v1", encoding: "json", message: '{"productId":""}' });
    assert.equal((await fetch(`${app.url}${GET_STOCK}?${query}`)).status, 400);

    await until(async () => {
      const after = await scrape(app.adminUrl);
      const grown = (name: string, labels: Record<string, string>): number =>
        (after.value(name, labels) ?? 0) - (before.value(name, labels) ?? 0);
      assert.equal(grown("grpc_server_started_total", STOCK), 5);
      assert.equal(grown("grpc_server_handled_total", { ...STOCK, grpc_code: "OK" }), 3);
      assert.equal(grown("grpc_server_handled_total", { ...STOCK, grpc_code: "NotFound" }), 1);
      assert.equal(grown("grpc_server_handled_total", { ...STOCK, grpc_code: "InvalidArgument" }), 1);
      assert.equal(grown("grpc_server_handled_total", STOCK), 5);
      assert.equal(grown("grpc_server_handling_seconds_count", STOCK), 5);
      assert.equal(grown("inventory_http_requests_total", {}), 0);
      return true;
    }, "the calls are counted");
  });

  it("counts requests that are not calls by their status", async () => {
    const before = await scrape(app.adminUrl);
    const requests: [number, string, RequestInit?][] = [
      [404, "/nothing"],
      [404, "/inventory.v1.StockService/Nothing", { method: "POST" }],
      [415, GET_STOCK, { method: "POST", headers: { "content-type": "text/x" }, body: "x" }],
      [505, GET_STOCK, { method: "POST", headers: { "content-type": "application/grpc" } }],
      [200, "/healthz"],
    ];
    for (const [status, path, init] of requests) {
      assert.equal((await fetch(app.url + path, init)).status, status, path);
    }
    await until(async () => {
      const after = await scrape(app.adminUrl);
      for (const [status, count] of Object.entries({ 404: 2, 415: 1, 505: 1, 200: 1 })) {
        const [was, is] = [before, after].map((each) =>
          each.value("inventory_http_requests_total", { status }),
        );
        assert.equal((is ?? 0) - (was ?? 0), count, status);
      }
      assert.equal(after.value("grpc_server_started_total"), before.value("grpc_server_started_total"));
      return true;
    }, "the requests are counted");
  });

  it("shows open calls and connections, and the messages of watches", async () => {
    const { stock, supply } = clients(app.url);
    const ending = new AbortController();
    const updates = stock
      .watchStock({ productIds: ["p1"] }, { signal: ending.signal })
      [Symbol.asyncIterator]();
    await updates.next();
    const open = await scrape(app.adminUrl);
    assert.equal(open.value("inventory_watches_open"), 1);
    assert.equal(open.value("inventory_calls_in_flight", { grpc_type: "server_stream" }), 1);
    assert.ok((open.value("inventory_connections_open") ?? 0) >= 1);
    const sent = open.value("inventory_watch_messages_total", { kind: "change" }) ?? 0;

    await supply.adjustStock({ productId: "p1", delta: 1, adjustmentId: randomUUID(), reason: "found" });
    await updates.next();
    const later = await scrape(app.adminUrl);
    assert.equal(later.value("inventory_watch_messages_total", { kind: "change" }), sent + 1);
    assert.equal(later.value("inventory_watch_messages_total", { kind: "snapshot" }), 1);

    ending.abort();
    await assert.rejects(updates.next());
    await until(async () => {
      const closed = await scrape(app.adminUrl);
      assert.equal(closed.value("inventory_watches_open"), 0);
      assert.equal(closed.value("inventory_calls_in_flight"), 0);
      return true;
    }, "the watch is closed");
  });

  it("counts products by availability, and changes by cause", async () => {
    const { supply, reservations } = clients(app.url);
    const before = await scrape(app.adminUrl);
    const grown = (after: Scrape, name: string, labels = {}): number =>
      (after.value(name, labels) ?? 0) - (before.value(name, labels) ?? 0);
    await supply.putProduct(put("left-0", 0));
    await supply.putProduct(put("left-3", 3));
    await supply.putProduct(put("left-4", 4));
    const lines = [{ productId: "left-4", quantity: 4 }];
    await reservations.reserve({ reservationId: "of-metrics", lines });
    let now = await scrape(app.adminUrl);
    assert.equal(grown(now, "inventory_products"), 3);
    assert.equal(grown(now, "inventory_products_out_of_stock"), 2);
    assert.equal(grown(now, "inventory_products_low_stock"), 1);
    assert.equal(grown(now, "inventory_reservations_active"), 1);
    assert.equal(grown(now, "inventory_stock_changes_total", { cause: "reserved" }), 1);
    assert.equal(grown(now, "inventory_shortfall_changes_total"), 0);

    await supply.adjustStock({
      productId: "left-4",
      delta: -1,
      adjustmentId: randomUUID(),
      reason: "broken",
    });
    await supply.deleteProduct({ productId: "left-0", updateTime: { seconds: 2n, nanos: 0 } });
    await reservations.releaseReservation({ reservationId: "of-metrics" });
    now = await scrape(app.adminUrl);
    assert.equal(grown(now, "inventory_shortfall_changes_total"), 1);
    assert.equal(grown(now, "inventory_products"), 2);
    assert.equal(grown(now, "inventory_products_out_of_stock"), 0);
    assert.equal(grown(now, "inventory_products_low_stock"), 2);
    assert.equal(grown(now, "inventory_reservations_active"), 0);
  });

  it("counts reservations that expire", async () => {
    const { reservations } = clients(app.url);
    const lines = [{ productId: "p1", quantity: 1 }];
    await reservations.reserve({ reservationId: "short-lived", lines, ttl: { seconds: 1n, nanos: 0 } });
    await until(
      async () => (await scrape(app.adminUrl)).value("inventory_reservations_expired_total") === 1,
      "it has expired",
    );
  });
});

describe("the number of time series", () => {
  it("does not grow with products, callers, addresses or paths", async () => {
    const tokens = Array.from({ length: 50 }, (_, n) => `token-of-caller-${n}`);
    const AUTH_TOKENS = tokens
      .map((token, n) => `caller-${n}:ops:${createHash("sha256").update(token).digest("hex")}`)
      .join(",");
    await using app = await startTestApp({ ADMIN_PORT: "0", AUTH_TOKENS });

    /** The same calls for each `n`; every value that a client chooses differs. */
    const callAll = async (n: number): Promise<void> => {
      const headers = {
        "content-type": "application/json",
        authorization: `Bearer ${tokens[n % tokens.length]}`,
        "x-request-id": `request-${n}`,
        "user-agent": `agent-${n}`,
      };
      const from = { localAddress: `127.0.${n % 8}.${2 + (n % 100)}`, headers };
      const post = (path: string, body: object): Promise<number> =>
        postFrom(app.url + path, from, JSON.stringify(body));
      const [productId, reservationId] = [`product-${n}`, `order-${n}`];
      const lines = [{ productId, quantity: 1 }];
      assert.equal(await post("/inventory.v1.SupplyService/PutProduct", { productId, declared: 9 }), 200);
      assert.equal(await post(GET_STOCK, { productId }), 200);
      assert.equal(await post(GET_STOCK, { productId: `no-${n}` }), 404);
      assert.equal(await post("/inventory.v1.ReservationService/Reserve", { reservationId, lines }), 200);
      assert.equal(await post(`/inventory.v1.StockService/Get${n}`, {}), 404);
      assert.equal(await post(`/path-${n}`, {}), 404);
    };
    await callAll(0);
    // The histogram has a series per kind of garbage collection, from its first occurrence on.
    const seriesOf = async (): Promise<string[]> =>
      (await scrape(app.adminUrl)).series.filter((series) => !/^nodejs_(gc|active)_/.test(series)).sort();
    await seriesOf();
    const before = await seriesOf();
    for (let n = 1; n <= 60; n++) {
      await callAll(n);
    }
    assert.deepEqual(await seriesOf(), before);
    assert.ok(before.length < 600, `${before.length} series`);
  });
});

function postFrom(
  url: string,
  options: { readonly localAddress: string; readonly headers: Record<string, string> },
  body: string,
): Promise<number> {
  return new Promise((resolve, reject) => {
    const request = httpRequest(url, { ...options, method: "POST", agent: false }, (response) => {
      response.resume().once("end", () => resolve(response.statusCode ?? 0));
    });
    request.once("error", reject).end(body);
  });
}

const redisProgram = need("redis-server");

describe("metrics of Redis", { skip: redisProgram.missing }, () => {
  it("show batches, an outage, and the recovery", async () => {
    await using redis = await startRedis();
    await using app = await startTestApp({ REDIS_URL: redis.url, ADMIN_PORT: "0" });
    const { supply, stock, reservations } = clients(app.url);
    await until(async () => {
      const start = await scrape(app.adminUrl);
      return start.value("inventory_ready") === 1 && start.value("inventory_mirror_stale_seconds") === 0;
    }, "it is ready");
    await Promise.all(Array.from({ length: 100 }, (_, n) => supply.putProduct(put(`p${n}`, 1))));
    await reservations.reserve({ reservationId: "held", lines: [{ productId: "p1", quantity: 1 }] });
    const mutations = { kind: "mutations" };
    const live = await until(async () => {
      const now = await scrape(app.adminUrl);
      // A batch is counted when it is sent and when its reply arrives, and the sweeper may send one at any time.
      assert.equal(
        now.value("inventory_redis_command_seconds_count", mutations),
        now.value("inventory_redis_batch_operations_count", mutations),
      );
      // The mirror must have received the product before the outage.
      assert.equal(now.value("inventory_stock_changes_total", { cause: "reserved" }), 1);
      return now;
    }, "all replies have arrived, and the mirror has the product");
    const operations = live.value("inventory_redis_batch_operations_sum", mutations) ?? 0;
    assert.ok(operations >= 100);
    assert.ok(operations > (live.value("inventory_redis_batch_operations_count", mutations) ?? operations));
    assert.equal(live.value("inventory_redis_up"), 3);
    assert.equal(live.value("inventory_mirror_stale_seconds"), 0);
    assert.equal(live.value("inventory_reservations_active"), 1);

    await redis.kill9();
    await assert.rejects(supply.putProduct(put("p0", 2)));
    await until(async () => {
      const outage = await scrape(app.adminUrl);
      return (
        outage.value("inventory_redis_up") === 0 &&
        outage.value("inventory_ready") === 0 &&
        (outage.value("inventory_mirror_stale_seconds") ?? 0) > 0 &&
        outage.value("inventory_reservations_active") === undefined
      );
    }, "the metrics show the outage");
    assert.equal((await stock.getStock({ productId: "p1" })).stock?.available, 0);

    await redis.restart();
    await until(async () => {
      const back = await scrape(app.adminUrl);
      return (
        back.value("inventory_redis_up") === 3 &&
        back.value("inventory_ready") === 1 &&
        back.value("inventory_mirror_stale_seconds") === 0 &&
        back.value("inventory_redis_reconnects_total") === 3 &&
        back.value("inventory_reservations_active") === 1
      );
    }, "the metrics show the recovery");
  });
});
