import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import fc from "fast-check";
import { originOf } from "../../server/kafka/dead-letters/dead-letters.ts";
import { BrokerError } from "../../server/kafka/kafkajs/errors.ts";
import { scrape } from "../support/scrape.ts";
import { assertKeepsOriginal, type Isolation, recordsOf, startIsolation } from "./isolation.ts";
import { newSeed, skip } from "./platform.ts";
import { CODECS, produceRaw, type RawHeader, type RawRecord } from "./raw-producer.ts";

/** KAFKA_TEST_RUNS=1000 is the longer form. */
const RUNS = Number(process.env["KAFKA_TEST_RUNS"] ?? 40);
/** As in isolation.slow.test.ts: far above the aim of 50 ms, and far below what a quadratic algorithm takes. */
const DELAY_MS_MAX = 1_000;

const COLLIDING = [
  "__proto__",
  "constructor",
  "prototype",
  "hasOwnProperty",
  "toString",
  "then",
  "length",
  "MessageType",
];

const bytes = (maxLength: number) =>
  fc.uint8Array({ maxLength, size: "max" }).map((array) => Buffer.from(array));
/** Long values of few different bytes, which the generator would take too long to make one by one. */
const longBytes = fc
  .tuple(fc.integer({ min: 1, max: 700_000 }), bytes(8))
  .map(([length, pattern]) => Buffer.alloc(length, pattern.length === 0 ? 0x5b : pattern));

const headerValue: fc.Arbitrary<Buffer | null> = fc.option(
  fc.oneof({ weight: 20, arbitrary: bytes(50) }, { weight: 1, arbitrary: longBytes }) as fc.Arbitrary<Buffer>,
);
const header: fc.Arbitrary<RawHeader> = fc.tuple(
  fc.oneof(
    bytes(20),
    fc.constantFrom(...COLLIDING).map((name) => Buffer.from(name)),
  ),
  headerValue,
);
const messageType: fc.Arbitrary<RawHeader> = fc
  .constantFrom("Create", "Update", "Update", "Update", "Delete", "Upsert")
  .map((type) => [Buffer.from("MessageType"), Buffer.from(type)]);
const manyHeaders: fc.Arbitrary<RawHeader[]> = fc
  .tuple(fc.integer({ min: 1, max: 20_000 }), fc.boolean())
  .map(([count, areEqual]) =>
    Array.from({ length: count }, (_, i): RawHeader => [Buffer.from(areEqual ? "h" : `h${i}`), null]),
  );
const headers = fc
  .tuple(
    fc.oneof(
      { weight: 20, arbitrary: fc.array(header, { maxLength: 20 }) },
      { weight: 1, arbitrary: manyHeaders },
    ),
    fc.option(messageType, { freq: 8 }),
  )
  .map(([others, type]) => (type === null ? others : [...others, type]));

const field = fc.oneof(
  { weight: 30, arbitrary: fc.constant(undefined) },
  { weight: 3, arbitrary: fc.nat({ max: 1_000 }) },
  fc.string({ maxLength: 30 }),
  fc.jsonValue({ maxDepth: 2 }),
);
const event = fc
  .record({
    id: fc.oneof({ weight: 12, arbitrary: fc.uuid() }, field),
    inventory: field,
    quantity: field,
    name: field,
    price: field,
    description: field,
    collectionId: field,
    updatedAt: fc.oneof(
      fc.constant(undefined),
      fc.date({ min: new Date(0), max: new Date(), noInvalidDate: true }).map((date) => date.toISOString()),
      field,
    ),
  })
  .map((json) => Buffer.from(JSON.stringify(json)));
const value = fc.option(
  fc.oneof(
    { weight: 10, arbitrary: event },
    { weight: 3, arbitrary: fc.json().map((text) => Buffer.from(text)) },
    { weight: 3, arbitrary: bytes(200) },
    { weight: 1, arbitrary: longBytes },
  ),
  { freq: 10 },
);
const record: fc.Arbitrary<RawRecord> = fc.record({
  key: fc.option(fc.oneof({ weight: 20, arbitrary: bytes(100) }, { weight: 1, arbitrary: longBytes })),
  value,
  headers,
  timestamp: fc.oneof(
    { weight: 8, arbitrary: fc.integer({ min: 0, max: 3_600_000 }).map((ago) => BigInt(Date.now() - ago)) },
    fc.bigInt({ min: -(2n ** 53n), max: BigInt(Date.now()) }),
  ),
});
const batch = fc.record({
  records: fc.array(record, { minLength: 1, maxLength: 15 }),
  codec: fc.constantFrom(...CODECS),
});

describe("any message that a broker accepts", { skip }, () => {
  let isolation: Isolation;
  before(async () => {
    isolation = await startIsolation();
  });
  after(() => isolation?.[Symbol.asyncDispose]());

  it("is applied, or dead-lettered with a reason, while other partitions go on", async (t) => {
    const { cluster, adminUrl, delayMs, newLetters, untilApplied, untilCommitted } = isolation;
    const seed = newSeed();
    t.diagnostic(`seed ${seed}`);
    // Partly applied events have a dead letter, too.
    const processed = async () => {
      const metrics = await scrape(adminUrl);
      const events = (labels: object) =>
        metrics.value("inventory_events_total", { topic: "product", ...labels }) ?? 0;
      return events({}) - events({ outcome: "partial" });
    };
    await newLetters();
    let [run, refused, total, dead, worstMs] = [0, 0, 0, 0, 0];
    await delayMs();
    await fc.assert(
      fc.asyncProperty(batch, async ({ records, codec }) => {
        run += 1;
        const before = await processed();
        let from: bigint;
        try {
          from = await produceRaw(cluster, "product", 0, records, codec);
        } catch (error) {
          if (error instanceof BrokerError) {
            refused += 1;
            return;
          }
          throw error;
        }
        await untilApplied(`beside-${run}`, 2);
        await untilCommitted(0, from + BigInt(records.length));
        const delay = await delayMs();
        worstMs = Math.max(worstMs, delay);
        const letters = await newLetters();
        total += records.length;
        dead += letters.length;
        assert.equal(
          (await processed()) - before - 1 + letters.reduce((sum, letter) => sum + recordsOf(letter), 0),
          records.length,
          "each record is applied or dead-lettered",
        );
        for (const letter of letters) {
          const origin = originOf(letter.headers);
          const original = records[Number(BigInt(origin?.offset ?? -1) - from)];
          assert.ok(origin?.reason, "a reason");
          assert.ok(original, "the offset of the original");
          assertKeepsOriginal(letter, original);
        }
        assert.ok(delay < DELAY_MS_MAX, `the event loop was delayed by ${delay} ms`);
      }),
      { seed, numRuns: RUNS, endOnFailure: true },
    );
    t.diagnostic(
      `${run} batches, ${refused} refused by the broker; ${total} records, ${dead} dead letters; longest delay of the event loop ${worstMs.toFixed(0)} ms`,
    );
    assert.ok(total > 0 && dead > 0 && dead < total, "some of each kind");
  });
});
