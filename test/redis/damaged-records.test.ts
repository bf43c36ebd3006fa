import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, describe, it } from "node:test";
import { Redis } from "ioredis";
import { pino } from "pino";
import { Mirror } from "../../server/live/mirror.ts";
import { DamagedRecords } from "../../server/redis/damaged-records.ts";
import { RedisFeed } from "../../server/redis/feed/feed.ts";
import { BUCKETS_DEFAULT, Keys } from "../../server/redis/keys.ts";
import { RedisOutbox } from "../../server/redis/outbox.ts";
import { RedisStore } from "../../server/redis/store.ts";
import { startTestApp } from "../support/app.ts";
import { need } from "../support/programs.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";
import { scrape } from "../support/scrape.ts";
import { until } from "../support/until.ts";

const skip = need("redis-server").missing;
const log = pino({ level: "silent" });
const keys = new Keys(BUCKETS_DEFAULT);
const TTL_MS = 600_000;
const LIST_ALL = { limit: 1_000, after: undefined, expireBeforeMs: undefined };
const isDamaged = { code: "RECORD_DAMAGED" };

type Damage = (client: Redis, key: string) => Promise<unknown>;

/** Replaces a string by another one. */
const replace =
  (change: (text: string) => string): Damage =>
  async (client, key) =>
    client.set(key, change((await client.get(key)) ?? ""));

const changeJson = (change: (record: Record<string, unknown>) => unknown): Damage =>
  replace((text) => JSON.stringify(change(JSON.parse(text))));

const foreignType: Damage = async (client, key) => {
  await client.del(key);
  await client.lpush(key, "foreign");
};

const RESERVATION_DAMAGES: Readonly<Record<string, Damage>> = {
  "an empty text": replace(() => ""),
  "a text that is not JSON": replace((text) => text.slice(0, -5)),
  "a number": replace(() => "7"),
  null: replace(() => "null"),
  "an unknown state": changeJson((record) => ({ ...record, state: "lost" })),
  "no lines": changeJson(({ lines: _, ...record }) => record),
  "lines that are not a list": changeJson((record) => ({ ...record, lines: { a: 1 } })),
  "a line without a quantity": changeJson((record) => ({ ...record, lines: [["a", 1]] })),
  "a negative quantity": changeJson((record) => ({ ...record, lines: [["a", 1, -1]] })),
  "a fraction of a unit": changeJson((record) => ({ ...record, lines: [["a", 1, 0.5]] })),
  "a product twice": changeJson(({ lines, ...record }) => ({
    ...record,
    lines: [...(lines as unknown[]), ...(lines as unknown[])],
  })),
  "no deadline": changeJson(({ expires: _, ...record }) => record),
  "an absurd deadline": changeJson((record) => ({ ...record, expires: 9e15 })),
  "a foreign type": foreignType,
};

const LEDGER_DAMAGES: Readonly<Record<string, Damage>> = {
  "a field that is no number": (client, key) => client.hset(key, "A", "many"),
  "a fraction": (client, key) => client.hset(key, "D", "1.5"),
  "a number beyond 2^53": (client, key) => client.hset(key, "S", "1e300"),
  "an empty field": (client, key) => client.hset(key, "H", ""),
  "a missing field": (client, key) => client.hdel(key, "F"),
  "no version": (client, key) => client.hdel(key, "V"),
  "a foreign type": foreignType,
};

