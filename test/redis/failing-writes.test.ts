import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { Redis } from "ioredis";
import { pino } from "pino";
import { InventoryError } from "../../server/inventory/errors.ts";
import { BUCKETS_DEFAULT, Keys } from "../../server/redis/keys.ts";
import { RedisOutbox } from "../../server/redis/outbox.ts";
import { RedisStore } from "../../server/redis/store.ts";
import { need } from "../support/programs.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";
import { until } from "../support/until.ts";
import { auditLedgers, dumpRecords } from "./ledger-audit.ts";

const log = pino({ level: "silent" });
const keys = new Keys(BUCKETS_DEFAULT);
const DECLARED = 100;
const TTL_MS = 600_000;

/** An operation on the products `a-<id>` and `b-<id>`, each with 100 units, and the reservation `<id>`. */
interface Operation {
  readonly name: string;
  readonly prepare?: (store: RedisStore, id: string) => Promise<unknown>;
  readonly call: (store: RedisStore, id: string) => Promise<unknown>;
  /** D, A, S, H, F of both products after it was done once. */
  readonly ledgers: readonly [string, string];
}

const lines = (id: string, quantity = 10) => [
  { productId: `a-${id}`, quantity },
  { productId: `b-${id}`, quantity },
];
const reserve = (store: RedisStore, id: string, ttlMs = TTL_MS) =>
  store.reservations.reserve({ reservationId: id, lines: lines(id), ttlMs });
const commit = (store: RedisStore, id: string) =>
  store.reservations.commit({ reservationId: id, lines: lines(id, 4), strict: false });

const OPERATIONS: readonly Operation[] = [
  { name: "reserve", call: reserve, ledgers: ["100 0 0 10 0", "100 0 0 10 0"] },
  { name: "commit", prepare: reserve, call: commit, ledgers: ["100 0 4 0 0", "100 0 4 0 0"] },
  {
    name: "commit after expiry",
    prepare: async (store, id) => {
      await reserve(store, id, 0);
      await store.reservations.expireDue(100);
    },
    call: commit,
    ledgers: ["100 0 4 0 0", "100 0 4 0 0"],
  },
  {
    name: "release",
    prepare: reserve,
    call: (store, id) => store.reservations.release(id),
    ledgers: ["100 0 0 0 0", "100 0 0 0 0"],
  },
  {
    name: "release of an unknown ID",
    call: (store, id) => store.reservations.release(id),
    ledgers: ["100 0 0 0 0", "100 0 0 0 0"],
  },
  {
    name: "extend",
    prepare: reserve,
    call: (store, id) => store.reservations.extend(id, 2 * TTL_MS),
    ledgers: ["100 0 0 10 0", "100 0 0 10 0"],
  },
  {
    name: "return",
    prepare: async (store, id) => {
      await reserve(store, id);
      await commit(store, id);
    },
    call: (store, id) =>
      store.reservations.return({ reservationId: id, returnId: `return-${id}`, lines: lines(id, 3) }),
    ledgers: ["100 0 1 0 0", "100 0 1 0 0"],
  },
  {
    name: "expire",
    prepare: (store, id) => reserve(store, id, 0),
    call: async (store, id) => {
      await store.reservations.expireDue(100);
      assert.equal((await store.reservations.get(id)).state, "expired");
    },
    ledgers: ["100 0 0 0 0", "100 0 0 0 0"],
  },
  {
    name: "adjust",
    call: (store, id) =>
      store.adjustStock({ productId: `a-${id}`, delta: 5, adjustmentId: `adjust-${id}`, reason: "" }),
    ledgers: ["100 5 0 0 0", "100 0 0 0 0"],
  },
  {
    name: "count",
    call: (store, id) =>
      store.countStock({
        productId: `a-${id}`,
        count: 90,
        expectedVersion: undefined,
        countId: `count-${id}`,
        reason: "",
      }),
    ledgers: ["100 -10 0 0 0", "100 0 0 0 0"],
  },
  {
    name: "set safety stock",
    call: (store, id) => store.setSafetyStock(`a-${id}`, 7),
    ledgers: ["100 0 0 0 7", "100 0 0 0 0"],
  },
  {
    name: "put with details",
    call: (store, id) =>
      store.putProduct({
        productId: `a-${id}`,
        declared: 80,
        details: { name: "name", description: "", price: 1, collectionId: "" },
        updateTimeMicros: 2,
      }),
    ledgers: ["80 0 0 0 0", "100 0 0 0 0"],
  },
  {
    name: "put of a new product",
    prepare: async () => undefined,
    call: (store, id) => putDeclared(store, `new-${id}`, 30),
    ledgers: ["100 0 0 0 0", "100 0 0 0 0"],
  },
  {
    name: "delete",
    call: (store, id) => store.deleteProduct({ productId: `a-${id}`, updateTimeMicros: 2 }),
    ledgers: ["100 0 0 0 0", "100 0 0 0 0"],
  },
  {
    name: "put of a collection",
    call: (store, id) =>
      store.putCollection({
        collectionId: id,
        collection: { collectionId: id, name: "name", description: "" },
        updateTimeMicros: 1,
      }),
    ledgers: ["100 0 0 0 0", "100 0 0 0 0"],
  },
];

