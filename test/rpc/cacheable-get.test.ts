import assert from "node:assert/strict";
import { request as requestHttp1 } from "node:http";
import { connect } from "node:http2";
import { after, before, describe, it } from "node:test";
import { brotliDecompressSync, gunzipSync } from "node:zlib";
import { startTestApp, type TestApp } from "../support/app.ts";
import { need } from "../support/programs.ts";
import { startRedis } from "../support/redis-server.ts";
import { until } from "../support/until.ts";
import { type Shop, SMALL_SHOP, shopAt } from "../web/shop.ts";

const SHOP_ORIGIN = "https://shop.example";
const STOCK = "/inventory.v1.StockService";

interface HttpResult {
  readonly status: number;
  readonly headers: Readonly<Record<string, unknown>>;
  readonly body: Buffer;
}

type Send = (
  app: TestApp,
  path: string,
  headers?: Record<string, string>,
  method?: string,
) => Promise<HttpResult>;

const overHttp1: Send = (app, path, headers = {}, method = "GET") =>
  new Promise((resolve, reject) => {
    const request = requestHttp1(`${app.url}${path}`, { method, headers, agent: false }, (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.on("end", () =>
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          body: Buffer.concat(chunks),
        }),
      );
    });
    request.on("error", reject);
    request.end();
  });

const overHttp2: Send = (app, path, headers = {}, method = "GET") =>
  new Promise((resolve, reject) => {
    const session = connect(app.url);
    session.on("error", reject);
    const stream = session.request({ ...headers, ":path": path, ":method": method });
    let head: Record<string, unknown> = {};
    const chunks: Buffer[] = [];
    stream.on("response", (received) => {
      head = received;
    });
    stream.on("data", (chunk: Buffer) => chunks.push(chunk));
    stream.on("error", reject);
    stream.on("end", () => {
      session.close();
      resolve({ status: Number(head[":status"]), headers: head, body: Buffer.concat(chunks) });
    });
  });

/** The path of a Connect GET. */
function read(path: string, message: object): string {
  return `${path}?connect=v1&encoding=json&message=${encodeURIComponent(JSON.stringify(message))}`;
}

/** The expected Vary: cross-origin pages may call StockService only. */
const varyOf = (path: string): string =>
  path.startsWith(STOCK) ? "origin, accept-encoding" : "accept-encoding";

const READS: readonly [name: string, path: string][] = [
  ["GetStock", read(`${STOCK}/GetStock`, { productId: "mug" })],
  ["BatchGetStock", read(`${STOCK}/BatchGetStock`, { productIds: ["mug", "pan", "nothing"] })],
  ["ListStock", read(`${STOCK}/ListStock`, { pageSize: 3 })],
  ["ListCollections", read(`${STOCK}/ListCollections`, {})],
  ["Inventory.Get", read("/Inventory/Get", { id: "mug" })],
];

