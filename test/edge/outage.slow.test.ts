import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { type AppProcess, startAppProcess } from "../support/app.ts";
import { need } from "../support/programs.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";
import { until } from "../support/until.ts";
import { SMALL_SHOP, shopAt } from "../web/shop.ts";
import { ask } from "./clients.ts";
import { EDGES, type Edge, type EdgeKind } from "./edges.ts";

/** How long Redis is unavailable: longer than it takes an edge to take servers out that fail its probes. */
const { OUTAGE_SECONDS = "4" } = process.env;
const OUTAGE_MS = Number(OUTAGE_SECONDS) * 1_000;
const READ_INTERVAL_MS = 100;
const RECOVERY_MS_MAX = 10_000;
const kinds = Object.values(EDGES).filter(({ program }) => program.missing === false);

interface Behind {
  readonly kind: EdgeKind;
  readonly edge: Edge;
}

let reads = 0;

/** A read by GET that no cache has. */
async function readStock(edge: Edge): Promise<{ status: number; stale: boolean; body: string }> {
  const message = encodeURIComponent(`{"productIds":["mug"${" ".repeat(reads++ % 1_000)}]}`);
  const path = `/inventory.v1.StockService/BatchGetStock?connect=v1&encoding=json&message=${message}`;
  const { status, headers, body } = await ask(edge, path);
  return { status, stale: headers["stock-stale"] === "true", body };
}

describe("an outage of Redis behind the edges", {
  skip:
    need("redis-server").missing || need("openssl").missing || (kinds.length === 0 && "no edge is installed"),
}, () => {
  let redis: RedisServer;
  let servers: AppProcess[] = [];
  const edges: Behind[] = [];

  before(async () => {
    redis = await startRedis();
    const environment = { REDIS_URL: redis.url, TRUSTED_PROXIES: "127.0.0.1" };
    servers = await Promise.all([startAppProcess(environment), startAppProcess(environment)]);
    const shop = shopAt(servers[0]?.url ?? "");
    await shop.put(...SMALL_SHOP);
    shop.close();
    for (const { url } of servers) {
      await until(async () => (await fetch(`${url}/readyz`)).ok, "the server is ready");
    }
    const upstreams = servers.map(({ port }) => port);
    for (const kind of kinds) edges.push({ kind, edge: await kind.start({ upstreams }) });
  });
  after(async () => {
    redis?.resume();
    await Promise.all(edges.map(({ edge }) => edge[Symbol.asyncDispose]()));
    await Promise.all(servers.map((server) => server.stop()));
    await redis?.stop();
  });

  const OUTAGES = [
    {
      name: "killed",
      begin: () => redis.kill9(),
      end: () => redis.restart(),
    },
    {
      name: "frozen",
      begin: async () => redis.pause(),
      end: async () => redis.resume(),
    },
  ];
  for (const { name, begin, end } of OUTAGES) {
    it(`reads and the page go on, marked stale, while Redis is ${name}, and are fresh after it`, async (t) => {
      for (const { edge } of edges) {
        await until(async () => (await readStock(edge)).stale === false, "reads are fresh");
      }
      await begin();
      const outageEnd = performance.now() + OUTAGE_MS;
      const failures: string[] = [];
      const watch = async ({ kind, edge }: Behind): Promise<void> => {
        let stale = 0;
        let pages = 0;
        while (performance.now() < outageEnd) {
          const read = await readStock(edge);
          if (read.status !== 200 || !read.body.includes('"available":120')) {
            failures.push(`${kind.name}: read ${read.status} ${read.body}`);
          }
          stale += read.stale ? 1 : 0;
          const page = await ask(edge, "/");
          if (page.status !== 200 || !page.body.includes("Enamel Mug")) {
            failures.push(`${kind.name}: page ${page.status}`);
          }
          pages += page.body.includes("Last known counts") && page.body.includes(" as of ") ? 1 : 0;
          await pause(READ_INTERVAL_MS);
        }
        if (stale === 0 || pages === 0)
          failures.push(`${kind.name}: ${stale} stale reads, ${pages} stale pages`);
      };
      await Promise.all(edges.map(watch));
      await end();
      assert.deepEqual(failures, []);
      const endedAt = performance.now();
      await Promise.all(
        edges.map(async ({ kind, edge }) => {
          await until(
            async () => (await readStock(edge)).stale === false,
            `reads behind ${kind.name} are fresh again`,
            RECOVERY_MS_MAX,
          );
          t.diagnostic(`${kind.name}: fresh ${Math.round(performance.now() - endedAt)} ms after the outage`);
        }),
      );
    });
  }
});