describe("A damaged record", { skip }, () => {
  let redis: RedisServer;
  let client: Redis;
  let store: RedisStore;
  let damagedRecords: DamagedRecords;
  const logged: string[] = [];

  before(async () => {
    redis = await startRedis({ appendonly: "no" });
    client = new Redis(redis.url);
    damagedRecords = new DamagedRecords(pino({}, { write: (line) => void logged.push(line) }));
    store = new RedisStore({ endpoint: { url: redis.url }, log, keys, damagedRecords });
    await store.start(5_000);
  });
  after(async () => {
    await store?.close();
    client?.disconnect();
    await redis?.stop();
  });

  const assertReported = (key: string): void =>
    assert.ok(
      logged.some((line) => line.includes(JSON.stringify(key))),
      `${key} is reported`,
    );

  const put = (productId: string, details?: string) =>
    store.putProduct({
      productId,
      declared: 100,
      details:
        details === undefined ? undefined : { name: details, description: "", price: 1, collectionId: "" },
      updateTimeMicros: 1,
    });

  async function newProduct(details?: string): Promise<string> {
    const productId = `p-${randomUUID()}`;
    await put(productId, details);
    return productId;
  }

  async function reserve(productId: string, ttlMs: number): Promise<string> {
    const reservationId = `r-${randomUUID()}`;
    await store.reservations.reserve({ reservationId, lines: [{ productId, quantity: 1 }], ttlMs });
    return reservationId;
  }

  const stateOf = async (id: string) => (await store.reservations.get(id)).state;

  const expires = (id: string) =>
    until(async () => {
      await store.reservations.expireDue(64);
      return (await stateOf(id)) === "expired";
    }, `${id} expires`);

  describe("of a reservation", () => {
    for (const [name, damage] of Object.entries(RESERVATION_DAMAGES)) {
      it(`with ${name} blocks only the operations that need it`, async () => {
        const product = await newProduct();
        const [damaged, other, active] = [
          await reserve(product, 0),
          await reserve(product, 0),
          await reserve(product, TTL_MS),
        ];
        const key = keys.reservation(damaged);
        await client.copy(key, `copy-${damaged}`);
        await damage(client, key);

        await expires(other);
        assertReported(key);
        const [released, ...refused] = await Promise.allSettled([
          store.reservations.release(active),
          store.reservations.get(damaged),
          store.reservations.release(damaged),
          store.reservations.extend(damaged, TTL_MS),
          store.reservations.commit({ reservationId: damaged, lines: undefined, strict: false }),
        ]);
        assert.equal(released.status, "fulfilled", "an operation of the same batch");
        const isAbsurd = name === "an absurd deadline";
        for (const result of isAbsurd ? [] : refused) {
          assert.equal(result.status === "rejected" && result.reason.code, "RECORD_DAMAGED");
        }
        if (!isAbsurd) {
          const { reserved } = await store.getLedger(product);
          assert.equal(reserved, 1, "its units remain reserved");
          await client.rename(`copy-${damaged}`, key);
          await expires(damaged);
          assert.equal((await store.getLedger(product)).reserved, 0);
        }
      });
    }

    it("is left out of a listing that has the others", async () => {
      const product = await newProduct();
      const ids = [
        await reserve(product, TTL_MS),
        await reserve(product, TTL_MS + 1),
        await reserve(product, TTL_MS + 2),
      ];
      const [first = "", damaged = "", last = ""] = ids;
      const key = keys.reservation(damaged);
      for (const damage of [replace(() => "{"), foreignType]) {
        await damage(client, key);
        const listed = (await store.reservations.list(LIST_ALL)).map(({ reservationId }) => reservationId);
        assert.deepEqual(
          listed.filter((id) => ids.includes(id)),
          [first, last],
        );
        assertReported(key);
      }
    });

    it("does not delay others that are due, however many there are", async () => {
      const product = await newProduct();
      const damaged: string[] = [];
      for (let n = 0; n < 80; n++) {
        damaged.push(await reserve(product, 0));
      }
      for (const id of damaged) {
        await client.set(keys.reservation(id), "{");
      }
      await expires(await reserve(product, 1));
      await client.del(...damaged.map((id) => keys.reservation(id)));
    });
  });

  describe("of a deadline", () => {
    it("without a reservation is removed", async () => {
      const key = keys.deadlines(3);
      await client.zadd(key, 1, "nobody");
      await until(async () => {
        await store.reservations.expireDue(64);
        return (await client.zscore(key, "nobody")) === null;
      }, "it is removed");
      assertReported(`${key} nobody`);
    });

    for (const score of ["-inf", "+inf", "1", "9e15"]) {
      it(`with the score ${score} is corrected from the record`, async () => {
        const product = await newProduct();
        const id = await reserve(product, TTL_MS);
        const key = keys.deadlines(keys.bucketOf(id));
        await client.zadd(key, score, id);
        const { expireTimeMs } = await store.reservations.get(id);
        await until(async () => {
          await store.reservations.expireDue(64);
          return Number(await client.zscore(key, id)) === expireTimeMs;
        }, "it is corrected");
        assert.equal(await stateOf(id), "active");
        await store.reservations.release(id);
      });
    }

    it("set of a foreign type stops its own bucket only", async () => {
      const product = await newProduct();
      const due = await reserve(product, 0);
      const listed = await reserve(product, TTL_MS);
      const used = new Set([due, listed].map((id) => keys.bucketOf(id)));
      const bucket = Array.from({ length: keys.buckets }, (_, n) => n).find((n) => !used.has(n)) ?? 0;
      const key = keys.deadlines(bucket);
      await client.rename(key, "aside").catch(() => undefined);
      await client.set(key, "foreign");
      try {
        await expires(due);
        assert.ok((await store.reservations.list(LIST_ALL)).some((each) => each.reservationId === listed));
        assert.ok((await store.reservations.countActive()) >= 1);
        assertReported(key);
      } finally {
        await client.del(key);
        await client.rename("aside", key).catch(() => undefined);
      }
    });
  });

  describe("of a ledger", () => {
    for (const [name, damage] of Object.entries(LEDGER_DAMAGES)) {
      it(`with ${name} blocks only the operations that need it`, async () => {
        const [damaged, other] = [await newProduct("damaged"), await newProduct("other")];
        const due = await reserve(damaged, 0);
        const otherDue = await reserve(other, 0);
        const key = keys.ledger(damaged);
        await client.copy(key, `copy-${damaged}`);
        await damage(client, key);

        const stocks = await store.batchGetStock([damaged, other]);
        assert.deepEqual(
          stocks.map((stock) => stock?.productId),
          [undefined, other],
        );
        assertReported(key);
        await assert.rejects(store.getStock(damaged), isDamaged);
        await assert.rejects(store.getLedger(damaged), isDamaged);
        const adjust = (productId: string) =>
          store.adjustStock({ productId, delta: 1, adjustmentId: randomUUID(), reason: "" });
        const [refused, adjusted] = await Promise.allSettled([adjust(damaged), adjust(other)]);
        assert.equal(refused.status === "rejected" && refused.reason.code, "RECORD_DAMAGED");
        assert.equal(adjusted.status, "fulfilled", "an operation of the same batch");
        await assert.rejects(put(damaged), isDamaged);
        await expires(otherDue);

        const mirror = new Mirror();
        const feed = new RedisFeed({ endpoint: { url: redis.url }, keys, log, damagedRecords });
        feed.start(mirror);
        try {
          await until(() => mirror.isLoaded, "the mirror is loaded");
          assert.equal(mirror.get(other)?.details?.name, "other");
          assert.equal(mirror.get(damaged), undefined);
          await client.rename(`copy-${damaged}`, key);
          await until(() => mirror.get(damaged)?.details?.name === "damaged", "the repaired ledger is read");
        } finally {
          await feed.stop();
        }
        await expires(due);
        assert.equal((await store.getLedger(damaged)).reserved, 0);
      });
    }
  });

  for (const [name, damage] of Object.entries({ "not JSON": replace(() => "{"), foreign: foreignType })) {
    it(`of details (${name}) hides the details and not the count, and the next details repair it`, async () => {
      const product = await newProduct("before");
      const key = keys.details(product);
      await damage(client, key);
      const { available, details } = await store.getStock(product);
      assert.deepEqual({ available, details }, { available: 100, details: undefined });
      assertReported(key);
      const mirror = new Mirror();
      const feed = new RedisFeed({ endpoint: { url: redis.url }, keys, log, damagedRecords });
      feed.start(mirror);
      try {
        await until(() => mirror.isLoaded, "the mirror is loaded");
        assert.equal(mirror.get(product)?.available, 100);
        await store.putProduct({
          productId: product,
          declared: undefined,
          details: { name: "after", description: "", price: 1, collectionId: "" },
          updateTimeMicros: 2,
        });
        await until(() => mirror.get(product)?.details?.name === "after", "the mirror has the new details");
        assert.equal((await store.getStock(product)).details?.name, "after");
      } finally {
        await feed.stop();
      }
    });
  }

  it("of a collection hides that collection only", async () => {
    for (const collectionId of ["kept", "damaged"]) {
      const collection = { collectionId, name: collectionId, description: "" };
      await store.putCollection({ collectionId, collection, updateTimeMicros: 1 });
    }
    await client.hset(keys.collections(), "damaged", "1 {");
    const names = (await store.listCollections()).map(({ name }) => name);
    assert.deepEqual(names, ["kept"]);
    assertReported(`${keys.collections()} damaged`);
  });

  it("of the set of products does not hide its products from the mirror", async () => {
    const product = await newProduct("found");
    const key = keys.products(keys.bucketOf(product));
    await client.rename(key, "aside");
    await client.set(key, "foreign");
    const mirror = new Mirror();
    const feed = new RedisFeed({ endpoint: { url: redis.url }, keys, log, damagedRecords });
    feed.start(mirror);
    try {
      await until(() => mirror.isLoaded, "the mirror is loaded");
      assert.equal(mirror.get(product)?.details?.name, "found");
      assertReported(key);
    } finally {
      await feed.stop();
      await client.rename("aside", key);
    }
  });

  it("of a change stream is passed over by the mirror and by the publisher", async () => {
    const product = await newProduct();
    const bucket = keys.bucketOf(product);
    const mirror = new Mirror();
    const feed = new RedisFeed({ endpoint: { url: redis.url }, keys, log, damagedRecords });
    const outbox = new RedisOutbox({ endpoint: { url: redis.url }, keys, log, damagedRecords });
    feed.start(mirror);
    try {
      await until(() => mirror.isLoaded, "the mirror is loaded");
      const adjust = () =>
        store.adjustStock({ productId: product, delta: 1, adjustmentId: randomUUID(), reason: "" });
      const lease = await until(() => outbox.acquire(bucket, "owner", 60_000), "the lease is acquired");
      const readAll = async (): Promise<number[]> => {
        const versions: number[] = [];
        for (;;) {
          const batch = await outbox.read(lease, 100);
          assert.ok(batch);
          if (batch.entries.length === 0) return versions;
          for (const { change } of batch.entries) {
            if (change.ledger.productId === product) versions.push(change.ledger.version);
          }
          assert.equal(await outbox.advance(lease, batch.entries), true);
        }
      };
      await readAll();
      await adjust();
      const id = await client.xadd(keys.changes(bucket), "*", "c", "foreign");
      await client.xadd(keys.changes(bucket), "*", "other", "field");
      await adjust();
      await until(() => mirror.get(product)?.available === 102, "the mirror has the change after it");
      assert.deepEqual(await readAll(), [2, 3]);
      assertReported(`${keys.changes(bucket)} ${id}`);
      const [backlog] = (await outbox.backlog()).filter((each) => each.bucket === bucket);
      assert.equal(backlog?.entries, 0, "damaged entries are counted as published");
    } finally {
      await outbox.close();
      await feed.stop();
    }
  });

  it("stream of a foreign type stops the changes of its own bucket only", async () => {
    const [stopped, other] = [await newProduct(), await newProduct()];
    const bucket = keys.bucketOf(stopped);
    if (keys.bucketOf(other) === bucket) return;
    const key = keys.changes(bucket);
    const mirror = new Mirror();
    const feed = new RedisFeed({ endpoint: { url: redis.url }, keys, log, damagedRecords });
    feed.start(mirror);
    try {
      await until(() => mirror.isLoaded, "the mirror is loaded");
      await client.rename(key, "aside");
      await client.set(key, "foreign");
      const adjust = (productId: string) =>
        store.adjustStock({ productId, delta: 1, adjustmentId: randomUUID(), reason: "" });
      await assert.rejects(adjust(stopped), isDamaged);
      await adjust(other);
      await until(() => mirror.get(other)?.available === 101, "the mirror follows the other buckets");
      await until(() => {
        assertReported(key);
        return true;
      }, "it is reported");
      await client.rename("aside", key);
      await adjust(stopped);
      await until(() => mirror.get(stopped)?.available === 101, "the mirror follows the repaired bucket");
    } finally {
      await feed.stop();
    }
  });

  it("of an outbox stops the publishing of its own bucket only", async () => {
    const outbox = new RedisOutbox({ endpoint: { url: redis.url }, keys, log, damagedRecords });
    try {
      await until(() => outbox.backlog(), "the outbox is connected");
      for (const [bucket, damage] of [
        [5, () => client.hset(keys.outbox(5), "cursor", "nowhere")],
        [6, () => client.set(keys.outbox(6), "foreign")],
      ] as const) {
        await damage();
        assert.equal(await outbox.acquire(bucket, "owner", 60_000), undefined);
        assertReported(keys.outbox(bucket));
        assert.ok(await outbox.acquire(4, "owner", 60_000), "another bucket");
        assert.ok(!(await outbox.backlog()).some((each) => each.bucket === bucket));
        await client.del(keys.outbox(bucket));
        assert.ok(await outbox.acquire(bucket, "owner", 60_000), "after the repair");
      }
    } finally {
      await outbox.close();
    }
  });
});