function putDeclared(store: RedisStore, productId: string, declared: number) {
  return store.putProduct({ productId, declared, details: undefined, updateTimeMicros: 1 });
}

/** Makes writes fail, and resolves with what undoes it. */
interface Fault {
  readonly name: string;
  readonly inject: (client: Redis, id: string) => Promise<() => Promise<unknown>>;
}

const WRITE_COMMANDS = ["hset", "xadd", "set", "zadd", "zrem", "sadd"];

const refusedCommands: readonly Fault[] = WRITE_COMMANDS.map((command) => ({
  name: `no permission to run ${command.toUpperCase()}`,
  inject: async (client) => {
    await client.call("ACL", "SETUSER", "writer", `-${command}`);
    return () => client.call("ACL", "SETUSER", "writer", `+${command}`);
  },
}));

const FAMILIES = ["p:*", "h:*", "d:*", "r:*", "op:*", "changes", "products", "deadlines", "collections"];

const readOnlyKeys: readonly Fault[] = FAMILIES.map((family) => ({
  name: `no permission to write {bNN}:${family}`,
  inject: async (client) => {
    const others = FAMILIES.filter((other) => other !== family).map((other) => `~{b??}:${other}`);
    const rules = ["resetkeys", `%R~{b??}:${family}`, ...others, "~{b??}:layout", "~{b??}:marker", "~[an]*"];
    await client.call("ACL", "SETUSER", "writer", ...rules);
    return () => client.call("ACL", "SETUSER", "writer", "resetkeys", "allkeys");
  },
}));

const fullMemory: Fault = {
  name: "no memory",
  inject: async (client) => {
    await client.config("SET", "maxmemory", "1mb");
    return () => client.config("SET", "maxmemory", "0");
  },
};

/** Puts a key of a foreign type at the place of another one. */
function foreignKey(name: string, keyOf: (id: string) => string): Fault {
  return {
    name: `a foreign key at the place of ${name}`,
    inject: async (client, id) => {
      const key = keyOf(id);
      const existed = (await client.exists(key)) === 1;
      if (existed) await client.rename(key, "aside");
      await client.lpush(key, "foreign");
      return async () => {
        await client.del(key);
        if (existed) await client.rename("aside", key);
      };
    },
  };
}

