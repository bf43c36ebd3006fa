import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import type { Message } from "kafkajs";
import { InventoryError } from "../../server/inventory/errors.ts";
import type { RedisStore } from "../../server/redis/store.ts";
import { startTestApp, type TestApp } from "../support/app.ts";
import { scrape } from "../support/scrape.ts";
import { until } from "../support/until.ts";
import {
  DEAD_LETTERS,
  headerOf,
  openStore,
  type Platform,
  produce,
  productMessage,
  readTopic,
  skip,
  startPlatform,
  untilConsumed,
} from "./platform.ts";

const QUANTITY_MAX = 2_147_483_647;
/** The rows' first update. */
const CREATED = "2023-10-07T17:04:05.123456Z";
const EDITED = "2023-10-07T17:04:06.123456Z";
const DELETED = "2023-10-07T17:04:07.123456Z";

/** Far above what it takes: reading a topic needs a new member of a group, and the machine may be busy. */
const PUBLISHED_MS_MAX = 60_000;

describe("what the Products service sends", { skip }, () => {
  let platform: Platform;
  let app: TestApp;
  let store: RedisStore & AsyncDisposable;

  before(async () => {
    platform = await startPlatform();
    app = await startTestApp(platform.environment);
    store = await openStore(platform);
  });
  after(async () => {
    await store?.[Symbol.asyncDispose]();
    await app?.[Symbol.asyncDispose]();
    await platform?.[Symbol.asyncDispose]();
  });

  /** Sends messages one after the other, all of one key, and waits until they are processed. */
  async function deliver(topic: "product" | "collection", ...messages: Message[]): Promise<void> {
    for (const message of messages) {
      await produce(platform.kafka, topic, [{ ...message, key: "one" }]);
    }
    await untilConsumed(platform.kafka);
  }

  /** Reason and detail of the dead letters whose value contains a text. */
  async function lettersOf(text: string): Promise<{ reason: string; detail: string }[]> {
    const letters = (await readTopic(platform.kafka, DEAD_LETTERS)).filter(({ value }) =>
      String(value).includes(text),
    );
    return letters.map((letter) => ({
      reason: headerOf(letter, "inventory-dead-letter-reason") ?? "",
      detail: headerOf(letter, "inventory-dead-letter-detail") ?? "",
    }));
  }

  async function events(topic: "product" | "collection", outcome: string): Promise<number> {
    return (await scrape(app.adminUrl ?? "")).value("inventory_events_total", { topic, outcome }) ?? 0;
  }

  const row = (id: string, more: object = {}): object => ({
    id,
    updatedAt: CREATED,
    name: "Dress",
    description: "A dress.",
    price: 30,
    inventory: 50,
    collectionId: "",
    ...more,
  });

  it("a change names the topic of its event, or its caller, in the history and in the topic inventory", async () => {
    const productId = "named";
    await deliver("product", productMessage("Create", row(productId)));
    const lines = [{ productId, quantity: 2 }];
    await store.reservations.reserve({ reservationId: "o-named", lines, ttlMs: 600_000, actor: "orders" });
    const page = { limit: 10, beforeVersion: undefined };
    const history = (await store.listChanges(productId, page)).map(({ actor }) => actor);
    assert.deepEqual(history, ["orders", "kafka:product"]);
    const published = await until(
      async () => {
        const messages = (await readTopic(platform.kafka, "inventory")).filter(
          ({ key }) => String(key) === productId,
        );
        return messages.length === 2 && messages.map(({ value }) => JSON.parse(String(value)).actor);
      },
      "both changes are published",
      PUBLISHED_MS_MAX,
    );
    assert.deepEqual(published, ["kafka:product", "orders"]);
  });

  describe("a fault in one half of an event", () => {
    it("in the details leaves the stock applied, and makes one dead letter with the reason", async () => {
      const before = await events("product", "partial");
      await deliver(
        "product",
        productMessage("Create", row("half-1")),
        productMessage("Update", row("half-1", { updatedAt: EDITED, inventory: 7, price: -1 })),
      );
      const { available, details } = await store.getStock("half-1");
      assert.deepEqual([available, details?.price], [7, 30]);
      const [letter, ...others] = await lettersOf("half-1");
      assert.deepEqual([letter?.reason, others.length], ["bad-details", 0]);
      assert.match(letter?.detail ?? "", /price is -1.*the rest was applied/);
      assert.equal((await events("product", "partial")) - before, 1);
    });

    it("in the stock leaves the details applied, also those of later events", async () => {
      const later = { updatedAt: "2023-10-07T17:04:08Z", inventory: -1, price: 21 };
      await deliver(
        "product",
        productMessage("Create", row("half-2")),
        productMessage("Update", row("half-2", { updatedAt: EDITED, inventory: -1, price: 20 })),
        productMessage("Update", row("half-2", later)),
      );
      const { available, details } = await store.getStock("half-2");
      assert.deepEqual([available, details?.price], [50, 21]);
      const letters = await lettersOf("half-2");
      assert.deepEqual(
        letters.map(({ reason }) => reason),
        ["bad-stock", "bad-stock"],
      );
    });

    it("that only the ledger shows leaves the details applied", async () => {
      await deliver("product", productMessage("Create", row("half-3", { inventory: 0 })));
      const found = { productId: "half-3", delta: 1, adjustmentId: "found-half-3", reason: "" };
      await store.adjustStock(found);
      const update = row("half-3", { updatedAt: EDITED, inventory: QUANTITY_MAX, price: 20 });
      await deliver("product", productMessage("Update", update));
      const { available, details } = await store.getStock("half-3");
      assert.deepEqual([available, details?.price], [1, 20]);
      assert.deepEqual(
        (await lettersOf("half-3")).map(({ reason }) => reason),
        ["bad-stock"],
      );
    });
  });

  describe("events of the same time", () => {
    /** The upstream service changes `updatedAt` of products only. */
    const collection = { id: "col-1", name: "Spring", description: "", updatedAt: CREATED };
    const nameOf = async (id: string) =>
      (await store.listCollections()).find(({ collectionId }) => collectionId === id)?.name;
    const at = (message: Message, ms: number): Message => ({ ...message, timestamp: String(ms) });
    const base = 1_700_000_000_000;

    it("rename a collection in the order of their records, and count a repetition as stale", async () => {
      const [applied, stale] = [await events("collection", "applied"), await events("collection", "stale")];
      const renamed = productMessage("Update", { ...collection, name: "Summer" });
      await deliver("collection", productMessage("Create", collection), renamed, renamed);
      assert.equal(await nameOf("col-1"), "Summer");
      assert.equal((await events("collection", "applied")) - applied, 2);
      assert.equal((await events("collection", "stale")) - stale, 1);
    });

    it("are ordered by the records' timestamps, whatever the order of arrival", async () => {
      const late = { ...collection, id: "col-2" };
      await deliver(
        "collection",
        at(productMessage("Update", { ...late, name: "Second" }), base + 1),
        at(productMessage("Create", { ...late, name: "First" }), base),
      );
      assert.equal(await nameOf("col-2"), "Second");
      await deliver(
        "product",
        at(productMessage("Update", row("tie", { inventory: 9, price: 9 })), base + 1),
        at(productMessage("Create", row("tie", { inventory: 8, price: 8 })), base),
      );
      const { available, details } = await store.getStock("tie");
      assert.deepEqual([available, details?.price], [9, 9]);
    });

    it("and of the same timestamp are ordered by offset", async () => {
      await deliver(
        "product",
        at(productMessage("Create", row("offset", { inventory: 8, price: 8 })), base),
        at(productMessage("Update", row("offset", { inventory: 9, price: 9 })), base),
      );
      const { available, details } = await store.getStock("offset");
      assert.deepEqual([available, details?.price], [9, 9]);
    });

    it("that were sent again are stale, and make no change of stock", async () => {
      const message = productMessage("Create", row("again"));
      await deliver("product", message);
      const { version } = await store.getLedger("again");
      const [applied, stale] = [await events("product", "applied"), await events("product", "stale")];
      const deletion = productMessage("Delete", { id: "again-gone", updatedAt: CREATED });
      await deliver("product", message, message, deletion, deletion);
      assert.equal((await events("product", "applied")) - applied, 1);
      assert.equal((await events("product", "stale")) - stale, 3);
      assert.equal((await store.getLedger("again")).version, version);
    });
  });

  describe("deletedAt", () => {
    it("of an Update deletes the product, as of the later time", async () => {
      await deliver(
        "product",
        productMessage("Create", row("gone-1", { inventory: 46 })),
        productMessage("Update", row("gone-1", { inventory: 46, deletedAt: DELETED })),
        productMessage("Update", row("gone-1", { updatedAt: EDITED })),
      );
      await assert.rejects(store.getStock("gone-1"), isUnknown);
      await deliver(
        "product",
        productMessage("Update", row("gone-1", { updatedAt: "2023-10-07T17:04:08Z" })),
      );
      assert.equal((await store.getStock("gone-1")).available, 50);
    });

    it("of a collection's Update deletes the collection, and its products stay", async () => {
      const value = { id: "col-gone", name: "Spring", description: "", updatedAt: CREATED };
      await deliver("collection", productMessage("Create", value));
      await deliver("product", productMessage("Create", row("in-col-gone", { collectionId: "col-gone" })));
      await deliver("collection", productMessage("Update", { ...value, deletedAt: DELETED }));
      assert.equal(
        (await store.listCollections()).some(({ collectionId }) => collectionId === "col-gone"),
        false,
      );
      const { available, details } = await store.getStock("in-col-gone");
      assert.deepEqual([available, details?.collectionId], [50, "col-gone"]);
    });
  });

  it("tombstones change nothing, are counted as such, and make no dead letters", async () => {
    const [applied, stale, letters] = [
      await events("product", "applied"),
      await events("product", "stale"),
      (await readTopic(platform.kafka, DEAD_LETTERS)).length,
    ];
    await deliver("product", productMessage("Create", row("tomb")));
    await produce(platform.kafka, "product", [
      { key: "tomb", value: null },
      { key: null, value: null },
      { key: "tomb", headers: { MessageType: "Delete" }, value: null },
    ]);
    await produce(platform.kafka, "collection", [{ key: "c", value: null }]);
    await untilConsumed(platform.kafka);
    assert.equal((await store.getStock("tomb")).available, 50);
    assert.equal(await events("product", "tombstone"), 3);
    assert.equal(await events("collection", "tombstone"), 1);
    assert.equal(await events("product", "applied"), applied + 1);
    assert.equal(await events("product", "stale"), stale);
    assert.equal((await readTopic(platform.kafka, DEAD_LETTERS)).length, letters);
  });
});

function isUnknown(error: unknown): boolean {
  return error instanceof InventoryError && error.code === "PRODUCT_UNKNOWN";
}
