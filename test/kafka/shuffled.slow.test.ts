import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { InventoryStore } from "../../server/inventory/store.ts";
import { startAppProcess } from "../support/app.ts";
import { until } from "../support/until.ts";
import {
  findDisorder,
  newSeed,
  openStore,
  produce,
  randomFrom,
  readTopic,
  shuffle,
  skip,
  startPlatform,
  untilConsumed,
  untilMembers,
} from "./platform.ts";
import { Seller } from "./seller.ts";
import { Shoppers } from "./shoppers.ts";

/** KAFKA_TEST_EVENTS=20000 is the longer form. */
const EVENTS = Number(process.env["KAFKA_TEST_EVENTS"] ?? 8_000);
const PRODUCTS = 500;
const SHOPPERS = 8;
const PURCHASE_INTERVAL_MS = 20;
/** One event in this many is delivered twice. */
const TWICE_IN = 10;
const SETTLE_MS_MAX = 120_000;

describe("events in any order, some twice, over two servers of which one is killed", { skip }, () => {
  it("result in the state that the newest event of each product and the purchases define", async (t) => {
    const seed = newSeed();
    t.diagnostic(`seed ${seed}`);
    const random = randomFrom(seed);
    await using platform = await startPlatform();
    const { kafka } = platform;
    await using first = await startAppProcess(platform.environment);
    await using second = await startAppProcess(platform.environment);
    await using store = await openStore(platform);

    const productIds = Array.from({ length: PRODUCTS }, (_, n) => `product-${n}`);
    const seller = new Seller(productIds, random, Date.now() - 3_600_000);
    const once = Array.from({ length: EVENTS }, () => seller.next());
    const all = shuffle([...once, ...once.filter((_, n) => n % TWICE_IN === 0)], random);
    const shoppers = new Shoppers(
      [first.url, second.url],
      SHOPPERS,
      () => productIds[random(PRODUCTS)] ?? "",
      PURCHASE_INTERVAL_MS,
    );

    await untilMembers(kafka, 2);
    const start = performance.now();
    const third = Math.floor(all.length / 3);
    await produce(kafka, "product", all.slice(0, third));
    await until(() => shoppers.purchases > 0, "shoppers buy", SETTLE_MS_MAX);
    const producing = produce(kafka, "product", all.slice(third));
    await second.kill9();
    const before = shoppers.purchases;
    await until(() => shoppers.purchases > before + 20, "shoppers go on with one server", SETTLE_MS_MAX);
    await second.restart();
    await producing;
    await untilConsumed(kafka, SETTLE_MS_MAX);
    const tookMs = performance.now() - start;
    await shoppers.stop();
    t.diagnostic(
      `${all.length} events and ${shoppers.purchases} purchases in ${Math.round(tookMs)} ms; ` +
        `${shoppers.refused} refused, ${shoppers.retries} calls repeated`,
    );

    const newest = await assertState(store, seller, shoppers);
    const outbox = async () => findDisorder(await readTopic(kafka, "inventory"), newest);
    const wrong = await until(
      async () => {
        const found = await outbox();
        return found.length === 0 && found;
      },
      "every version of every product is published in order",
      SETTLE_MS_MAX,
    );
    assert.deepEqual(wrong, []);
  });
});

/** Returns the newest version of each product. */
async function assertState(
  store: InventoryStore,
  seller: Seller,
  shoppers: Shoppers,
): Promise<Map<string, number>> {
  const newest = new Map<string, number>();
  assert.equal(seller.told.size, PRODUCTS);
  for (const [productId, told] of seller.told) {
    const ledger = await store.getLedger(productId);
    newest.set(productId, ledger.version);
    assert.equal(ledger.declared, told.declared, productId);
    assert.equal(ledger.declareTimeMicros, told.declareTimeMicros, productId);
    assert.equal(ledger.deleted, told.deleted, productId);
    assert.equal(ledger.sold, shoppers.bought.get(productId) ?? 0, productId);
    assert.equal(ledger.reserved, 0, productId);
    if (!told.deleted) {
      const stock = await store.getStock(productId);
      assert.equal(stock.details?.name, told.name, productId);
      assert.equal(stock.available, told.declared - ledger.sold, productId);
    }
  }
  return newest;
}
