import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { randomBytes, randomUUID } from "node:crypto";
import { cp, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { promisify } from "node:util";
import { Redis } from "ioredis";
import { Keys } from "../../../server/redis/keys.ts";
import { startTestApp, type TestApp } from "../../support/app.ts";
import { freePort } from "../../support/free-port.ts";
import { need } from "../../support/programs.ts";
import { type Prometheus, startPrometheus } from "../../support/prometheus.ts";
import { type RedisServer, startRedis } from "../../support/redis-server.ts";
import { scrape } from "../../support/scrape.ts";
import { startServerProcess } from "../../support/server-process.ts";
import { startTcpProxy, type TcpProxy } from "../../support/tcp-proxy.ts";
import { until } from "../../support/until.ts";
import { FiredAlerts } from "./coverage.ts";
import { during, post, untilDone } from "./traffic.ts";

const run = promisify(execFile);
const SETTLE_MS_MAX = 60_000;
const skip = need("redis-server").missing || need("prometheus").missing;
const exporter = need("prometheus-redis-exporter");
const nodeExporter = need("prometheus-node-exporter");
const cannotMount =
  nodeExporter.missing || (process.getuid?.() === 0 ? false : "only root can mount a small disk");
const fired = new FiredAlerts("test/deploy/alerts/redis.long.ts");
const keys = new Keys(8);

/** A server, its Redis behind a proxy, and the Prometheus that scrapes both. */
describe("alerts on Redis, orders and stock fire by their faults", { skip }, () => {
  let redis: RedisServer;
  let link: TcpProxy;
  let client: Redis;
  let app: TestApp;
  let environment: NodeJS.ProcessEnv;
  let prometheus: Prometheus;

  before(async () => {
    redis = await startRedis();
    link = await startTcpProxy({ target: { port: redis.port } });
    client = new Redis(redis.url);
    client.on("error", () => {});
    const adminPort = await freePort();
    environment = { REDIS_URL: link.url("redis"), ADMIN_PORT: String(adminPort) };
    app = await startTestApp(environment);
    prometheus = await startPrometheus({ inventory: [{ targets: [`127.0.0.1:${adminPort}`] }] });
    await untilDone(put("p", 1_000));
    assert.equal(await reserve("p", 5), 200);
  });
  after(async () => {
    client?.disconnect();
    await prometheus?.[Symbol.asyncDispose]();
    await app?.stop();
    await link?.close();
    await redis?.stop();
  });

  const call = (path: string, body: object) => post(app.url, path, body);
  const put = (productId: string, declared: number) => () =>
    call("SupplyService/PutProduct", { productId, declared, updateTime: new Date().toISOString() });
  const reserve = (productId: string, quantity: number, ttl = "600s") =>
    call("ReservationService/Reserve", {
      reservationId: randomUUID(),
      lines: [{ productId, quantity }],
      ttl,
    });
  const metric = async (name: string) => (await scrape(app.adminUrl)).value(name);
  const untilReady = () =>
    until(async () => (await metric("inventory_ready")) === 1, "the server is ready", SETTLE_MS_MAX);

  /** Asserts that alerts fire because of a fault, and not before it. */
  async function assertFire(
    alerts: readonly string[],
    fault: { readonly begin: () => Promise<unknown>; readonly end?: () => Promise<unknown> },
    traffic: () => Promise<unknown> = async () => undefined,
    parallel = 1,
  ): Promise<void> {
    await prometheus.untilSilent(...alerts);
    await fault.begin();
    await during(prometheus.untilFiring(...alerts), traffic, { parallel });
    await fault.end?.();
    fired.add(...alerts);
  }

  it("a seller that lowers its number below what is reserved: InventoryShortfall", async () => {
    await assertFire(["InventoryShortfall"], { begin: () => untilDone(put("p", 2)) });
    await untilDone(put("p", 1_000));
  });

  it("Redis killed: the alerts on Redis, on readiness, on the mirror and on the error budget", async () => {
    await assertFire(
      [
        "InventoryRedisUnavailable",
        "InventoryMirrorStale",
        "InventoryNoneReady",
        "InventoryUnready",
        "InventoryErrorBudgetBurnsFast",
        "InventoryErrorBudgetBurnsSlowly",
      ],
      {
        begin: () => redis.kill9(),
        end: async () => {
          await redis.restart();
          await untilReady();
        },
      },
      () => reserve("p", 1),
    );
  });

  it("Redis restarted: InventoryFailover", async () => {
    await assertFire(["InventoryFailover"], {
      begin: async () => {
        await redis.restart();
        await untilReady();
      },
    });
  });

  it("Redis out of memory: InventoryRedisRefuses", async () => {
    await assertFire(
      ["InventoryRedisRefuses"],
      {
        begin: () => client.config("SET", "maxmemory", "1mb"),
        end: () => client.config("SET", "maxmemory", "0"),
      },
      () => reserve("p", 1),
    );
    await untilDone(put("p", 1_000));
  });

  it("a link to Redis with a round trip of 300 ms: InventoryRedisSlow and InventoryOrdersSlow", async () => {
    await assertFire(
      ["InventoryRedisSlow", "InventoryOrdersSlow"],
      { begin: () => link.delay(150), end: () => link.pass() },
      () => reserve("p", 1),
    );
  });

  it("a link to Redis with a round trip of 300 ms, and more reads than it carries: InventoryRedisQueueLong", async () => {
    const productIds = Array.from({ length: 1_000 }, (_, n) => `unknown-${n}`);
    await assertFire(
      ["InventoryRedisQueueLong"],
      { begin: () => link.delay(150), end: () => link.pass() },
      () => call("StockService/BatchGetStock", { productIds }),
      18,
    );
  });

  it("a record that is damaged: InventoryRecordDamaged", async () => {
    await assertFire(["InventoryRecordDamaged"], {
      begin: async () => {
        await client.set(keys.ledger("damaged"), "?");
        assert.notEqual(await call("SupplyService/GetLedger", { productId: "damaged" }), 200);
      },
    });
  });

  it("reservations that are due, and a damaged record that keeps them from expiring: InventoryExpiryStuck", async () => {
    const reserved = 1_100;
    await untilDone(put("stuck", reserved));
    const ledger = keys.ledger("stuck");
    const intact = `${ledger}:intact`;
    await assertFire(["InventoryExpiryStuck"], {
      begin: async () => {
        await untilNoneIsActive();
        for (let n = 0; n < reserved; n += 100) {
          await Promise.all(Array.from({ length: 100 }, () => reserve("stuck", 1, "30s")));
        }
        await client.rename(ledger, intact);
        await client.set(ledger, "?");
      },
      end: async () => {
        await client.rename(intact, ledger);
        await untilNoneIsActive();
      },
    });
  });

  async function untilNoneIsActive(): Promise<void> {
    for (let bucket = 0; bucket < keys.buckets; bucket++) {
      const due = await client.zrange(keys.deadlines(bucket), "0", "-1");
      for (const id of due) {
        await call("ReservationService/ReleaseReservation", { reservationId: id });
      }
    }
    await until(
      async () => (await metric("inventory_reservations_active")) === 0,
      "no reservation is active",
      SETTLE_MS_MAX,
    );
  }

  it("a Redis that comes back with older data: InventorySuspect", async () => {
    const files = join(redis.dir, "appendonlydir");
    await assertFire(["InventorySuspect"], {
      begin: async () => {
        await cp(files, `${files}.old`, { recursive: true });
        await untilDone(put("lost", 6));
        await redis.kill9();
        await rm(files, { recursive: true });
        await cp(`${files}.old`, files, { recursive: true });
        await redis.restart();
        await untilReady();
      },
      end: async () => {
        await app.stop();
        app = await startTestApp(environment);
      },
    });
  });
});

describe("alerts that need a Redis of their own fire by their faults", { skip }, () => {
  it("a Redis that lacks a command: InventoryFaults", async () => {
    await using redis = await startRedis({ args: ["--rename-command", "ZRANGEBYSCORE", ""] });
    const adminPort = await freePort();
    await using app = await startTestApp({ REDIS_URL: redis.url, ADMIN_PORT: String(adminPort) });
    await using prometheus = await startPrometheus({
      inventory: [{ targets: [`127.0.0.1:${adminPort}`] }],
    });
    await untilDone(() => post(app.url, "StockService/ListStock", {}));
    await prometheus.untilSilent("InventoryFaults");
    const list = () => post(app.url, "ReservationService/ListReservations", {});
    assert.equal(await list(), 500);
    await during(prometheus.untilFiring("InventoryFaults"), list);
    assert.deepEqual(
      (await prometheus.labelsOf("InventoryFaults")).map(({ grpc_method }) => grpc_method),
      ["ListReservations"],
    );
    fired.add("InventoryFaults");
  });

  it("a Redis that fills its memory: InventoryRedisMemoryFull", { skip: exporter.missing }, async () => {
    await using redis = await startRedis({ args: ["--maxmemory", "100mb"] });
    await using exporting = await startExporter(exporter.path, (port) => [
      `--redis.addr=${redis.url}`,
      `--web.listen-address=127.0.0.1:${port}`,
    ]);
    await using prometheus = await startPrometheus({ redis: [{ targets: [exporting.target] }] });
    await prometheus.untilSilent("InventoryRedisMemoryFull");
    using client = disconnecting(new Redis(redis.url));
    await fill(client.redis, 85);
    await prometheus.untilFiring("InventoryRedisMemoryFull");
    fired.add("InventoryRedisMemoryFull");
  });

  it("a disk that Redis has filled: InventoryRedisDiskFull", { skip: cannotMount }, async () => {
    await using disk = await mountDisk();
    await using exporting = await startExporter(nodeExporter.path, (port) => [
      "--collector.disable-defaults",
      "--collector.filesystem",
      `--web.listen-address=127.0.0.1:${port}`,
    ]);
    await using prometheus = await startPrometheus({ node: [{ targets: [exporting.target] }] });
    const full = async () =>
      (await prometheus.labelsOf("InventoryRedisDiskFull")).some(
        ({ mountpoint }) => mountpoint === disk.path,
      );
    await using redis = await startRedis({
      dir: join(disk.path, "redis"),
      args: ["--auto-aof-rewrite-percentage", "0"],
    });
    using client = disconnecting(new Redis(redis.url));
    assert.equal(await full(), false);
    await fill(client.redis, 75);
    await until(full, "the alert names the disk", SETTLE_MS_MAX);
    fired.add("InventoryRedisDiskFull");
  });

  it("every alert that is listed for this file has fired", () => {
    fired.assertComplete([
      ...(exporter.missing ? ["InventoryRedisMemoryFull"] : []),
      ...(cannotMount ? ["InventoryRedisDiskFull"] : []),
    ]);
  });
});

async function fill(redis: Redis, megabytes: number): Promise<void> {
  for (let n = 0; n < megabytes; n++) {
    await redis.set(`ballast-${n}`, randomBytes(1_000_000));
  }
}

async function startExporter(
  command: string,
  argsFor: (port: number) => string[],
): Promise<AsyncDisposable & { readonly target: string }> {
  const [dir, port] = [await mkdtemp(join(tmpdir(), "inventory-exporter-")), await freePort()];
  const logFile = join(dir, "exporter.log");
  const process = await startServerProcess({ command, args: argsFor(port), logFile, removeOnCrash: dir });
  return {
    target: `127.0.0.1:${port}`,
    [Symbol.asyncDispose]: async () => {
      await process.end();
      await rm(dir, { recursive: true, force: true });
    },
  };
}

function disconnecting(redis: Redis): Disposable & { readonly redis: Redis } {
  redis.on("error", () => {});
  return { redis, [Symbol.dispose]: () => redis.disconnect() };
}

/** A disk of 100 MB with the folder `redis`. */
async function mountDisk(): Promise<AsyncDisposable & { readonly path: string }> {
  const dir = await mkdtemp(join(tmpdir(), "inventory-disk-"));
  const [image, path] = [join(dir, "image"), join(dir, "disk")];
  await writeFile(image, "");
  await mkdir(path);
  await run("truncate", ["--size", "100M", image]);
  await run("mkfs.ext4", ["-q", image]);
  await run("mount", ["-o", "loop", image, path]);
  await mkdir(join(path, "redis"));
  return {
    path,
    [Symbol.asyncDispose]: async () => {
      await run("umount", [path]);
      await rm(dir, { recursive: true, force: true });
    },
  };
}
