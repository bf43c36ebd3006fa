import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { pino } from "pino";
import { ReservationState } from "../../gen/inventory/v1/reservation_pb.ts";
import { ChangeCause } from "../../gen/inventory/v1/supply_pb.ts";
import { RedisStore } from "../../server/redis/store.ts";
import { startAppProcess } from "../support/app.ts";
import { need } from "../support/programs.ts";
import { startRedis } from "../support/redis-server.ts";
import { until } from "../support/until.ts";
import { Caller, timesTold } from "./callers.ts";

const DUE = 2_000;
const PRODUCTS = 20;
const CALLERS = 8;
const AT_ONCE = 200;
/** Time from the first reservation until all are due. */
const DUE_AFTER_MS = 4_000;

describe("thousands of reservations due at once, with two servers", {
  skip: need("redis-server").missing,
}, () => {
  it("all expire, none early, while other calls run and one server is killed", async (t) => {
    await using redis = await startRedis({ appendonly: "no" });
    const environment = { REDIS_URL: redis.url };
    await using one = await startAppProcess(environment);
    await using two = await startAppProcess(environment);
    using stack = new DisposableStack();
    const callers = Array.from({ length: CALLERS }, (_, n) => stack.use(new Caller([two.url, one.url], n)));
    const survivor = stack.use(new Caller([two.url]));
    const put = (productId: string, declared: number) =>
      survivor.ask(({ supply }, options) => supply.putProduct({ productId, declared }, options));
    for (let n = 0; n < PRODUCTS; n++) {
      await put(`due-${n}`, 1_000_000);
    }
    await put("other", 1_000_000);

    const dueAt = Date.now() + DUE_AFTER_MS;
    // Through a store in the test, like a third server: thousands per second.
    const store = new RedisStore({ endpoint: { url: redis.url }, log: pino({ level: "silent" }) });
    stack.defer(() => void store.close());
    await store.start(5_000);
    const hold = (n: number) =>
      store.reservations.reserve({
        reservationId: `due-${n}`,
        lines: [0, 1].map((m) => ({ productId: `due-${(n + m) % PRODUCTS}`, quantity: 1 })),
        ttlMs: Math.max(1_000, dueAt - Date.now()),
      });
    for (let n = 0; n < DUE; n += AT_ONCE) {
      // Retried with the same ID if Redis was too busy to reply in time.
      const held = Array.from({ length: AT_ONCE }, (_, m) =>
        until(() => hold(n + m), `due-${n + m} is held`),
      );
      await Promise.all(held);
    }
    const reservedOf = async (productId: string) => {
      const { ledger } = await survivor.ask(({ supply }, options) =>
        supply.getLedger({ productId }, options),
      );
      return ledger?.reserved ?? Number.NaN;
    };
    const allReserved = async (): Promise<number> => {
      const each = await Promise.all(Array.from({ length: PRODUCTS }, (_, n) => reservedOf(`due-${n}`)));
      return each.reduce((sum, reserved) => sum + reserved, 0);
    };
    t.diagnostic(
      `${await allReserved()} of ${2 * DUE} units were held ${dueAt - Date.now()} ms before the deadline`,
    );

    let ended = false;
    let orders = 0;
    const times: { readonly at: number; readonly ms: number }[] = [];
    const shop = async (caller: Caller, worker: number): Promise<void> => {
      for (let n = 0; !ended; n++) {
        const reservationId = `order-${worker}-${n}`;
        const started = performance.now();
        const held = await caller.ask(({ reservations }, options) =>
          reservations.reserve({ reservationId, lines: [{ productId: "other", quantity: 1 }] }, options),
        );
        times.push({ at: Date.now(), ms: performance.now() - started });
        assert.equal(held.reservation?.state, ReservationState.ACTIVE);
        const sold = await caller.ask(({ reservations }, options) =>
          reservations.commitReservation({ reservationId }, options),
        );
        assert.equal(sold.reservation?.state, ReservationState.COMMITTED);
        orders += 1;
      }
    };
    const shoppers = Promise.all(callers.slice(0, 4).map(shop));
    await until(async () => (await allReserved()) < 2 * DUE, "the first have expired", 60_000);
    const leftAtKill = await allReserved();
    await one.kill9();
    await until(async () => (await allReserved()) === 0, "all have expired", 60_000);
    const allExpiredAt = Date.now();
    ended = true;
    await shoppers;

    let latestMs = 0;
    let next = 0;
    const look = async (): Promise<void> => {
      for (let n = next++; n < DUE; n = next++) {
        const { reservation } = await survivor.ask(({ reservations }, options) =>
          reservations.getReservation({ reservationId: `due-${n}` }, options),
        );
        assert.equal(reservation?.state, ReservationState.EXPIRED);
        assert.ok(reservation.endTime && reservation.expireTime);
        const lateMs = timestampMs(reservation.endTime) - timestampMs(reservation.expireTime);
        assert.ok(lateMs >= 0, `due-${n} expired ${-lateMs} ms early`);
        latestMs = Math.max(latestMs, lateMs);
      }
    };
    await Promise.all(Array.from({ length: 32 }, look));
    const { ledger } = await survivor.ask(({ supply }, options) =>
      supply.getLedger({ productId: "other" }, options),
    );
    assert.deepEqual([ledger?.sold, ledger?.reserved], [orders, 0]);
    for (let n = 0; n < PRODUCTS; n++) {
      const { changes } = await survivor.ask(({ supply }, options) =>
        supply.listChanges({ productId: `due-${n}`, pageSize: 100 }, options),
      );
      const expired = changes
        .filter(({ cause }) => cause === ChangeCause.EXPIRED)
        .map((one) => one.referenceId);
      assert.equal(new Set(expired).size, expired.length, "each expired once");
    }
    const during = times.filter(({ at }) => at >= dueAt && at <= allExpiredAt).map(({ ms }) => ms);
    t.diagnostic(
      `the latest expired ${latestMs} ms after its deadline; ${leftAtKill} units were held at the kill`,
    );
    t.diagnostic(`${orders} other orders; Reserve while they expired: ${timesTold(during)}`);
  });
});
