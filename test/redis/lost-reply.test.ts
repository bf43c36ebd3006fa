import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { pino } from "pino";
import { InventoryError } from "../../server/inventory/errors.ts";
import { RedisStore } from "../../server/redis/store.ts";
import { need } from "../support/programs.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";
import { startTcpProxy, type TcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";

const log = pino({ level: "silent" });
const DECLARED = 100;
const TTL_MS = 600_000;

/** An operation whose reply is lost, and what another caller does before the server could send it again. */
interface Case {
  /** Name of the operation in the scripts. */
  readonly operation: string;
  readonly prepare?: (store: RedisStore, id: string) => Promise<unknown>;
  readonly call: (store: RedisStore, id: string) => Promise<unknown>;
  readonly meanwhile: (store: RedisStore, id: string) => Promise<unknown>;
  /** Whether the step recognises a repetition, so that the server sends it again and the caller gets a result. */
  readonly isIdempotent: boolean;
  readonly check: (store: RedisStore, id: string) => Promise<void>;
}

const lines = (id: string) => [{ productId: id, quantity: 10 }];
const reserve = (store: RedisStore, id: string) =>
  store.reservations.reserve({ reservationId: id, lines: lines(id), ttlMs: TTL_MS });
const commit = (store: RedisStore, id: string) =>
  store.reservations.commit({ reservationId: id, lines: undefined, strict: false });
const release = (store: RedisStore, id: string) => store.reservations.release(id);
const giveBack = (store: RedisStore, id: string, returnId: string, quantity: number) =>
  store.reservations.return({ reservationId: id, returnId, lines: [{ productId: id, quantity }] });
const adjust = (store: RedisStore, id: string, adjustmentId: string) =>
  store.adjustStock({ productId: id, delta: 1, adjustmentId, reason: "" });
const put = (store: RedisStore, id: string, declared: number, updateTimeMicros: number | undefined) =>
  store.putProduct({ productId: id, details: undefined, declared, updateTimeMicros });

async function assertLedger(
  store: RedisStore,
  id: string,
  expected: { declared?: number; adjusted?: number; sold?: number; reserved?: number; safety?: number },
): Promise<void> {
  const { declared, adjusted, sold, reserved, safety } = await store.getLedger(id);
  assert.deepEqual(
    { declared, adjusted, sold, reserved, safety },
    { declared: DECLARED, adjusted: 0, sold: 0, reserved: 0, safety: 0, ...expected },
  );
}

const CASES: readonly Case[] = [
  {
    operation: "reserve",
    call: reserve,
    meanwhile: release,
    isIdempotent: true,
    check: (store, id) => assertLedger(store, id, {}),
  },
  {
    operation: "commit_reservation",
    prepare: reserve,
    call: commit,
    meanwhile: (store, id) => giveBack(store, id, `other-${id}`, 3),
    isIdempotent: true,
    check: (store, id) => assertLedger(store, id, { sold: 7 }),
  },
  {
    operation: "release_reservation",
    prepare: reserve,
    call: release,
    meanwhile: (store, id) => assert.rejects(commit(store, id), { code: "RESERVATION_ENDED" }),
    isIdempotent: true,
    check: (store, id) => assertLedger(store, id, {}),
  },
  {
    operation: "extend_reservation",
    prepare: reserve,
    call: (store, id) => store.reservations.extend(id, 2 * TTL_MS),
    meanwhile: release,
    isIdempotent: false,
    check: async (store, id) => {
      const { createTimeMs, expireTimeMs = 0 } = await store.reservations.get(id);
      assert.ok(expireTimeMs - createTimeMs >= 2 * TTL_MS, "the deadline has moved");
      await assertLedger(store, id, {});
    },
  },
  {
    operation: "return_units",
    prepare: async (store, id) => {
      await reserve(store, id);
      await commit(store, id);
    },
    call: (store, id) => giveBack(store, id, `return-${id}`, 6),
    meanwhile: (store, id) => giveBack(store, id, `other-${id}`, 4),
    isIdempotent: true,
    check: (store, id) => assertLedger(store, id, {}),
  },
  {
    operation: "adjust_stock",
    call: (store, id) => adjust(store, id, `adjust-${id}`),
    meanwhile: (store, id) => adjust(store, id, `other-${id}`),
    isIdempotent: true,
    check: (store, id) => assertLedger(store, id, { adjusted: 2 }),
  },
  {
    operation: "count_stock",
    call: (store, id) =>
      store.countStock({ productId: id, count: 90, expectedVersion: 1n, countId: `count-${id}`, reason: "" }),
    meanwhile: (store, id) => adjust(store, id, `other-${id}`),
    isIdempotent: true,
    check: (store, id) => assertLedger(store, id, { adjusted: -9 }),
  },
  {
    operation: "set_safety_stock",
    call: (store, id) => store.setSafetyStock(id, 5),
    meanwhile: (store, id) => store.setSafetyStock(id, 7),
    isIdempotent: false,
    check: (store, id) => assertLedger(store, id, { safety: 7 }),
  },
  {
    operation: "put_product",
    call: (store, id) => put(store, id, 60, 2),
    meanwhile: (store, id) => put(store, id, 70, 3),
    isIdempotent: true,
    check: (store, id) => assertLedger(store, id, { declared: 70 }),
  },
  {
    operation: "put_product",
    call: (store, id) => put(store, id, 60, undefined),
    meanwhile: (store, id) => put(store, id, 70, undefined),
    isIdempotent: false,
    check: (store, id) => assertLedger(store, id, { declared: 70 }),
  },
  {
    operation: "delete_product",
    call: (store, id) => store.deleteProduct({ productId: id, updateTimeMicros: 2 }),
    meanwhile: (store, id) => put(store, id, 70, 3),
    isIdempotent: true,
    check: (store, id) => assertLedger(store, id, { declared: 70 }),
  },
  {
    operation: "put_collection",
    call: (store, id) =>
      store.putCollection({
        collectionId: id,
        collection: { collectionId: id, name: "first", description: "" },
        updateTimeMicros: 1,
      }),
    meanwhile: (store, id) =>
      store.putCollection({
        collectionId: id,
        collection: { collectionId: id, name: "second", description: "" },
        updateTimeMicros: 2,
      }),
    isIdempotent: true,
    check: async (store, id) => {
      const found = (await store.listCollections()).find(({ collectionId }) => collectionId === id);
      assert.equal(found?.name, "second");
    },
  },
];

describe("RedisStore: an operation whose reply is lost", { skip: need("redis-server").missing }, () => {
  let redis: RedisServer;
  let proxy: TcpProxy;
  let store: RedisStore;
  let direct: RedisStore;

  async function open(url: string): Promise<RedisStore> {
    const opened = new RedisStore({ endpoint: { url }, log });
    await opened.start(5_000);
    return opened;
  }

  before(async () => {
    redis = await startRedis();
    proxy = await startTcpProxy({ target: redis });
    store = await open(proxy.url("redis"));
    direct = await open(redis.url);
  });
  after(async () => {
    await store?.close();
    await direct?.close();
    await proxy?.close();
    await redis?.stop();
  });

  for (const [index, { operation, prepare, call, meanwhile, isIdempotent, check }] of CASES.entries()) {
    const outcome = isIdempotent ? "resolves" : "is STORE_UNAVAILABLE";
    it(`${operation} ${outcome}, and is not refused because of later operations (${index})`, async () => {
      const id = `lost-${index}`;
      await put(direct, id, DECLARED, 1);
      await prepare?.(direct, id);
      const cut = proxy.cutAfterRequest((chunk) => chunk.includes(operation));
      const called = Promise.allSettled([call(store, id)]);
      await cut;
      await proxy.cut();
      await meanwhile(direct, id);
      await proxy.pass();
      const [result] = await called;
      if (result.status === "rejected") {
        assert.ok(result.reason instanceof InventoryError, String(result.reason));
        assert.equal(result.reason.code, "STORE_UNAVAILABLE");
      }
      // A resend may coincide with a stall of the machine: the caller then gets STORE_UNAVAILABLE.
      assert.ok(isIdempotent || result.status === "rejected", "it was not sent again");
      await check(direct, id);
      await until(async () => (await store.unreadyReason()) === undefined, "the store is connected again");
    });
  }
});
