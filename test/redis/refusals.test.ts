import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { networkInterfaces, tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { Redis } from "ioredis";
import { pino } from "pino";
import { Registry } from "prom-client";
import { InventoryError } from "../../server/inventory/errors.ts";
import { RedisMetrics } from "../../server/redis/metrics.ts";
import { RedisStore } from "../../server/redis/store.ts";
import { startAppProcess, startTestApp } from "../support/app.ts";
import { freePort } from "../support/free-port.ts";
import { need } from "../support/programs.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";
import { scrape } from "../support/scrape.ts";
import { until } from "../support/until.ts";

const skip = need("redis-server").missing;
const PRODUCT = { productId: "p", details: undefined, declared: 10, updateTimeMicros: 1 };

/** A store whose log and metrics a test reads, and an operator's connection to its Redis. */
class Fixture implements AsyncDisposable {
  readonly redis: RedisServer;
  readonly operator: Redis;
  readonly registry = new Registry();
  readonly logged: string[] = [];
  readonly store: RedisStore;

  private constructor(redis: RedisServer) {
    this.redis = redis;
    this.operator = new Redis(redis.url, { retryStrategy: () => 100 });
    this.operator.on("error", () => undefined);
    this.store = new RedisStore({
      endpoint: { url: `redis://writer:secret@127.0.0.1:${redis.port}` },
      log: pino({}, { write: (line) => void this.logged.push(line) }),
      instruments: { metrics: new RedisMetrics(this.registry) },
    });
  }

  static async open(): Promise<Fixture> {
    const unlocked = ["--enable-protected-configs", "yes", "--enable-debug-command", "yes"];
    const redis = await startRedis({ appendonly: "no", args: unlocked });
    const operator = new Redis(redis.url);
    await operator.call("ACL", "SETUSER", "writer", "on", ">secret", "allkeys", "allchannels", "+@all");
    operator.disconnect();
    const fixture = new Fixture(redis);
    await fixture.store.start(5_000);
    await fixture.store.putProduct(PRODUCT);
    return fixture;
  }

  adjust(adjustmentId: string) {
    return this.store.adjustStock({ productId: "p", delta: 1, adjustmentId, reason: "" });
  }

  becomesReady() {
    return until(async () => (await this.store.unreadyReason()) === undefined, "the store is ready");
  }

  /** The number of error replies of a kind. */
  async replies(reply: string): Promise<number> {
    const metric = this.registry.getSingleMetric("inventory_redis_error_replies_total");
    const { values = [] } = (await metric?.get()) ?? {};
    return values.find(({ labels }) => labels["reply"] === reply)?.value ?? 0;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.store.close();
    this.operator.disconnect();
    await this.redis.stop();
  }
}

/** Makes Redis refuse writes, and resolves with what undoes it. */
interface Refusal {
  readonly kind: string;
  /** What Redis says. */
  readonly sentence: RegExp;
  readonly inject: (fixture: Fixture) => Promise<() => Promise<unknown>>;
}

const REFUSALS: readonly Refusal[] = [
  {
    kind: "OOM",
    sentence: /OOM .*maxmemory/,
    inject: async ({ operator }) => {
      await operator.config("SET", "maxmemory", "1mb");
      return () => operator.config("SET", "maxmemory", "0");
    },
  },
  {
    kind: "MISCONF",
    sentence: /MISCONF .*RDB/,
    inject: async ({ operator, redis }) => {
      const dir = await mkdtemp(join(tmpdir(), "inventory-misconf-"));
      await operator.config("SET", "dir", dir);
      await operator.config("SET", "save", "3600 1");
      await rm(dir, { recursive: true });
      await operator.bgsave();
      await until(
        async () => /rdb_last_bgsave_status:err/.test(await operator.info("persistence")),
        "the snapshot fails",
      );
      return async () => {
        await operator.config("SET", "dir", redis.dir);
        await operator.config("SET", "save", "");
      };
    },
  },
  {
    kind: "NOREPLICAS",
    sentence: /NOREPLICAS Not enough good replicas/,
    inject: async ({ operator }) => {
      await operator.config("SET", "min-replicas-to-write", "1");
      return () => operator.config("SET", "min-replicas-to-write", "0");
    },
  },
  {
    kind: "NOPERM",
    sentence: /NOPERM .*permission.*HSET/,
    inject: async ({ operator }) => {
      await operator.call("ACL", "SETUSER", "writer", "-hset");
      return () => operator.call("ACL", "SETUSER", "writer", "+hset");
    },
  },
  {
    kind: "NOPERM",
    sentence: /NOPERM .*evalsha/,
    inject: async ({ operator }) => {
      await operator.call("ACL", "SETUSER", "writer", "-evalsha");
      return () => operator.call("ACL", "SETUSER", "writer", "+evalsha");
    },
  },
  {
    kind: "READONLY",
    sentence: /READONLY|This Redis is a replica/,
    inject: async ({ operator, redis }) => {
      await operator.replicaof("127.0.0.1", redis.port);
      return () => operator.replicaof("NO", "ONE");
    },
  },
  {
    kind: "BUSY",
    sentence: /BUSY Redis is busy running a script/,
    inject: async ({ operator, redis }) => {
      await operator.config("SET", "busy-reply-threshold", "50");
      const running = operator.eval("while true do end", 0).catch(() => undefined);
      const killer = new Redis(redis.url, { enableReadyCheck: false });
      await until(
        () =>
          killer.get("x").then(
            () => false,
            ({ message }: Error) => message.startsWith("BUSY"),
          ),
        "Redis is busy",
      );
      return async () => {
        await killer.script("KILL");
        await running;
        killer.disconnect();
      };
    },
  },
  {
    kind: "WRONGPASS",
    sentence: /WRONGPASS/,
    inject: async ({ operator }) => {
      await operator.call("ACL", "SETUSER", "writer", "resetpass", ">other");
      await operator.call("CLIENT", "KILL", "USER", "writer");
      return () => operator.call("ACL", "SETUSER", "writer", ">secret");
    },
  },
  {
    kind: "MAXCLIENTS",
    sentence: /max number of clients reached/,
    inject: async ({ operator }) => {
      const maxClients = (await operator.config("GET", "maxclients")) as unknown as string[];
      await operator.config("SET", "maxclients", "1");
      await operator.call("CLIENT", "KILL", "USER", "writer");
      return () => operator.config("SET", "maxclients", maxClients[1] ?? "10000");
    },
  },
];

/** Each connection logs a refusal when it begins, and then every ten seconds. */
function assertLoggedOncePerConnection(output: readonly string[], kind: string, message: RegExp): void {
  const lines = output
    .map((line) => JSON.parse(line) as { time: string; connection?: string; refusal?: string; msg: string })
    .filter(({ refusal }) => refusal === kind);
  assert.match(lines[0]?.msg ?? "", message);
  for (const [connection, ofConnection] of Map.groupBy(lines, (line) => line.connection)) {
    const times = ofConnection.map(({ time }) => new Date(time).getTime());
    const gaps = times.slice(1).map((time, index) => time - (times[index] ?? 0));
    assert.ok(
      gaps.every((ms) => ms >= 9_900),
      `${connection} logs it at most every ten seconds; the gaps are ${gaps} ms`,
    );
  }
}

describe("RedisStore: a refusal of Redis", { skip }, () => {
  for (const { kind, sentence, inject } of REFUSALS) {
    it(`${kind} (${sentence.source}) makes writes unready, is logged once, counted, and reported by its kind`, async () => {
      await using fixture = await Fixture.open();
      const { store, logged } = fixture;
      assert.equal(await store.unreadyReason(), undefined);
      const undo = await inject(fixture);

      const reason = await until(async () => {
        const found = await store.unreadyReason();
        return found !== undefined && sentence.test(found) && found;
      }, "the reason says what Redis said");
      assert.match(reason, /^Redis (refuses writes|is unavailable): /);
      for (let n = 0; n < 10; n++) {
        await assert.rejects(fixture.adjust(`refused-${n}`), (error: unknown) => {
          assert.ok(error instanceof InventoryError, String(error));
          assert.equal(error.code, "STORE_UNAVAILABLE");
          if (kind !== "READONLY") {
            assert.match(error.message, new RegExp(`\\(${kind}\\)`));
          }
          return true;
        });
      }
      await undo();
      await fixture.becomesReady();

      assert.ok((await fixture.replies(kind)) > 0, "the metric counts it");
      assertLoggedOncePerConnection(logged, kind, /Redis refuses commands: /);
      assert.equal((await fixture.adjust("refused-0")).adjusted, 1, "a retry is applied once");
    });
  }

  it("LOADING is the reason while Redis loads its data", async () => {
    await using fixture = await Fixture.open();
    const { operator, store, redis } = fixture;
    for (let n = 0; n < 500; n++) await operator.set(`filler-${n}`, "x".repeat(1_000));
    await operator.config("SET", "key-load-delay", "10000");
    await operator.config("SET", "loading-process-events-interval-bytes", "1024");
    await operator.config("SET", "save", "3600 1");
    await operator.save();
    // DEBUG RELOAD loads the snapshot in the running process, which serves INFO meanwhile.
    const reloaded = operator.call("DEBUG", "RELOAD", "NOSAVE").catch((error: Error) => error);
    await until(async () => /LOADING/.test((await store.unreadyReason()) ?? ""), "the reason is LOADING");
    await assert.rejects(fixture.adjust("loading"), /\(LOADING\)/);
    const settings = new Redis(redis.url, { enableReadyCheck: false });
    await until(
      () => settings.config("SET", "key-load-delay", "0").then(() => true),
      "the delay is removed",
      30_000,
    );
    settings.disconnect();
    await reloaded;
    await fixture.becomesReady();
  });

  it("NOSCRIPT after SCRIPT FLUSH is no refusal: the script is sent again", async () => {
    await using fixture = await Fixture.open();
    for (let n = 0; n < 5; n++) {
      await fixture.operator.script("FLUSH");
      const [ledger, stock] = await Promise.all([fixture.adjust(`a${n}`), fixture.store.getStock("p")]);
      assert.equal(ledger.adjusted, n + 1);
      assert.ok(stock.available >= 10 + n);
    }
    assert.equal(await fixture.store.unreadyReason(), undefined);
    assert.ok((await fixture.replies("NOSCRIPT")) > 0);
  });
});

/** An address of this machine from which Redis in protected mode refuses clients. */
const externalAddress = Object.values(networkInterfaces())
  .flat()
  .find((address) => address?.family === "IPv4" && !address.internal)?.address;

describe("A server whose Redis refuses", { skip }, () => {
  it("reports refused writes in /readyz, /metrics and the log, and responds with UNAVAILABLE", async () => {
    await using redis = await startRedis();
    await using app = await startTestApp({ REDIS_URL: redis.url, ADMIN_PORT: "0" });
    const operator = new Redis(redis.url);
    try {
      const readyz = async () => {
        const response = await fetch(`${app.url}/readyz`);
        return { status: response.status, body: await response.text() };
      };
      await until(async () => (await readyz()).status === 200, "the server is ready");
      await operator.config("SET", "maxmemory", "1mb");
      await until(async () => /Redis refuses writes: OOM/.test((await readyz()).body), "/readyz says why");
      const metrics = await scrape(app.adminUrl);
      assert.ok((metrics.value("inventory_redis_error_replies_total", { reply: "OOM" }) ?? 0) > 0);
      await operator.config("SET", "maxmemory", "0");
      await until(async () => (await readyz()).status === 200, "the server is ready again");
    } finally {
      operator.disconnect();
    }
  });

  it("reports the text of refused connections in protected mode, and writes only JSON to its log", {
    skip: externalAddress === undefined && "this machine has no address besides loopback",
  }, async () => {
    const port = await freePort();
    await using _redis = await startRedis({ port, args: ["--bind", "0.0.0.0", "--protected-mode", "yes"] });
    await using app = await startAppProcess({ REDIS_URL: `redis://${externalAddress}:${port}` });
    await until(async () => {
      const body = await (await fetch(`${app.url}/readyz`)).text();
      return /DENIED Redis is running in protected mode/.test(body);
    }, "/readyz says what Redis says");
    const output = (await app.output()).trim().split("\n");
    const isJson = (line: string): boolean => line.startsWith("{") && JSON.parse(line) !== null;
    assert.deepEqual(
      output.filter((line) => !isJson(line)),
      [],
    );
    assertLoggedOncePerConnection(output, "DENIED", /DENIED Redis is running in protected mode/);
  });
});
