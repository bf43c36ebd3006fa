import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ReservationState } from "../../gen/inventory/v1/reservation_pb.ts";
import { CLUSTER_BUCKETS_DEFAULT, Keys } from "../../server/redis/keys.ts";
import { Caller, shortageOf } from "../e2e/callers.ts";
import { startAppProcess } from "../support/app.ts";
import { need } from "../support/programs.ts";
import { slotOfBucket, startRedisCluster } from "../support/redis-cluster.ts";
import { until } from "../support/until.ts";
import { startBrowser, untilCount, untilStatus, visit } from "../web/browser.ts";
import { ClusterState } from "./cluster-state.ts";

// A flash sale, a failover and a resharding at the same time, on three primaries with a replica each, while a page is open.

const HOT = { productId: "hot", declared: 300 };
/** Sold beside the hot product, so that an order spans buckets, and after it is sold out. */
const BESIDE = Array.from({ length: 6 }, (_, n) => ({ productId: `beside-${n}`, declared: 990 }));
const PRODUCTS = [HOT, ...BESIDE];
const BUYERS = 16;
/** Orders before the faults begin, and after they have ended. */
const ORDERS_AROUND = 30;
const SLOTS_MOVED = 3;
const WAIT_MS_MAX = 60_000;
const keys = new Keys(CLUSTER_BUCKETS_DEFAULT);
const skip = need("redis-server").missing ?? need("valkey-9.1").missing ?? need("chromium").missing;

describe("a flash sale on a Redis Cluster of valkey-9.1, 3 + 3", { skip }, () => {
  it("oversells no unit and loses no acknowledged order while a primary dies and slots move; the page stays live", async (t) => {
    await using ends = new AsyncDisposableStack();
    const cluster = ends.use(
      await startRedisCluster({ server: "valkey-9.1", replicas: 1, replicationDelayMs: 1 }),
    );
    const environment = { REDIS_CLUSTER: cluster.addresses, REDIS_ACKS: "1" };
    const servers = [
      ends.use(await startAppProcess(environment)),
      ends.use(await startAppProcess(environment)),
    ];
    const urls = servers.map(({ url }) => url);
    const seller = ends.use(new Caller(urls));
    for (const { productId, declared } of PRODUCTS) {
      await seller.ask(({ supply }, options) => supply.putProduct({ productId, declared }, options));
    }
    const browser = await startBrowser();
    ends.defer(() => browser.close());
    const visitor = ends.use(await visit(browser));
    const page = await visitor.open(urls[0] ?? "");
    await untilStatus(page, "Live");
    await untilCount(page, HOT.productId, `${HOT.declared} left`);

    /** Acknowledged commits, by order ID: the products of which one unit was sold. */
    const committed = new Map<string, readonly string[]>();
    let isSoldOut = false;
    let isOver = false;
    const buy = async (caller: Caller, buyer: number): Promise<void> => {
      for (let n = 0; !isOver; n++) {
        const reservationId = `order-${buyer}-${n}`;
        const beside = BESIDE[(buyer + n) % BESIDE.length]?.productId ?? "";
        const bought = isSoldOut ? [beside] : [HOT.productId, beside];
        const lines = bought.map((productId) => ({ productId, quantity: 1 }));
        try {
          await caller.ask(({ reservations }, options) =>
            reservations.reserve({ reservationId, lines }, options),
          );
        } catch (error) {
          if (shortageOf(error) === undefined) throw error;
          // The units of a cart that is refused elsewhere are held for a moment, so only Supply knows the end of the sale.
          const { ledger } = await caller.ask(({ supply }, options) =>
            supply.getLedger({ productId: HOT.productId }, options),
          );
          isSoldOut ||= ledger?.sold === HOT.declared;
          continue;
        }
        await caller.ask(({ reservations }, options) =>
          reservations.commitReservation({ reservationId }, options),
        );
        committed.set(reservationId, bought);
      }
    };
    const callers = Array.from({ length: BUYERS }, (_, n) => ends.use(new Caller(urls, n)));
    const buying = Promise.all(callers.map(buy));
    const ordersMore = async (count: number): Promise<void> => {
      const target = committed.size + count;
      await until(() => committed.size >= target, `${count} more orders`, WAIT_MS_MAX);
    };
    const slotOf = (productId: string) => slotOfBucket(keys.bucketOf(productId));

    const failOver = async (): Promise<void> => {
      const slot = slotOf(HOT.productId);
      const primary = await cluster.primaryOf(slot);
      await cluster.kill(primary);
      await cluster.promoted(slot, primary);
      await cluster.restart(primary);
    };
    /** Between the primaries that stay: a migration ends if one of its nodes fails. */
    const reshard = async (): Promise<void> => {
      const dying = await cluster.primaryOf(slotOf(HOT.productId));
      const [from, to] = (await cluster.primaries()).filter((node) => node !== dying);
      assert.ok(from && to);
      const slots = new Set<number>();
      for (let bucket = 0; bucket < keys.buckets && slots.size < SLOTS_MOVED; bucket++) {
        const slot = slotOfBucket(bucket);
        if ((await cluster.primaryOf(slot)) === from) slots.add(slot);
      }
      for (const slot of slots) await cluster.moveSlot(slot, to);
    };
    try {
      await ordersMore(ORDERS_AROUND);
      await Promise.all([failOver(), reshard()]);
      await ordersMore(ORDERS_AROUND);
      await until(() => isSoldOut, "the hot product is sold out", WAIT_MS_MAX);
    } finally {
      isOver = true;
      await buying;
    }

    await cluster.settled();
    const state = new ClusterState(cluster, keys);
    await until(() => state.isSettled(), "every effect has reached the ledgers", WAIT_MS_MAX);
    for (const reservationId of committed.keys()) {
      const { reservation } = await seller.ask(({ reservations }, options) =>
        reservations.getReservation({ reservationId }, options),
      );
      assert.equal(reservation?.state, ReservationState.COMMITTED, reservationId);
    }
    for (const { productId, declared } of PRODUCTS) {
      const { ledger } = await seller.ask(({ supply }, options) => supply.getLedger({ productId }, options));
      const sold = [...committed.values()].filter((bought) => bought.includes(productId)).length;
      assert.equal(Number(ledger?.sold), sold, `${productId}: sold`);
      assert.equal(Number(ledger?.reserved), 0, `${productId}: reserved`);
      assert.equal(Number(ledger?.declared), declared);
      await untilCount(page, productId, sold === declared ? "Sold out" : `${declared - sold} left`);
    }
    await untilStatus(page, "Live");
    assert.deepEqual(visitor.errors, []);
    const retries = callers.reduce((sum, caller) => sum + caller.retries, 0);
    t.diagnostic(`${committed.size} orders of ${BUYERS} buyers, ${retries} attempts without a response`);
  });
});
