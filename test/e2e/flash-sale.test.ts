import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ReservationState } from "../../gen/inventory/v1/reservation_pb.ts";
import { startAppProcess } from "../support/app.ts";
import { need } from "../support/programs.ts";
import { startRedis } from "../support/redis-server.ts";
import { until } from "../support/until.ts";
import { Caller, reasonsTold, shortageOf, timesTold } from "./callers.ts";

/** Connections per server. Each has as many concurrent streams as the buyers need. */
const SALES = [
  { servers: 1, buyers: 2_000 },
  { servers: 2, buyers: 10_000 },
];
const UNITS = 100;
const CONNECTIONS = 50;
/** All calls start at the same time, so the last one waits for all others. */
const TRY_MS_MAX = 60_000;
const PRODUCT = "the-one-that-all-want";

describe("flash sale over native gRPC", { skip: need("redis-server").missing }, () => {
  for (const { servers, buyers } of SALES) {
    it(`${buyers} buyers for ${UNITS} units, ${servers} server(s): exactly ${UNITS} get one`, async (t) => {
      const streams = buyers / CONNECTIONS;
      // Redis is not restarted here, so that the time of disk writes does not matter.
      await using redis = await startRedis({ appendonly: "no" });
      await using stack = new AsyncDisposableStack();
      const urls: string[] = [];
      for (let n = 0; n < servers; n++) {
        urls.push(stack.use(await startAppProcess({ REDIS_URL: redis.url })).url);
      }
      // Callers start with different servers.
      const callers = Array.from({ length: CONNECTIONS }, (_, n) =>
        stack.use(new Caller(urls, n, TRY_MS_MAX)),
      );
      const [first] = callers;
      assert.ok(first);
      await until(async () => {
        const put = { productId: PRODUCT, declared: UNITS };
        return (await first.server.supply.putProduct(put)).applied;
      }, "the server can be asked");

      const won: string[] = [];
      const lost: string[] = [];
      const times: number[] = [];
      const buy = async (caller: Caller, reservationId: string): Promise<void> => {
        const started = performance.now();
        try {
          const { reservation } = await caller.ask(({ reservations }, options) =>
            reservations.reserve({ reservationId, lines: [{ productId: PRODUCT, quantity: 1 }] }, options),
          );
          assert.equal(reservation?.state, ReservationState.ACTIVE);
          assert.equal(reservation?.reservationId, reservationId);
          won.push(reservationId);
        } catch (error) {
          const lines = shortageOf(error);
          if (lines === undefined) {
            throw error;
          }
          assert.deepEqual(
            lines.map(({ productId, ...line }) => ({
              productId,
              ...line,
              $typeName: undefined,
              $unknown: undefined,
            })),
            [{ productId: PRODUCT, requested: 1, available: 0, $typeName: undefined, $unknown: undefined }],
          );
          lost.push(reservationId);
        }
        times.push(performance.now() - started);
      };
      const started = performance.now();
      await Promise.all(
        callers.flatMap((caller, n) =>
          Array.from({ length: streams }, (_, m) => buy(caller, `buyer-${n * streams + m}`)),
        ),
      );
      const tookMs = Math.round(performance.now() - started);
      const retries = callers.reduce((sum, caller) => sum + caller.retries, 0);
      t.diagnostic(
        `${buyers} buyers were answered in ${tookMs} ms (${timesTold(times)}), ${retries} retries`,
      );
      t.diagnostic(`tried again: ${reasonsTold(callers)}`);
      assert.deepEqual([won.length, lost.length], [UNITS, buyers - UNITS]);

      const ledgerOf = async () => {
        const { ledger } = await first.ask(({ supply }, options) =>
          supply.getLedger({ productId: PRODUCT }, options),
        );
        assert.ok(ledger);
        const { declared, sold, reserved, onHand, available, shortfall, version } = ledger;
        return { declared, sold, reserved, onHand, available, shortfall, version: Number(version) };
      };
      assert.deepEqual(await ledgerOf(), {
        declared: UNITS,
        sold: 0,
        reserved: UNITS,
        onHand: UNITS,
        available: 0,
        shortfall: 0,
        version: UNITS + 1,
      });
      const { reservations } = await first.ask(({ reservations }, options) =>
        reservations.listReservations({ pageSize: 1_000 }, options),
      );
      assert.deepEqual(reservations.map(({ reservationId }) => reservationId).sort(), [...won].sort());

      await Promise.all(
        won.map(async (reservationId, n) => {
          const caller = callers[n % callers.length] ?? first;
          const { reservation } = await caller.ask(({ reservations }, options) =>
            reservations.commitReservation({ reservationId }, options),
          );
          assert.equal(reservation?.state, ReservationState.COMMITTED);
        }),
      );
      assert.deepEqual(await ledgerOf(), {
        declared: UNITS,
        sold: UNITS,
        reserved: 0,
        onHand: 0,
        available: 0,
        shortfall: 0,
        version: 2 * UNITS + 1,
      });
    });
  }
});
