import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import {
  ReservationService,
  ReservationState,
  ShortageSchema,
} from "../../gen/inventory/v1/reservation_pb.ts";
import { StockService } from "../../gen/inventory/v1/stock_pb.ts";
import { SupplyService } from "../../gen/inventory/v1/supply_pb.ts";
import { InventoryError } from "../../server/inventory/errors.ts";
import type { ReserveRequest } from "../../server/inventory/store.ts";
import { Mirror } from "../../server/live/mirror.ts";
import { SoldOutGate } from "../../server/live/sold-out-gate.ts";
import { MemoryStore } from "../../server/memory/store.ts";
import { startTestApp, type TestApp } from "../support/app.ts";
import { need } from "../support/programs.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";
import { scrape } from "../support/scrape.ts";
import { until } from "../support/until.ts";

const AGE_MS = 100;
const TTL_MS = 600_000;

/** A gate in front of a memory store, with a clock of its own. Products have one unit, which `sell` reserves. */
class Setup {
  readonly store = new MemoryStore();
  readonly mirror = new Mirror();
  /** IDs of the calls that reached the store. */
  readonly sent: string[] = [];
  readonly gate: SoldOutGate;
  nowMs = 0;
  /** If set, calls reach the store when it resolves. */
  held: Promise<void> | undefined;

  constructor(ageMsMax = AGE_MS) {
    const { reservations } = this.store;
    this.gate = new SoldOutGate({
      mirror: this.mirror,
      reservations: {
        reserve: async (request) => {
          this.sent.push(request.reservationId);
          await this.held;
          return reservations.reserve(request);
        },
        findKnown: (ids) => reservations.findKnown(ids),
      },
      ageMsMax,
      now: () => this.nowMs,
    });
    this.store.feed.start(this.mirror);
  }

  async put(...productIds: string[]): Promise<void> {
    for (const productId of productIds) {
      await this.store.putProduct({ productId, declared: 1, details: undefined, updateTimeMicros: 1 });
    }
    await this.untilDelivered(...productIds);
  }

  /** Reserves the unit under the ID `sold`, and has the store refuse another reservation. */
  async sell(productId: string): Promise<void> {
    await this.gate.reserve(request("sold", productId));
    await this.refused("first", productId);
    await this.untilDelivered(productId);
    this.sent.length = 0;
  }

  async refused(reservationId: string, ...productIds: string[]): Promise<InventoryError> {
    const error = await this.gate.reserve(request(reservationId, ...productIds)).then(
      () => assert.fail(`${reservationId} was reserved`),
      (reason: unknown) => reason,
    );
    assert.ok(error instanceof InventoryError && error.code === "STOCK_SHORT", String(error));
    return error;
  }

  async untilDelivered(...productIds: string[]): Promise<void> {
    for (const productId of productIds) {
      const { version } = await this.store.getLedger(productId);
      await until(() => this.mirror.get(productId)?.version === version, `the mirror has ${productId}`);
    }
  }
}

function request(reservationId: string, ...productIds: string[]): ReserveRequest {
  return { reservationId, lines: productIds.map((productId) => ({ productId, quantity: 1 })), ttlMs: TTL_MS };
}

