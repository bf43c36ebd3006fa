import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, describe, it } from "node:test";
import { setTimeout as wait } from "node:timers/promises";
import { Redis } from "ioredis";
import { Keys } from "../../server/redis/keys.ts";
import { firingAlerts, movingPhase, type Phase, steadyPhase } from "../support/alert-rules.ts";
import { startTestApp, type TestApp } from "../support/app.ts";
import { need } from "../support/programs.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";
import { scrape } from "../support/scrape.ts";
import { until } from "../support/until.ts";

const SETTLE_MS_MAX = 30_000;
const skip = need("redis-server").missing || need("promtool").missing;

/** The alerts on events are in `test/kafka/monitoring.long.ts`. */
describe("alerts fire by the faults that they are for", { skip }, () => {
  let redis: RedisServer;
  let client: Redis;
  let app: TestApp;
  let healthy: Phase;

  before(async () => {
    redis = await startRedis();
    client = new Redis(redis.url);
    client.on("error", () => {});
    app = await startTestApp({ REDIS_URL: redis.url, ADMIN_PORT: "0" });
    await untilDone(put("p", 5));
    assert.equal(await reserve("p", 5), 200);
    healthy = await steadyPhase(app.adminUrl, 70);
  });
  after(async () => {
    client?.disconnect();
    await app?.stop();
    await redis?.stop();
  });

  async function call(path: string, body: object): Promise<number> {
    const response = await fetch(`${app.url}/inventory.v1.${path}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
    await response.arrayBuffer();
    return response.status;
  }
  const put = (productId: string, declared: number) => () =>
    call("SupplyService/PutProduct", { productId, declared, updateTime: new Date().toISOString() });
  const reserve = (productId: string, quantity: number) =>
    call("ReservationService/Reserve", {
      reservationId: randomUUID(),
      lines: [{ productId, quantity }],
    });
  const untilDone = (action: () => Promise<number>) =>
    until(
      async () => {
        const status = await action();
        assert.equal(status, 200);
        return true;
      },
      "the call succeeds",
      SETTLE_MS_MAX,
    );

  /** Asserts that an alert fires after the phases, and did not before. */
  async function assertFires(group: string, alerts: readonly string[], ...phases: Phase[]): Promise<void> {
    const before = await firingAlerts(group, [healthy]);
    const found = await firingAlerts(group, [healthy, ...phases]);
    for (const alert of alerts) {
      assert.ok(!before.includes(alert), `${alert} fires before the fault`);
      assert.ok(found.includes(alert), `${alert} does not fire; ${found.join(", ") || "none"} does`);
    }
  }

  /** The fault goes on for a quarter of an hour, while `traffic` is called. */
  const fault = (traffic: () => Promise<unknown>): Promise<Phase> =>
    movingPhase(app.adminUrl, 15, async () => {
      for (let n = 0; n < 20; n++) {
        await traffic();
        await wait(100);
      }
    });

  it("a seller that lowers its number below what is reserved: InventoryShortfall", async () => {
    const first = (await scrape(app.adminUrl)).value("inventory_shortfall_changes_total") ?? 0;
    await untilDone(put("p", 2));
    await until(
      async () => ((await scrape(app.adminUrl)).value("inventory_shortfall_changes_total") ?? 0) > first,
      "the change is counted",
    );
    await assertFires("inventory-stock", ["InventoryShortfall"], await steadyPhase(app.adminUrl, 10));
    await untilDone(put("p", 5));
    healthy = await steadyPhase(app.adminUrl, 70);
  });

  it("Redis killed: the alerts on Redis, on readiness, on the mirror and on the error budget", async () => {
    await redis.kill9();
    await until(async () => (await reserve("p", 1)) === 503, "calls are UNAVAILABLE", SETTLE_MS_MAX);
    await until(
      async () => (await scrape(app.adminUrl)).value("inventory_ready") === 0,
      "the server is not ready",
      SETTLE_MS_MAX,
    );
    await until(
      async () => ((await scrape(app.adminUrl)).value("inventory_mirror_stale_seconds") ?? 0) > 0,
      "reads are stale",
      SETTLE_MS_MAX,
    );
    const outage = await fault(() => reserve("p", 1));
    await assertFires("inventory-redis", ["InventoryRedisUnavailable", "InventoryMirrorStale"], outage);
    await assertFires("inventory-servers", ["InventoryNoneReady", "InventoryUnready"], outage);
    const budget = ["InventoryErrorBudgetBurnsFast", "InventoryErrorBudgetBurnsSlowly"];
    await assertFires("inventory-objective", budget, { ...outage, minutes: 60 });
  });

  it("Redis restarted: InventoryFailover", async () => {
    await redis.restart();
    await untilDone(put("p", 5));
    await until(
      async () => (await scrape(app.adminUrl)).value("inventory_ready") === 1,
      "the server is ready",
      SETTLE_MS_MAX,
    );
    await assertFires("inventory-redis", ["InventoryFailover"], await steadyPhase(app.adminUrl, 5));
    healthy = await steadyPhase(app.adminUrl, 70);
  });

  it("Redis out of memory: InventoryRedisRefuses", async () => {
    await client.config("SET", "maxmemory", "1mb");
    await until(async () => (await reserve("p", 1)) !== 200, "Redis refuses changes", SETTLE_MS_MAX);
    const refusing = await fault(() => reserve("p", 1));
    await client.config("SET", "maxmemory", "0");
    await assertFires("inventory-redis", ["InventoryRedisRefuses"], refusing);
    await untilDone(put("p", 5));
    healthy = await steadyPhase(app.adminUrl, 70);
  });

  it("a record that is damaged: InventoryRecordDamaged", async () => {
    await client.set(new Keys(8).ledger("damaged"), "?");
    const status = await call("SupplyService/GetLedger", { productId: "damaged" });
    assert.notEqual(status, 200);
    await assertFires("inventory-redis", ["InventoryRecordDamaged"], await steadyPhase(app.adminUrl, 5));
  });
});
