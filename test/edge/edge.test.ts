import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-web";
import { type ServiceError, status } from "@grpc/grpc-js";
import { BadRequestSchema } from "../../gen/google/rpc/error_details_pb.ts";
import { ReservationService } from "../../gen/inventory/v1/reservation_pb.ts";
import { StockService, type WatchStockResponse } from "../../gen/inventory/v1/stock_pb.ts";
import { SupplyService } from "../../gen/inventory/v1/supply_pb.ts";
import { Inventory } from "../../gen/inventory_pb.ts";
import { startTestApp, type TestApp } from "../support/app.ts";
import { need } from "../support/programs.ts";
import { type Shop, SMALL_SHOP, shopAt } from "../web/shop.ts";
import { ask, NativeClient, trust } from "./clients.ts";
import { EDGES, type Edge } from "./edges.ts";

/** Far longer than this process, which runs the service, may be blocked between two heartbeats. */
const IDLE_MS = 3_000;
const HEARTBEAT_MS = 500;
/** Longer than two idle timeouts. */
const HEARTBEATS = 13;
const STOCK = "/inventory.v1.StockService";
const JSON_TYPE = { "content-type": "application/json" };
/** Status codes with which edges refuse. */
const CLOSED: readonly number[] = [400, 404];

for (const kind of Object.values(EDGES)) {
  describe(`behind ${kind.name}`, { skip: kind.program.missing || need("openssl").missing }, () => {
    let app: TestApp;
    let edge: Edge;
    let shop: Shop;
    let native: NativeClient;

    before(async () => {
      app = await startTestApp({ WATCH_HEARTBEAT_MS: String(HEARTBEAT_MS), TRUSTED_PROXIES: "127.0.0.1" });
      edge = await kind.start({ upstreams: [app.port], idleMs: IDLE_MS });
      trust(edge);
      shop = shopAt(app.url);
      await shop.put(...SMALL_SHOP);
      native = new NativeClient(edge);
    });
    after(async () => {
      native?.[Symbol.dispose]();
      shop?.close();
      await edge?.[Symbol.asyncDispose]();
      await app?.stop();
    });

    it("native gRPC by grpc-js: responses, errors in the trailers, error details", async () => {
      const { stock } = await native.call(StockService.method.getStock, { productId: "bowl" });
      assert.equal(stock?.available, 45);
      assert.equal((await native.call(Inventory.method.get, { id: "bowl" })).count, "45");
      const unknown = await errorOf(native.call(StockService.method.getStock, { productId: "ü😀" }));
      assert.equal(unknown.code, status.NOT_FOUND);
      assert.match(unknown.details, /"ü😀"/);
      const invalid = await errorOf(native.call(StockService.method.getStock, { productId: "" }));
      assert.equal(invalid.code, status.INVALID_ARGUMENT);
      const [details] = invalid.metadata.get("grpc-status-details-bin");
      assert.match(String(details), /google\.rpc\.BadRequest.*product_id/s);
    });

    for (const [name, transport] of [
      ["gRPC-Web", (baseUrl: string) => createGrpcWebTransport({ baseUrl })],
      ["Connect by POST", (baseUrl: string) => createConnectTransport({ baseUrl })],
      ["Connect by GET", (baseUrl: string) => createConnectTransport({ baseUrl, useHttpGet: true })],
    ] as const) {
      it(`${name} by connect-web: responses, errors, error details`, async () => {
        const client = createClient(StockService, transport(edge.url));
        assert.equal((await client.getStock({ productId: "bowl" })).stock?.available, 45);
        const many = await client.batchGetStock({ productIds: Array.from({ length: 100 }, () => "bowl") });
        assert.equal(many.stocks.length, 100);
        const unknown = await connectErrorOf(client.getStock({ productId: "ü😀" }));
        assert.equal(unknown.code, Code.NotFound);
        assert.match(unknown.rawMessage, /"ü😀"/);
        const invalid = await connectErrorOf(client.getStock({ productId: "" }));
        assert.equal(invalid.code, Code.InvalidArgument);
        const [violations] = invalid.findDetails(BadRequestSchema);
        assert.equal(violations?.fieldViolations[0]?.field, "product_id");
      });
    }

    it("JSON by plain requests, with the headers for caches and browsers", async () => {
      const body = '{"productId":"bowl"}';
      const posted = await ask(edge, `${STOCK}/GetStock`, { headers: JSON_TYPE, body });
      assert.equal(JSON.parse(posted.body).stock.available, 45);
      assert.equal(posted.headers["cache-control"], undefined);
      const path = `${STOCK}/GetStock?connect=v1&encoding=json&message=${encodeURIComponent(body)}`;
      const got = await ask(edge, path);
      assert.equal(got.body, posted.body);
      assert.equal(got.headers["cache-control"], "public, max-age=0, s-maxage=1, stale-while-revalidate=1");
      const etag = String(got.headers["etag"]);
      const again = await ask(edge, path, { headers: { "if-none-match": etag } });
      assert.equal(again.status, 304);
      assert.equal(again.body, "");
      const failed = await ask(edge, path.replace("bowl", "nothing"));
      assert.equal(failed.status, 404);
      assert.equal(JSON.parse(failed.body).code, "not_found");
      assert.equal(failed.headers["cache-control"], "no-store");
    });

    it(`watches of all three protocols stay open for ${HEARTBEATS} heartbeats, over two idle timeouts`, async () => {
      const watches: Readonly<Record<string, (signal: AbortSignal) => AsyncIterable<WatchStockResponse>>> = {
        "native gRPC": (signal) => {
          const stream = native.open(StockService.method.watchStock, { productIds: ["mat"] });
          signal.addEventListener("abort", () => stream.cancel());
          return stream;
        },
        "gRPC-Web": (signal) =>
          createClient(StockService, createGrpcWebTransport({ baseUrl: edge.url })).watchStock(
            { productIds: ["mat"] },
            { signal },
          ),
        Connect: (signal) =>
          createClient(StockService, createConnectTransport({ baseUrl: edge.url })).watchStock(
            { productIds: ["mat"] },
            { signal },
          ),
      };
      const enough = new AbortController();
      const seen = await Promise.all(
        Object.values(watches).map(async (open) => {
          const counts: number[] = [];
          let heartbeats = 0;
          for await (const { stocks } of open(enough.signal)) {
            counts.push(...stocks.map(({ available }) => available));
            heartbeats += stocks.length === 0 ? 1 : 0;
            if (heartbeats >= HEARTBEATS) {
              break;
            }
          }
          return counts;
        }),
      );
      enough.abort();
      assert.deepEqual(seen, [[0], [0], [0]]);
    });

    it("writes, the schema and malformed paths are refused from outside", async () => {
      const reserve = native.call(ReservationService.method.reserve, {
        reservationId: "outside",
        lines: [{ productId: "mug", quantity: 1 }],
      });
      assert.equal((await errorOf(reserve)).code, status.UNIMPLEMENTED);
      const web = createClient(SupplyService, createGrpcWebTransport({ baseUrl: edge.url }));
      assert.equal(
        (await connectErrorOf(web.putProduct({ productId: "mug", declared: 1 }))).code,
        Code.Unimplemented,
      );
      const supply = "inventory.v1.SupplyService/PutProduct";
      for (const path of [
        `/${supply}`,
        `//${supply}`,
        `/./${supply}`,
        `/%69nventory.v1.SupplyService/PutProduct`,
        `${STOCK}/../${supply}`,
        `${STOCK}/..%2f${supply}`,
        `${STOCK}/%2e%2e/${supply}`,
        `${STOCK}%2f..%2f${supply}`,
        `/assets/../${supply}`,
        `/assets/..;/${supply}`,
        `/${supply}?x=${STOCK}/GetStock`,
        `/${supply}#${STOCK}/GetStock`,
        `/${supply.toLowerCase()}`,
        `/${supply}/`,
      ]) {
        const answer = await ask(edge, path, {
          headers: { ...JSON_TYPE, "x-original-url": `/${supply}`, "x-http-method-override": "GET" },
          body: '{"productId":"mug","declared":1}',
        });
        assert.ok(CLOSED.includes(answer.status), `${path} ${answer.status} ${answer.body}`);
      }
      for (const path of [
        "/readyz",
        "/demo/reserve",
        "/metrics",
        "/inventory.v1.SupplyService/GetLedger?connect=v1&encoding=json&message=%7B%22productId%22%3A%22mug%22%7D",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
      ]) {
        assert.equal((await ask(edge, path)).status, 404, path);
      }
      const { count } = await native.call(Inventory.method.get, { id: "mug" });
      assert.equal(count, "120");
    });

    it("the page is compressed by the service, a watch is not", async () => {
      const page = await fetch(`${edge.url}/`);
      assert.equal(page.status, 200);
      assert.match(page.headers.get("content-encoding") ?? "", /^(br|gzip)$/);
      assert.match(await page.text(), /Enamel Mug/);
      const watch = await fetch(`${edge.url}${STOCK}/WatchStock`, {
        method: "POST",
        headers: { "content-type": "application/grpc-web+proto" },
        body: new Uint8Array(5),
      });
      assert.equal(watch.headers.get("content-encoding"), null);
      await watch.body?.cancel();
      const plain = await ask(edge, "/");
      assert.equal(plain.headers["content-encoding"], undefined);
      assert.match(plain.body, /Enamel Mug/);
    });

    it("another host gets a response with a body, and never an empty success", async () => {
      const answer = await ask(edge, "/healthz", { headers: { host: "192.0.2.1" } });
      assert.notEqual(answer.body, "");
      assert.ok(answer.status === 421 || answer.body === "ok\n", `${answer.status} ${answer.body}`);
      // The Envoy file has no plain port.
      if (kind.name !== "Envoy") {
        const plain = await fetch(`http://127.0.0.1:${edge.plainPort}/`, { redirect: "manual" });
        assert.ok([301, 308, 421].includes(plain.status), String(plain.status));
      }
    });

    it("stops by its container's stop signal while a watch is open", async () => {
      const stopped = await kind.start({ upstreams: [app.port] });
      trust(stopped);
      const watch = await fetch(`${stopped.url}${STOCK}/WatchStock`, {
        method: "POST",
        headers: { "content-type": "application/grpc-web+proto" },
        body: new Uint8Array(5),
      });
      const reader = watch.body?.getReader();
      assert.equal((await reader?.read())?.done, false);
      try {
        assert.equal(await stopped.stopGracefully(), "exit code 0");
      } finally {
        await stopped[Symbol.asyncDispose]();
        await reader?.cancel().catch(() => undefined);
      }
    });

    it("a request head above the limit is refused", async () => {
      const answer = await ask(edge, "/healthz", { headers: { cookie: "x".repeat(40_000) } });
      assert.ok([400, 431].includes(answer.status), String(answer.status));
      assert.equal((await ask(edge, "/healthz")).status, 200);
    });
  });
}

async function errorOf(call: Promise<unknown>): Promise<ServiceError> {
  try {
    await call;
  } catch (error) {
    assert.ok(error instanceof Error && "code" in error && "metadata" in error, String(error));
    return error as ServiceError;
  }
  assert.fail("the call was answered with OK");
}

async function connectErrorOf(call: Promise<unknown>): Promise<ConnectError> {
  try {
    await call;
  } catch (error) {
    assert.ok(error instanceof ConnectError, String(error));
    return error;
  }
  assert.fail("the call was answered with OK");
}