describe("the gate of sold-out products", () => {
  it("refuses what the store has just refused, without running it there", async () => {
    const setup = new Setup();
    await setup.put("p");
    await setup.sell("p");
    setup.nowMs = AGE_MS / 2 - 1;
    const errors = await Promise.all(Array.from({ length: 20 }, (_, n) => setup.refused(`r${n}`, "p")));
    assert.deepEqual(setup.sent, []);
    assert.deepEqual(errors[0]?.shortage, [{ productId: "p", requested: 1, available: 0 }]);
    assert.equal(setup.gate.refusals, 20);
  });

  it("names the quantity of each call", async () => {
    const setup = new Setup();
    await setup.put("p", "q");
    await setup.sell("p");
    const requested = async (id: string, quantity: number, ...others: string[]) => {
      const lines = [
        { productId: "p", quantity },
        ...others.map((productId) => ({ productId, quantity: 1 })),
      ];
      const refused = setup.gate.reserve({ ...request(id), lines });
      await assert.rejects(refused, {
        message: `Cannot reserve ${quantity} of "p": 0 are available`,
        shortage: [{ productId: "p", requested: quantity, available: 0 }],
      });
    };
    await Promise.all([
      requested("a", 1),
      requested("b", 2),
      requested("c", 2, "q"),
      requested("d", 1),
      requested("e", 3),
    ]);
    assert.deepEqual(setup.sent, []);
  });

  it("sends a repetition of a known ID to the store", async () => {
    const setup = new Setup();
    await setup.put("p");
    await setup.sell("p");
    const [again] = await Promise.all([
      setup.gate.reserve(request("sold", "p")),
      setup.refused("other", "p"),
    ]);
    assert.equal(again.state, "active");
    await assert.rejects(setup.gate.reserve(request("sold", "p", "q")), { code: "ID_REUSED" });
    assert.deepEqual(setup.sent, ["sold", "sold"]);
  });

  it("sends a repetition of a call that is in flight to the store", async () => {
    const setup = new Setup();
    await setup.put("p");
    await setup.sell("p");
    const { promise, resolve } = Promise.withResolvers<void>();
    setup.held = promise;
    // The first call is the probe.
    setup.nowMs = AGE_MS / 2;
    const first = setup.refused("r", "p");
    const again = setup.refused("r", "p");
    await until(() => setup.sent.length === 2, "both are sent");
    resolve();
    await Promise.all([first, again]);
    assert.deepEqual(setup.sent, ["r", "r"]);
  });

  it("opens at once when the change stream delivers units", async () => {
    const setup = new Setup();
    await setup.put("p");
    await setup.sell("p");
    await setup.store.reservations.release("sold");
    await setup.untilDelivered("p");
    await setup.gate.reserve(request("next", "p"));
    assert.deepEqual(setup.sent, ["next"]);
  });

  it("opens at once when this server has acknowledged a newer version", async () => {
    const setup = new Setup();
    await setup.put("p");
    await setup.sell("p");
    setup.mirror.expect("p", Number((await setup.store.getLedger("p")).version) + 1);
    await setup.refused("next", "p");
    assert.deepEqual(setup.sent, ["next"]);
  });

  it("stays closed over a newer version that has no units", async () => {
    const setup = new Setup();
    await setup.put("p");
    await setup.sell("p");
    await setup.store.reservations.commit({ reservationId: "sold", lines: undefined, strict: false });
    await setup.untilDelivered("p");
    await setup.refused("next", "p");
    assert.deepEqual(setup.sent, []);
  });

  it("asks the store when the product was deleted", async () => {
    const setup = new Setup();
    await setup.put("p");
    await setup.sell("p");
    await setup.store.deleteProduct({ productId: "p", updateTimeMicros: 2 });
    await until(() => setup.mirror.get("p") === undefined, "the mirror has the deletion");
    await assert.rejects(setup.gate.reserve(request("next", "p")), { code: "PRODUCT_UNKNOWN" });
  });

  it("sends one probe in the second half of its time, whose refusal restarts it", async () => {
    const setup = new Setup();
    await setup.put("p");
    await setup.sell("p");
    setup.nowMs = AGE_MS / 2;
    await Promise.all([setup.refused("probe", "p"), setup.refused("a", "p"), setup.refused("b", "p")]);
    assert.deepEqual(setup.sent, ["probe"]);
    setup.nowMs = AGE_MS - 1;
    await setup.refused("c", "p");
    setup.nowMs = AGE_MS;
    await setup.refused("probe 2", "p");
    assert.deepEqual(setup.sent, ["probe", "probe 2"]);
  });

  it("sends every call once its time is over", async () => {
    const setup = new Setup();
    await setup.put("p");
    await setup.sell("p");
    setup.nowMs = AGE_MS;
    await Promise.all([setup.refused("a", "p"), setup.refused("b", "p")]);
    assert.deepEqual(setup.sent, ["a", "b"]);
  });

  it("refuses a cart with a sold-out line, and names that line", async () => {
    const setup = new Setup();
    await setup.put("p", "q");
    await setup.sell("p");
    const { shortage } = await setup.refused("cart", "q", "p");
    assert.deepEqual(
      shortage.map(({ productId }) => productId),
      ["p"],
    );
    await setup.gate.reserve(request("q alone", "q"));
    assert.deepEqual(setup.sent, ["q alone"]);
  });

  it("does not close while units are left", async () => {
    const setup = new Setup();
    await setup.put("p");
    await assert.rejects(
      setup.gate.reserve({ reservationId: "two", lines: [{ productId: "p", quantity: 2 }], ttlMs: TTL_MS }),
      { code: "STOCK_SHORT" },
    );
    await setup.gate.reserve(request("one", "p"));
  });

  it("sends every call if it is off", async () => {
    const setup = new Setup(0);
    await setup.put("p");
    await setup.sell("p");
    await setup.refused("next", "p");
    assert.deepEqual(setup.sent, ["next"]);
  });
});

