import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { SupplyService } from "../../gen/inventory/v1/supply_pb.ts";
import { startTestApp, type TestApp } from "../support/app.ts";
import { freePort } from "../support/free-port.ts";
import { need } from "../support/programs.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";
import { scrape } from "../support/scrape.ts";
import { until } from "../support/until.ts";

/** Far above the time in which a response comes that does not wait for Redis. */
const PROBE_MS_MAX = 5_000;
const PATHS = ["/readyz", "/readyz/reads", "/readyz/writes"] as const;

interface Report {
  readonly ready: boolean;
  readonly reasons: readonly string[];
  readonly reads?: Omit<Report, "reads" | "writes">;
  readonly writes?: Omit<Report, "reads" | "writes">;
}

async function probe(url: string): Promise<{ status: number; report: Report }> {
  const response = await fetch(url, { signal: AbortSignal.timeout(PROBE_MS_MAX) });
  assert.equal(response.headers.get("content-type"), "application/json");
  return { status: response.status, report: (await response.json()) as Report };
}

/** The status of each path, on the port that serves them and on the admin port. */
async function statuses(app: TestApp): Promise<readonly (readonly number[])[]> {
  return await Promise.all(
    [app.url, app.adminUrl].map((origin) =>
      Promise.all(PATHS.map(async (path) => (await probe(`${origin}${path}`)).status)),
    ),
  );
}

const both = (...expected: readonly [number, number, number]) => [expected, expected];
const untilStatuses = (app: TestApp, expected: readonly [number, number, number], what: string) =>
  until(async () => JSON.stringify(await statuses(app)) === JSON.stringify(both(...expected)), what);

describe("readiness", () => {
  it("is given for reads and writes with the embedded store, and ends with both when the server drains", async () => {
    await using app = await startTestApp({ ADMIN_PORT: "0", DRAIN_WAIT_MS: "2000" });
    assert.deepEqual(await statuses(app), both(200, 200, 200));
    for (const path of PATHS) {
      const head = await fetch(`${app.url}${path}`, { method: "HEAD" });
      assert.equal(head.status, 200);
      assert.equal(head.headers.get("cache-control"), "no-store");
      assert.equal((await fetch(`${app.url}${path}`, { method: "POST" })).status, 405);
    }
    assert.equal((await fetch(`${app.url}/readyz/nothing`)).status, 404);
    const stopped = app.stop();
    assert.deepEqual(await statuses(app), both(503, 503, 503));
    await stopped;
  });
});

describe("readiness with Redis", { skip: need("redis-server").missing }, () => {
  let redis: RedisServer;
  let app: TestApp;
  before(async () => {
    redis = await startRedis();
    app = await startTestApp({ REDIS_URL: redis.url, ADMIN_PORT: "0" });
    await untilStatuses(app, [200, 200, 200], "the server is ready");
    const supply = createClient(SupplyService, createGrpcTransport({ baseUrl: app.url }));
    await supply.putProduct({ productId: "kettle", declared: 3 });
  });
  after(async () => {
    await app?.stop();
    await redis?.stop();
  });

  const readKettle = () =>
    fetch(`${app.url}/inventory.v1.StockService/GetStock`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: '{"productId":"kettle"}',
    });

  const faults: Readonly<Record<string, { begin: () => unknown; end: () => unknown }>> = {
    killed: { begin: () => redis.kill9(), end: () => redis.restart() },
    frozen: { begin: () => redis.pause(), end: () => redis.resume() },
  };
  for (const [fault, { begin, end }] of Object.entries(faults)) {
    it(`stays for reads and ends for writes while Redis is ${fault}`, async () => {
      await until(async () => (await readKettle()).ok, "the product can be read");
      await begin();
      try {
        await untilStatuses(app, [503, 200, 503], "writes are not ready");
        const { report } = await probe(`${app.url}/readyz`);
        assert.deepEqual(report.reads, { ready: true, reasons: [] });
        assert.equal(report.writes?.ready, false);
        assert.match(report.writes?.reasons.join() ?? "", /Redis/);
        assert.deepEqual(report.reasons, report.writes?.reasons);
        assert.equal((await readKettle()).status, 200);
        const metrics = await scrape(app.adminUrl);
        assert.equal(metrics.value("inventory_ready"), 0);
        assert.equal(metrics.value("inventory_ready_for", { purpose: "reads" }), 1);
        assert.equal(metrics.value("inventory_ready_for", { purpose: "writes" }), 0);
      } finally {
        await end();
      }
      await untilStatuses(app, [200, 200, 200], "writes are ready again");
    });
  }

  it("is missing for reads and writes at a start without Redis", async () => {
    await using unavailable = await startTestApp({
      REDIS_URL: `redis://127.0.0.1:${await freePort()}`,
      ADMIN_PORT: "0",
    });
    assert.deepEqual(await statuses(unavailable), both(503, 503, 503));
    const { report } = await probe(`${unavailable.url}/readyz/reads`);
    assert.match(report.reasons.join(), /catalog/);
  });
});