describe("A damaged record in Redis", { skip }, () => {
  it("is visible in the metrics, the log and /readyz, and the server stays ready", async () => {
    const logged: string[] = [];
    const lines = { write: (line: string) => void logged.push(line) };
    await using redis = await startRedis();
    await using app = await startTestApp(
      { REDIS_URL: redis.url, ADMIN_PORT: "0" },
      { log: pino({ level: "info" }, lines) },
    );
    const client = new Redis(redis.url);
    try {
      const key = keys.reservation("damaged");
      await until(async () => (await fetch(`${app.url}/readyz`)).status === 200, "the server is ready");
      await client.set(key, "{");
      await client.zadd(keys.deadlines(keys.bucketOf("damaged")), 1, "damaged");
      const text = await until(async () => {
        const response = await fetch(`${app.url}/readyz`);
        const body = await response.text();
        return body.includes(key) && response.status === 200 && body;
      }, "/readyz names the record");
      assert.match(text, /not JSON/);
      const metrics = await scrape(app.adminUrl);
      assert.equal(metrics.value("inventory_redis_damaged_records", { record: "reservation" }), 1);
      assert.ok((metrics.value("inventory_redis_damaged_records_found_total") ?? 0) > 0);
      const named = logged.filter((line) => line.includes(key));
      assert.equal(named.length, 1, "the log names it once");
    } finally {
      client.disconnect();
    }
  });
});