const skip = need("redis-server").missing;

describe("two servers with gates on one Redis", { skip }, () => {
  let redis: RedisServer;
  let one: TestApp;
  let other: TestApp;

  before(async () => {
    redis = await startRedis();
    const environment = { REDIS_URL: redis.url, INVENTORY_SOLD_OUT_MS: "1000", ADMIN_PORT: "0" };
    [one, other] = await Promise.all([startTestApp(environment), startTestApp(environment)]);
  });
  after(async () => {
    await Promise.all([one.stop(), other.stop()]);
    await redis.stop();
  });

  const clients = ({ url }: TestApp) => {
    const transport = createGrpcTransport({ baseUrl: url });
    return {
      orders: createClient(ReservationService, transport),
      supply: createClient(SupplyService, transport),
      stock: createClient(StockService, transport),
    };
  };
  const order = (reservationId: string, quantity = 1) => ({
    reservationId,
    lines: [{ productId: "p", quantity }],
  });
  const assertShort = (error: unknown, quantity = 1): true => {
    const refusal = ConnectError.from(error);
    assert.equal(refusal.code, Code.FailedPrecondition);
    const lines = refusal.findDetails(ShortageSchema).flatMap((shortage) => shortage.lines);
    assert.deepEqual(
      lines.map(({ productId, requested, available }) => [productId, requested, available]),
      [["p", quantity, 0]],
    );
    return true;
  };

  it("give a repeated order its reservation, and sell what the other server has released", async () => {
    const [a, b] = [clients(one), clients(other)];
    await a.supply.putProduct({ productId: "p", declared: 1, updateTime: { seconds: 1n, nanos: 0 } });
    await a.orders.reserve(order("winner"));
    await assert.rejects(b.orders.reserve(order("loser")), (error) => assertShort(error));
    // The mirror of this server must have the sold-out state: before that the gate stays open.
    await until(
      async () => (await b.stock.getStock({ productId: "p" })).stock?.available === 0,
      "0 available",
    );
    await until(async () => {
      // The store refuses the first one. Of those that follow it, one may be a probe.
      await assert.rejects(b.orders.reserve(order(`first ${performance.now()}`)), (error) =>
        assertShort(error),
      );
      await Promise.all(
        [1, 2, 1, 2, 3].map((quantity, n) =>
          assert.rejects(b.orders.reserve(order(`loser ${n} ${performance.now()}`, quantity)), (error) =>
            assertShort(error, quantity),
          ),
        ),
      );
      return ((await scrape(other.adminUrl)).value("inventory_sold_out_refusals_total") ?? 0) > 0;
    }, "the gate refuses");
    const { reservation } = await b.orders.reserve(order("winner"));
    assert.equal(reservation?.state, ReservationState.ACTIVE);
    await a.orders.releaseReservation({ reservationId: "winner" });
    await until(
      async () => (await b.stock.getStock({ productId: "p" })).stock?.available === 1,
      "1 available",
    );
    assert.equal((await b.orders.reserve(order("next"))).reservation?.state, ReservationState.ACTIVE);
  });
});
