import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, describe, it } from "node:test";
import { Redis } from "ioredis";
import { pino } from "pino";
import { InventoryError } from "../../server/inventory/errors.ts";
import type { OutboxLease } from "../../server/inventory/outbox.ts";
import { Keys } from "../../server/redis/keys.ts";
import { RedisOutbox } from "../../server/redis/outbox.ts";
import { RedisStore } from "../../server/redis/store.ts";
import { need } from "../support/programs.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";
import { until } from "../support/until.ts";

const log = pino({ level: "silent" });
const keys = new Keys(1);
const LEASE_MS = 60_000;
const LIMIT = 100;

describe("RedisOutbox", { skip: need("redis-server").missing }, () => {
  let redis: RedisServer;
  let client: Redis;
  let store: RedisStore;
  let outbox: RedisOutbox;

  before(async () => {
    redis = await startRedis();
    client = new Redis(redis.url);
    store = new RedisStore({ endpoint: { url: redis.url }, log, keys });
    await store.start(5_000);
    outbox = new RedisOutbox({ endpoint: { url: redis.url }, keys, log });
    await until(() => outbox.backlog(), "the outbox is connected");
  });
  after(async () => {
    await outbox?.close();
    await store?.close();
    client?.disconnect();
    await redis?.stop();
  });

  async function take(owner: string = randomUUID(), leaseMs = LEASE_MS): Promise<OutboxLease> {
    const lease = await outbox.acquire(0, owner, leaseMs);
    assert.ok(lease, "the lease was free");
    return lease;
  }

  async function change(productId: string, times = 1): Promise<void> {
    for (let n = 0; n < times; n++) {
      await store.putProduct({ productId, declared: 1, details: undefined, updateTimeMicros: 1 });
      await store.adjustStock({ productId, delta: 1, adjustmentId: randomUUID(), reason: "" });
    }
  }

  async function readAll(lease: OutboxLease, limit = LIMIT): Promise<string[]> {
    const batch = await outbox.read(lease, limit);
    return (batch?.entries ?? []).map(({ change: { ledger } }) => `${ledger.productId}:${ledger.version}`);
  }

  /** Publishes all entries, and the snapshot if one is due. Resolves with the number of products in it. */
  async function publishAll(lease: OutboxLease): Promise<number | undefined> {
    for (;;) {
      const batch = await outbox.read(lease, LIMIT);
      assert.ok(batch);
      assert.equal(await outbox.advance(lease, batch.entries), true);
      if (batch.entries.length === 0) {
        if (!batch.snapshotDue) {
          return undefined;
        }
        let products = 0;
        for await (const states of outbox.snapshot(0)) {
          products += states.length;
        }
        assert.equal(await outbox.snapshotDone(lease), true);
        return products;
      }
    }
  }

  it("a lease has one owner until it is released", async () => {
    const lease = await take("a");
    assert.equal(await outbox.acquire(0, "b", LEASE_MS), undefined);
    assert.equal(await outbox.renew(lease, LEASE_MS), true);
    await outbox.release(lease);
    assert.equal(await outbox.renew(lease, LEASE_MS), false);
    const next = await take("b");
    assert.ok(next.token > lease.token);
    await outbox.release(next);
  });

  it("an owner whose lease expired and was taken over cannot read, advance or renew", async () => {
    const old = await take("old", 1);
    await change("fenced");
    const before = await outbox.read(old, LIMIT);
    assert.ok(before && before.entries.length > 0);
    const next = await until(() => outbox.acquire(0, "next", LEASE_MS), "the lease has expired");
    assert.equal(await outbox.advance(old, before.entries), false);
    assert.equal(await outbox.read(old, LIMIT), undefined);
    assert.equal(await outbox.renew(old, LEASE_MS), false);
    assert.equal(await outbox.snapshotDone(old), false);
    await outbox.release(old);
    assert.equal(await outbox.renew(next, LEASE_MS), true, "a release with an old token releases nothing");
    assert.deepEqual((await outbox.read(next, LIMIT))?.entries, before.entries);
    await publishAll(next);
    await outbox.release(next);
  });

  it("the cursor moves past published entries and is kept for the next owner", async () => {
    const lease = await take();
    await publishAll(lease);
    await change("cursor", 2);
    const batch = await outbox.read(lease, 2);
    assert.ok(batch);
    assert.deepEqual(await readAll(lease), ["cursor:1", "cursor:2", "cursor:3"]);
    assert.deepEqual((await outbox.backlog())[0]?.entries, 3);
    assert.equal(await outbox.advance(lease, batch.entries), true);
    await outbox.release(lease);
    const next = await take();
    assert.deepEqual(await readAll(next), ["cursor:3"]);
    assert.equal((await outbox.backlog())[0]?.entries, 1);
    await publishAll(next);
    const [{ entries, oldestMs } = { entries: -1, oldestMs: -1 }] = await outbox.backlog();
    assert.deepEqual({ entries, oldestMs }, { entries: 0, oldestMs: 0 });
    await outbox.release(next);
  });

  it("a trim of published entries is not a gap", async () => {
    const lease = await take();
    await change("trimmed", 3);
    assert.equal(await publishAll(lease), undefined);
    await client.xtrim(keys.changes(0), "MAXLEN", 0);
    assert.deepEqual(await outbox.read(lease, LIMIT), { entries: [], snapshotDue: false });
    await change("trimmed");
    assert.deepEqual(await readAll(lease), ["trimmed:5"]);
    assert.equal((await outbox.backlog())[0]?.entries, 1);
    await publishAll(lease);
    await outbox.release(lease);
  });

  it("after a trim of unpublished entries, a snapshot is due once the remaining entries are published", async () => {
    const lease = await take();
    await publishAll(lease);
    await change("gap-a", 3);
    await change("gap-b", 3);
    await client.xtrim(keys.changes(0), "MAXLEN", 3);
    const [backlog] = await outbox.backlog();
    assert.equal(backlog?.entries, 3);
    const batch = await outbox.read(lease, 2);
    assert.deepEqual(
      batch?.entries.map(({ change: { ledger } }) => ledger.version),
      [2, 3],
    );
    assert.equal(batch?.snapshotDue, false, "the remaining entries come first");
    assert.equal(await outbox.advance(lease, batch?.entries ?? []), true);
    await outbox.release(lease);
    const next = await take();
    const rest = await outbox.read(next, LIMIT);
    assert.equal(rest?.entries.length, 1);
    assert.equal(rest?.snapshotDue, false);
    assert.equal(await outbox.advance(next, rest?.entries ?? []), true);
    await change("gap-c");
    const after = await outbox.read(next, LIMIT);
    assert.equal(after?.snapshotDue, true, "later changes do not delay it");
    const known = await client.scard(keys.products(0));
    assert.equal(await publishAll(next), known);
    assert.deepEqual(await outbox.read(next, LIMIT), { entries: [], snapshotDue: false });
    await outbox.release(next);
  });

  it("a cursor beyond the stream means other data: all entries are published, and a snapshot", async () => {
    const lease = await take();
    await publishAll(lease);
    await client.del(keys.changes(0));
    await change("other-data");
    const batch = await outbox.read(lease, LIMIT);
    assert.deepEqual(
      batch?.entries.map(({ change: { ledger } }) => ledger.productId),
      ["other-data", "other-data"],
    );
    assert.ok(((await publishAll(lease)) ?? 0) > 0);
    await outbox.release(lease);
  });

  it("counts the announced publishers", async () => {
    assert.equal(await outbox.announce("one", LEASE_MS), 1);
    assert.equal(await outbox.announce("two", LEASE_MS), 2);
    assert.equal(await outbox.announce("short-lived", 1), 3);
    await until(
      async () => (await outbox.announce("one", LEASE_MS)) === 2,
      "the short-lived announcement has expired",
    );
    await outbox.retire("two");
    assert.equal(await outbox.announce("one", LEASE_MS), 1);
  });

  it("rejects with STORE_UNAVAILABLE while Redis is down", async () => {
    await redis.kill9();
    await assert.rejects(outbox.backlog(), (error) => {
      return error instanceof InventoryError && error.code === "STORE_UNAVAILABLE";
    });
    await redis.restart();
    await until(() => outbox.backlog(), "the outbox is connected again");
  });
});
