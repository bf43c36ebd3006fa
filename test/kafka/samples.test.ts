import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import type { InventoryStore } from "../../server/inventory/store.ts";
import { applyEvent } from "../../server/kafka/ingest/apply.ts";
import { decodeMessage } from "../../server/kafka/ingest/decode.ts";
import { RecordHeaders } from "../../server/kafka/records/headers.ts";
import { MemoryStore } from "../../server/memory/store.ts";
import { startTestApp } from "../support/app.ts";
import {
  newSeed,
  openStore,
  produce,
  randomFrom,
  shuffle,
  skip,
  startPlatform,
  untilConsumed,
} from "./platform.ts";

interface Sample {
  readonly topic: "product" | "collection";
  readonly key: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly value: Readonly<Record<string, unknown>>;
}

/** The platform's messages, verbatim. */
const samples = readFileSync(join(import.meta.dirname, "product-events.jsonl"), "utf8")
  .trim()
  .split("\n")
  .map((line) => JSON.parse(line) as Sample);

const DRESS = "5f0c8a62-6d0e-4b55-9a58-0d0f8d2b7c11";
const SHIRT = "0b7e1c9e-3a51-4a43-8f6e-6a0c1a7f5e20";
const RECORD_MS = 1_700_000_000_000;

/** The state that the samples define, in any order of delivery. */
async function assertRightLedger(store: InventoryStore): Promise<void> {
  const dress = await store.getLedger(DRESS);
  assert.equal(dress.declared, 100);
  assert.equal(dress.declareTimeMicros, 1_696_698_581_000_219);
  assert.equal(dress.deleted, false);
  const { details, available } = await store.getStock(DRESS);
  assert.equal(available, 100);
  assert.deepEqual(details, {
    name: "Floral Dress",
    description: "A beautiful floral dress.",
    price: 24.99,
    collectionId: "f4059396-09fe-4bda-a620-64f14aca646d",
  });
  assert.equal((await store.getLedger(SHIRT)).deleted, true);
  await assert.rejects(store.getStock(SHIRT), { code: "PRODUCT_UNKNOWN" });
  const legacy = await store.getStock("legacy-1");
  assert.equal(legacy.available, 7);
  assert.equal(legacy.details, undefined);
  assert.deepEqual(await store.listCollections(), [
    {
      collectionId: "f4059396-09fe-4bda-a620-64f14aca646d",
      name: "Spring Collection",
      description: "New arrivals for the Spring season.",
    },
  ]);
}

async function apply(store: InventoryStore, sample: Sample): Promise<void> {
  const message = {
    topic: sample.topic,
    partition: 0,
    offset: "0",
    key: Buffer.from(sample.key),
    value: Buffer.from(JSON.stringify(sample.value)),
    headers: RecordHeaders.of(Object.entries(sample.headers)),
    timestamp: String(RECORD_MS),
  };
  const decoded = decodeMessage(message, sample.topic);
  assert.ok(decoded.kind !== "dead" && decoded.kind !== "tombstone");
  await applyEvent(store, decoded, message);
}

function* permutations<T>(items: readonly T[]): Generator<T[]> {
  if (items.length === 0) {
    yield [];
  }
  for (const [index, item] of items.entries()) {
    for (const rest of permutations(items.toSpliced(index, 1))) {
      yield [item, ...rest];
    }
  }
}

describe("the platform's samples", () => {
  it("give the right ledger in each of their 720 orders, and when each is delivered twice", async () => {
    let orders = 0;
    for (const order of permutations(samples)) {
      const store = new MemoryStore();
      for (const sample of [...order, ...order.toReversed()]) {
        await apply(store, sample);
      }
      await assertRightLedger(store);
      orders += 1;
    }
    assert.equal(orders, 720);
  });

  it("give the right ledger through a real broker into Redis", { skip }, async (t) => {
    const seed = newSeed();
    t.diagnostic(`seed ${seed}`);
    await using platform = await startPlatform();
    await using _app = await startTestApp(platform.environment);
    for (const { topic, key, headers, value } of shuffle([...samples, ...samples], randomFrom(seed))) {
      await produce(platform.kafka, topic, [{ key, headers: { ...headers }, value: JSON.stringify(value) }]);
    }
    await untilConsumed(platform.kafka);
    await using store = await openStore(platform);
    await assertRightLedger(store);
  });
});
