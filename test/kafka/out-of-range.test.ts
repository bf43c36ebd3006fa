import assert from "node:assert/strict";
import { it } from "node:test";
import { pino } from "pino";
import { QUANTITY_MAX } from "../../server/inventory/ledger.ts";
import type { DeadLetterSender } from "../../server/kafka/dead-letters/dead-letter-sender.ts";
import type { DeadLetter } from "../../server/kafka/dead-letters/dead-letters.ts";
import { EventProcessor } from "../../server/kafka/ingest/event-processor.ts";
import { LargeMessageDecoder } from "../../server/kafka/ingest/large-messages.ts";
import { LoopBudget } from "../../server/kafka/ingest/loop-budget.ts";
import type { PartitionReader } from "../../server/kafka/ingest/partition-reader.ts";
import { RecordHeaders } from "../../server/kafka/records/headers.ts";
import { MemoryStore } from "../../server/memory/store.ts";
import { createMetrics } from "../../server/ops/metrics.ts";

it("an event that takes on hand above int32 is a dead letter at once, and does not delay others", async () => {
  const store = new MemoryStore();
  const productId = "full";
  await store.putProduct({ productId, declared: 0, details: undefined, updateTimeMicros: 1 });
  const received = { productId, delta: QUANTITY_MAX, adjustmentId: "received", reason: "" };
  await store.adjustStock(received);
  const letters: DeadLetter[] = [];
  const decoder = new LargeMessageDecoder();
  const processor = new EventProcessor({
    store,
    deadLetters: {
      send: async (sent: DeadLetter[]) => void letters.push(...sent),
    } as unknown as DeadLetterSender,
    decoder,
    budget: new LoopBudget(),
    subjects: new Map(),
    group: "test",
    faultMs: 60_000,
    metrics: createMetrics(),
    log: pino({ level: "silent" }),
  });
  const message = (offset: number, id: string, inventory: number) => ({
    topic: "product",
    partition: 0,
    offset: String(offset),
    key: Buffer.from(id),
    value: Buffer.from(JSON.stringify({ id, inventory })),
    headers: RecordHeaders.of([["MessageType", "Update"]]),
    timestamp: "1700000000000",
  });
  const messages = [message(0, productId, 1), message(1, "other", 5)];
  const reader = { setTrouble() {} } as unknown as PartitionReader;
  await processor.process(
    { messages, unreadable: undefined, next: 2n },
    reader,
    new AbortController().signal,
  );
  assert.deepEqual(
    letters.map(({ reason, detail }) => [reason, detail.slice(0, 28)]),
    [["bad-stock", 'Cannot declare 1 of "full": ']],
  );
  assert.equal((await store.getLedger(productId)).declared, 0);
  assert.equal((await store.getLedger("other")).declared, 5);
  await decoder.close();
});
