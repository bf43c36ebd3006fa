import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { join } from "node:path";
import { describe, it } from "node:test";
import { promisify } from "node:util";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { Redis } from "ioredis";
import { StockService } from "../../gen/inventory/v1/stock_pb.ts";
import { startTestApp } from "../support/app.ts";
import { need } from "../support/programs.ts";
import { startRedis } from "../support/redis-server.ts";
import { until } from "../support/until.ts";

const run = promisify(execFile);
const ADOPT = join(import.meta.dirname, "../../tools/adopt.ts");
const PRODUCTS = 2_500;

describe("adopting the plain keys of the Go service", { skip: need("redis-server").missing }, () => {
  it("lists them in a dry run, then adopts all of them beside a running server, once", async () => {
    const redis = await startRedis({ appendonly: "no" });
    const client = new Redis(redis.url);
    const adopt = async (...args: string[]): Promise<string> =>
      (
        await run(process.execPath, [ADOPT, ...args], {
          env: { PATH: process.env["PATH"], REDIS_URL: redis.url },
          maxBuffer: 16 * 1024 * 1024,
        })
      ).stdout;
    try {
      const counts = Array.from({ length: PRODUCTS }, (_, n): [string, string] => [
        `product-${n}`,
        String(n),
      ]);
      await client.mset(Object.fromEntries(counts));
      await client.mset({ token: "s3cret", "too-many": "2147483648", signed: "-1", "": "5" });
      await client.hset("a-hash", "field", "1");
      const before = await client.dbsize();

      const listed = await adopt("--dry-run");
      assert.match(listed, /2500 adopted, 0 known, 3 not-a-count, 1 not-an-id; a dry run/);
      assert.match(listed, /^adopted {5}"product-7" 7$/m);
      assert.doesNotMatch(listed, /s3cret/);
      assert.equal(await client.dbsize(), before, "a dry run writes nothing");

      await using app = await startTestApp({ REDIS_URL: redis.url });
      const stock = createClient(StockService, createGrpcTransport({ baseUrl: app.url }));
      const total = async () => Number((await stock.listStock({ pageSize: 1 })).totalSize);
      assert.equal(await total(), 0);
      // A product that the server knows keeps its own count.
      await stock.getStock({ productId: "product-1" });
      await client.set("product-1", "99");
      assert.match(await adopt("--match=product-1*"), /^\d+ adopted, 1 known, 0 not-a-count, 0 not-an-id\n$/);
      assert.match(await adopt(), /^\d+ adopted, \d+ known, 3 not-a-count, 1 not-an-id$/m);
      await until(async () => (await total()) === PRODUCTS, "every product is listed", 30_000);
      for (const n of [0, 1, 2_499]) {
        assert.equal((await stock.getStock({ productId: `product-${n}` })).stock?.available, n);
      }
      assert.match(await adopt(), /^0 adopted, 2500 known, 3 not-a-count, 1 not-an-id$/m);
      assert.equal(await client.get("product-7"), "7", "the plain key stays");
    } finally {
      client.disconnect();
      await redis.stop();
    }
  });
});