for (const [version, send] of [
  ["1.1", overHttp1],
  ["2", overHttp2],
] as const) {
  describe(`cacheable reads over HTTP/${version}`, () => {
    let app: TestApp;
    let shop: Shop;
    before(async () => {
      app = await startTestApp({ EMBED_ORIGINS: SHOP_ORIGIN });
      shop = shopAt(app.url);
      await shop.put(...SMALL_SHOP);
    });
    after(async () => {
      shop?.close();
      await app?.stop();
    });

    for (const [name, path] of READS) {
      it(`${name} has cache headers and an ETag, and is a 304 where the client has it`, async () => {
        const first = await send(app, path);
        assert.equal(first.status, 200, first.body.toString());
        assert.equal(
          first.headers["cache-control"],
          "public, max-age=0, s-maxage=1, stale-while-revalidate=1",
        );
        assert.equal(first.headers["vary"], varyOf(path));
        const etag = String(first.headers["etag"]);
        assert.match(etag, /^"[\w-]{22}"$/);
        assert.equal((await send(app, path)).headers["etag"], etag, "equal bodies have equal ETags");

        for (const known of [etag, `W/${etag}`, `"other", ${etag}`]) {
          const again = await send(app, path, { "if-none-match": known });
          assert.equal(again.status, 304, known);
          assert.equal(again.body.length, 0);
          assert.equal(again.headers["etag"], etag);
          assert.equal(again.headers["cache-control"], first.headers["cache-control"]);
          assert.equal(again.headers["vary"], varyOf(path));
        }
        assert.equal((await send(app, path, { "if-none-match": '"other"' })).status, 200);
      });

      it(`${name} responds to HEAD as to GET, without the body`, async () => {
        const got = await send(app, path);
        const head = await send(app, path, {}, "HEAD");
        assert.equal(head.status, 200);
        assert.equal(head.body.length, 0);
        for (const field of ["etag", "cache-control", "content-type", "content-length", "vary"]) {
          assert.equal(head.headers[field], got.headers[field], field);
        }
        assert.equal(
          (await send(app, path, { "if-none-match": String(got.headers["etag"]) }, "HEAD")).status,
          304,
        );
      });
    }

    it("gives a changed stock another ETag", async () => {
      const path = read(`${STOCK}/GetStock`, { productId: "bowl" });
      const before = await send(app, path);
      await shop.reserve("bowl", 1);
      const changed = await send(app, path, { "if-none-match": String(before.headers["etag"]) });
      assert.equal(changed.status, 200);
      assert.equal(JSON.parse(changed.body.toString()).stock.available, 44);
      assert.notEqual(changed.headers["etag"], before.headers["etag"]);
    });

    it("gives each content encoding its own ETag", async () => {
      const path = read(`${STOCK}/BatchGetStock`, {
        productIds: Array.from({ length: 40 }, (_, n) => (n % 2 === 0 ? "mug" : "pan")),
      });
      const plain = await send(app, path);
      const gzip = await send(app, path, { "accept-encoding": "gzip" });
      const brotli = await send(app, path, { "accept-encoding": "br" });
      assert.equal(gunzipSync(gzip.body).toString(), plain.body.toString());
      assert.equal(brotliDecompressSync(brotli.body).toString(), plain.body.toString());
      const tags = [plain, gzip, brotli].map(({ headers }) => String(headers["etag"]));
      assert.equal(new Set(tags).size, 3, tags.join());
      const known = { "accept-encoding": "gzip", "if-none-match": tags[1] ?? "" };
      const again = await send(app, path, known);
      assert.equal(again.status, 304);
      assert.equal(again.headers["content-encoding"], undefined);
    });

    it("varies by origin where cross-origin pages are allowed", async () => {
      const [, path] = READS[0] ?? ["", ""];
      const response = await send(app, path, { origin: SHOP_ORIGIN });
      assert.equal(response.headers["access-control-allow-origin"], SHOP_ORIGIN);
      assert.equal(response.headers["vary"], "origin, accept-encoding");
      const again = await send(app, path, {
        origin: SHOP_ORIGIN,
        "if-none-match": String(response.headers["etag"]),
      });
      assert.equal(again.status, 304);
      assert.equal(again.headers["access-control-allow-origin"], SHOP_ORIGIN);
    });

    it("forbids caching of errors and of non-public methods, and sets no headers on POST", async () => {
      for (const [path, status] of [
        [read(`${STOCK}/GetStock`, { productId: "nothing" }), 404],
        [read(`${STOCK}/GetStock`, { productId: "" }), 400],
        [`${STOCK}/GetStock?connect=v1&encoding=json&message=%7B`, 400],
        [`${STOCK}/GetStock`, 415],
        [read(`${STOCK}/WatchStock`, { productIds: ["mug"] }), 405],
        [read("/inventory.v1.SupplyService/GetLedger", { productId: "mug" }), 200],
        [read("/inventory.v1.SupplyService/PutProduct", { productId: "mug" }), 405],
      ] as const) {
        const response = await send(app, path);
        assert.equal(response.status, status, `${path} ${response.body}`);
        assert.equal(response.headers["cache-control"], "no-store", path);
        assert.equal(response.headers["etag"], undefined, path);
      }
      const posted = await fetch(`${app.url}${STOCK}/GetStock`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: '{"productId":"mug"}',
      });
      assert.equal(posted.status, 200);
      assert.equal(posted.headers.get("cache-control"), null);
      assert.equal(posted.headers.get("etag"), null);
    });
  });
}

describe("cacheable reads without Redis", { skip: need("redis-server").missing }, () => {
  it("drop stale-while-revalidate from a stale response", async () => {
    await using redis = await startRedis();
    await using app = await startTestApp({ REDIS_URL: redis.url });
    const shop = shopAt(app.url);
    await shop.put(...SMALL_SHOP);
    shop.close();
    const [, path] = READS[0] ?? ["", ""];
    // Until the mirror has the server's own writes, reads go to Redis.
    await until(async () => {
      const { body } = await overHttp1(app, read(`${STOCK}/ListStock`, { pageSize: 1 }));
      return JSON.parse(body.toString()).totalSize === SMALL_SHOP.length;
    }, "the catalog is complete");
    // The mirror may have every product and still be waiting for its first confirmation that it is current.
    const fresh = await until(async () => {
      const response = await overHttp1(app, path);
      return response.headers["stock-stale"] === undefined && response;
    }, "a response is not marked as stale");
    assert.match(String(fresh.headers["cache-control"]), /stale-while-revalidate/);
    await redis.kill9();
    const stale = await until(async () => {
      const response = await overHttp1(app, path);
      return response.headers["stock-stale"] === "true" && response;
    }, "a response is marked as stale");
    assert.equal(stale.status, 200);
    assert.equal(stale.headers["cache-control"], "public, max-age=0, s-maxage=1");
  });
});
