import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-web";
import { StockService } from "../../gen/inventory/v1/stock_pb.ts";
import { type AppProcess, startAppProcess } from "../support/app.ts";
import { need } from "../support/programs.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";
import { until } from "../support/until.ts";
import { SMALL_SHOP, shopAt } from "../web/shop.ts";
import { trust } from "./clients.ts";
import { EDGES } from "./edges.ts";

const READERS = 4;
/** Reads of each reader, before the kill and again after it. */
const READS = 25;

describe("two servers behind an edge", {
  skip: need("redis-server").missing || need("openssl").missing,
}, () => {
  let redis: RedisServer;
  let servers: AppProcess[] = [];

  before(async () => {
    redis = await startRedis();
    const environment = { REDIS_URL: redis.url, TRUSTED_PROXIES: "127.0.0.1" };
    servers = await Promise.all([startAppProcess(environment), startAppProcess(environment)]);
    const shop = shopAt(servers[0]?.url ?? "");
    await shop.put(...SMALL_SHOP);
    shop.close();
  });
  after(async () => {
    await Promise.all(servers.map((server) => server.stop()));
    await redis?.stop();
  });

  for (const kind of Object.values(EDGES)) {
    it(`lose no read by GET when one is killed, behind ${kind.name}`, {
      skip: kind.program.missing,
    }, async () => {
      const [first, second] = servers;
      assert.ok(first && second);
      for (const { url } of servers) {
        await until(async () => (await fetch(`${url}/readyz`)).ok, "the server is ready");
      }
      await using edge = await kind.start({ upstreams: [first.port, second.port] });
      trust(edge);
      const client = createClient(
        StockService,
        createConnectTransport({ baseUrl: edge.url, useHttpGet: true }),
      );
      let asked = 0;
      const read = async (): Promise<string[]> => {
        const failed: string[] = [];
        const readers = Array.from({ length: READERS }, async () => {
          for (let n = 0; n < READS; n++) {
            // A URL that no cache has.
            const productIds = ["mug", `none-${asked++}`];
            await client.batchGetStock({ productIds }).catch((error) => failed.push(String(error)));
          }
        });
        await Promise.all(readers);
        return failed;
      };
      assert.deepEqual(await read(), []);
      // Not during a response: only its caller can repeat a read whose response breaks off.
      await second.kill9();
      assert.deepEqual(await read(), []);
      await second.restart();
    });
  }
});