const foreignKeys: readonly Fault[] = [
  foreignKey("the first ledger", (id) => keys.ledger(`a-${id}`)),
  foreignKey("the second ledger", (id) => keys.ledger(`b-${id}`)),
  foreignKey("the first history", (id) => keys.history(`a-${id}`)),
  foreignKey("the second history", (id) => keys.history(`b-${id}`)),
  foreignKey("the details", (id) => keys.details(`a-${id}`)),
  foreignKey("the first change stream", (id) => keys.changes(keys.bucketOf(`a-${id}`))),
  foreignKey("the second change stream", (id) => keys.changes(keys.bucketOf(`b-${id}`))),
  foreignKey("the change stream of the new product", (id) => keys.changes(keys.bucketOf(`new-${id}`))),
  foreignKey("the products", (id) => keys.products(keys.bucketOf(`new-${id}`))),
  foreignKey("the reservation", (id) => keys.reservation(id)),
  foreignKey("the deadlines", (id) => keys.deadlines(keys.bucketOf(id))),
  foreignKey("the return", (id) => keys.operation("return", id, `return-${id}`)),
  foreignKey("the adjustment", (id) => keys.operation("adjust", `a-${id}`, `adjust-${id}`)),
  foreignKey("the count", (id) => keys.operation("count", `a-${id}`, `count-${id}`)),
  foreignKey("the collections", () => keys.collections()),
];

describe("RedisStore while writes fail", { skip: need("redis-server").missing }, () => {
  let redis: RedisServer;
  let client: Redis;
  let store: RedisStore;

  before(async () => {
    redis = await startRedis({ appendonly: "no" });
    client = new Redis(redis.url);
    await client.call("ACL", "SETUSER", "writer", "on", ">secret", "allkeys", "+@all");
    store = new RedisStore({ endpoint: { url: `redis://writer:secret@127.0.0.1:${redis.port}` }, log });
    await store.start(5_000);
  });
  after(async () => {
    await store?.close();
    client?.disconnect();
    await redis?.stop();
  });

  let round = 0;
  for (const fault of [...refusedCommands, ...readOnlyKeys, fullMemory, ...foreignKeys]) {
    it(`changes all or nothing with ${fault.name}, and a retry does no harm`, async (t) => {
      let refused = 0;
      for (const { name, prepare, call, ledgers } of OPERATIONS) {
        round += 1;
        const id = `${round}`;
        await client.flushall();
        await store.close();
        store = new RedisStore({ endpoint: { url: `redis://writer:secret@127.0.0.1:${redis.port}` }, log });
        await store.start(5_000);
        for (const product of ["a", "b"]) {
          await putDeclared(store, `${product}-${id}`, DECLARED);
        }
        await prepare?.(store, id);
        const before = await dumpRecords(client);
        const undo = await fault.inject(client, id);
        const [result] = await Promise.allSettled([call(store, id)]);
        await undo();
        assert.deepEqual(await auditLedgers(client), [], `${name}: the ledgers are consistent`);
        if (result.status === "rejected") {
          refused += 1;
          const { reason } = result;
          assert.ok(
            reason instanceof InventoryError
              ? ["STORE_UNAVAILABLE", "RECORD_DAMAGED"].includes(reason.code)
              : name === "expire",
            `${name}: ${reason}`,
          );
          if (name !== "expire") {
            assert.equal(await dumpRecords(client), before, `${name}: nothing was written`);
          }
        }
        for (let n = 0; n < 2; n++) {
          // An expiry is retried a second later.
          await (name === "expire" ? until(() => call(store, id).then(() => true), name) : call(store, id));
          assert.deepEqual(
            await auditLedgers(client),
            [],
            `${name}: the ledgers are consistent after a retry`,
          );
        }
        for (const [index, product] of ["a", "b"].entries()) {
          const { declared, adjusted, sold, reserved, safety } = await store.getLedger(`${product}-${id}`);
          const ledger = [declared, adjusted, sold, reserved, safety].join(" ");
          assert.equal(ledger, ledgers[index], `${name}: done once`);
        }
      }
      t.diagnostic(`${refused} of ${OPERATIONS.length} operations were refused`);
      assert.ok(refused > 0 || /history|details/.test(fault.name), "the fault made some operation fail");
    });
  }
});

