import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setTimeout as wait } from "node:timers/promises";
import { startAppProcess } from "../support/app.ts";
import { until } from "../support/until.ts";
import {
  findDisorder,
  newSeed,
  openStore,
  produce,
  productMessage,
  randomFrom,
  readTopic,
  skip,
  startPlatform,
  untilConsumed,
  untilMembers,
} from "./platform.ts";
import { Seller } from "./seller.ts";
import { Shoppers } from "./shoppers.ts";

const PRODUCTS = 50;
const SHOPPERS = 4;
const EVENTS_PER_SEND = 50;
/** Some thousand events and purchases in all: this test is about kills, not about load. */
const SEND_INTERVAL_MS = 100;
const PURCHASE_INTERVAL_MS = 20;
/** KAFKA_TEST_ROUNDS=10 is the longer form. */
const ROUNDS = Number(process.env["KAFKA_TEST_ROUNDS"] ?? 1);
const SETTLE_MS_MAX = 60_000;

describe("kill -9 while both directions run", { skip }, () => {
  it("of the broker, Redis and the server loses and duplicates nothing", async (t) => {
    const seed = newSeed();
    t.diagnostic(`seed ${seed}`);
    const random = randomFrom(seed);
    await using platform = await startPlatform({ durable: true });
    const { kafka, broker, redis } = platform;
    await using app = await startAppProcess(platform.environment);
    const productIds = Array.from({ length: PRODUCTS }, (_, n) => `product-${n}`);
    const seller = new Seller(productIds, random, Date.now() - 3_600_000);
    let events = 0;
    let selling = true;
    const sales = (async () => {
      while (selling || seller.told.size < PRODUCTS) {
        await produce(
          kafka,
          "product",
          Array.from({ length: EVENTS_PER_SEND }, () => seller.next()),
        );
        events += EVENTS_PER_SEND;
        await wait(SEND_INTERVAL_MS);
      }
    })();
    const shoppers = new Shoppers(
      [app.url],
      SHOPPERS,
      () => productIds[random(PRODUCTS)] ?? "",
      PURCHASE_INTERVAL_MS,
    );
    const untilBothMove = async (after: string) => {
      const [sold, bought] = [events, shoppers.purchases];
      await until(
        () => events > sold + EVENTS_PER_SEND && shoppers.purchases > bought + 20,
        `sellers and shoppers continue ${after}`,
        SETTLE_MS_MAX,
      );
    };

    const kills = {
      "the broker": () => broker.restart(),
      Redis: () => redis.restart(),
      "the server": () => app.restart(),
    };
    await untilBothMove("at first");
    for (let round = 0; round < ROUNDS; round++) {
      for (const [name, killAndRestart] of Object.entries(kills)) {
        const start = performance.now();
        await killAndRestart();
        await untilBothMove(`after ${name} was killed`);
        t.diagnostic(`${name}: everything resumed after ${Math.round(performance.now() - start)} ms`);
      }
    }
    selling = false;
    await sales;
    await untilConsumed(kafka, SETTLE_MS_MAX);
    await shoppers.stop();
    t.diagnostic(`${events} events, ${shoppers.purchases} purchases, ${shoppers.retries} calls retried`);

    await using store = await openStore(platform);
    const newest = new Map<string, number>();
    for (const [productId, told] of seller.told) {
      const ledger = await store.getLedger(productId);
      newest.set(productId, ledger.version);
      assert.equal(ledger.declared, told.declared, productId);
      assert.equal(ledger.declareTimeMicros, told.declareTimeMicros, productId);
      assert.equal(ledger.deleted, told.deleted, productId);
      assert.equal(ledger.sold, shoppers.bought.get(productId) ?? 0, productId);
      assert.equal(ledger.reserved, 0, productId);
    }
    await until(
      async () => findDisorder(await readTopic(kafka, "inventory"), newest).length === 0,
      "every version of every product is in the topic, in order",
      SETTLE_MS_MAX,
    );
    const published = await readTopic(kafka, "inventory");
    const versions = [...newest.values()].reduce((sum, version) => sum + version, 0);
    t.diagnostic(`${versions} versions, ${published.length - versions} published more than once`);

    await t.test(
      "with Redis unavailable for longer, events wait, the member stays in the group, and then all are applied",
      async () => {
        const members = await untilMembers(kafka, 1);
        await redis.kill9();
        await produce(kafka, "product", [productMessage("Update", { id: "patient", quantity: 3 })]);
        const report = async () => {
          const answer = await fetch(`${app.url}/readyz`);
          return (await answer.json()) as {
            ready: boolean;
            degraded: string[];
            details: { kafka: { ingest: { lagMessages: number; lagSeconds: number } } };
          };
        };
        const waiting = await until(
          async () => {
            const found = await report();
            const { ingest } = found.details.kafka;
            // Longer than the session timeout.
            return ingest.lagSeconds > 7 && ingest.lagMessages === 1 && found;
          },
          "the event waits for longer than a session",
          SETTLE_MS_MAX,
        );
        assert.match(
          waiting.degraded.join(),
          /Sellers' events are not applied: The stock store is unavailable/,
        );
        assert.equal(waiting.ready, false, "without Redis there is no stock to report");
        await redis.restart();
        await untilConsumed(kafka);
        assert.deepEqual(await untilMembers(kafka, 1), members);
        // The test's own store may reconnect later than the server.
        const { declared } = await until(() => store.getLedger("patient"), "the store answers");
        assert.equal(declared, 3);
        await until(async () => (await report()).degraded.length === 0, "nothing is degraded", SETTLE_MS_MAX);
      },
    );
  });
});