describe("The scripts beside the mutations while writes fail", { skip: need("redis-server").missing }, () => {
  let redis: RedisServer;
  let client: Redis;
  let outbox: RedisOutbox;
  let url: string;
  const one = new Keys(1);
  const key = one.outbox(0);

  before(async () => {
    redis = await startRedis({ appendonly: "no" });
    client = new Redis(redis.url);
    await client.call("ACL", "SETUSER", "writer", "on", ">secret", "allkeys", "+@all");
    url = `redis://writer:secret@127.0.0.1:${redis.port}`;
    outbox = new RedisOutbox({ endpoint: { url }, keys: one, log });
    await until(() => outbox.backlog(), "the outbox is connected");
  });
  after(async () => {
    await outbox?.close();
    client?.disconnect();
    await redis?.stop();
  });

  /** Runs `call` while the user may not run `command`: it is refused, and the outbox is unchanged. */
  async function assertRefused(command: string, call: () => Promise<unknown>): Promise<void> {
    const before = await client.hgetall(key);
    await client.call("ACL", "SETUSER", "writer", `-${command}`);
    await assert.rejects(call(), { code: "STORE_UNAVAILABLE", message: /\(NOPERM\)/ });
    await client.call("ACL", "SETUSER", "writer", `+${command}`);
    assert.deepEqual(await client.hgetall(key), before);
  }

  it("leave lease, cursor and publishers as they were, and a retry does no harm", async () => {
    await assertRefused("hset", () => outbox.acquire(0, "owner", 60_000));
    const lease = await outbox.acquire(0, "owner", 60_000);
    assert.equal(lease?.token, 1, "a refused attempt costs no token");
    await assertRefused("hset", () => outbox.renew(lease, 60_000));
    await assertRefused("hset", () => outbox.release(lease));
    assert.equal(await outbox.renew(lease, 60_000), true, "the lease is still held");

    const entry = "declared 1 1 1 0 0 0 0 1 1 0\np\n\n\n";
    for (let n = 0; n < 3; n++) await client.xadd(one.changes(0), "*", "c", entry);
    const { entries = [] } = (await outbox.read(lease, 2)) ?? {};
    assert.equal(entries.length, 2);
    await assertRefused("hset", () => outbox.advance(lease, entries));
    for (let n = 0; n < 2; n++) {
      // The second one is a repetition after a lost reply.
      assert.equal(await outbox.advance(lease, entries), true);
      assert.equal((await outbox.backlog())[0]?.entries, 1);
    }
    await client.xtrim(one.changes(0), "MAXLEN", 0);
    await assertRefused("hset", () => outbox.read(lease, 10));
    assert.equal((await outbox.read(lease, 10))?.snapshotDue, true, "the gap is found again");
    await assertRefused("hdel", () => outbox.snapshotDone(lease));
    assert.equal(await outbox.snapshotDone(lease), true);

    for (const command of ["zremrangebyscore", "zadd"]) {
      await assertRefused(command, () => outbox.announce("owner", 60_000));
    }
    assert.equal(await outbox.announce("owner", 60_000), 1);
    await assertRefused("zrem", () => outbox.retire("owner"));
    await outbox.retire("owner");
  });

  it("raise no incarnation, and leave the store unready", async () => {
    await client.call("ACL", "SETUSER", "writer", "-hset");
    const store = new RedisStore({ endpoint: { url }, keys: one, log });
    try {
      const reason = /NOPERM|can't run this command|ACL failure in script/;
      await until(async () => reason.test((await store.unreadyReason()) ?? ""), "the reason is a permission");
      assert.deepEqual(await client.hgetall(one.marker(0)), {});
      await client.call("ACL", "SETUSER", "writer", "+hset");
      await until(async () => (await store.unreadyReason()) === undefined, "the store is ready");
      assert.equal((await client.hgetall(one.marker(0)))["incarnation"], "1");
    } finally {
      await store.close();
    }
  });
});
