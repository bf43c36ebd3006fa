import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { gzipSync } from "node:zlib";
import { LoopBudget } from "../../server/kafka/ingest/loop-budget.ts";
import type { IncomingMessage } from "../../server/kafka/ingest/message.ts";
import type { AbortedTransaction } from "../../server/kafka/records/batch.ts";
import { readRecords, type UnreadableBatch } from "../../server/kafka/records/read-records.ts";
import { encodeRawBatch, type RawRecord, record } from "./raw-producer.ts";

const TRANSACTIONAL = 0x10;
const CONTROL = 0x20;

interface BatchOptions {
  readonly offset: number;
  readonly producerId?: number;
  readonly attributes?: number;
  readonly records?: readonly RawRecord[];
}

/** A batch as a broker stores it: with offsets, and the producer of a transaction. */
function batchAt({ offset, producerId = -1, attributes = 0, records = [record({})] }: BatchOptions): Buffer {
  const batch = encodeRawBatch(records, "none");
  batch.writeBigInt64BE(BigInt(offset), 0);
  batch.writeInt16BE(attributes, 21);
  batch.writeBigInt64BE(BigInt(producerId), 43);
  return batch;
}

const inTransaction = (offset: number, producerId: number, key = "k"): Buffer =>
  batchAt({
    offset,
    producerId,
    attributes: TRANSACTIONAL,
    records: [record({}, { key: Buffer.from(key, "latin1") })],
  });

/** The marker of an aborted transaction: a control record with type 0. */
const abortMarker = (offset: number, producerId: number): Buffer =>
  batchAt({
    offset,
    producerId,
    attributes: TRANSACTIONAL | CONTROL,
    records: [record(null, { key: Buffer.alloc(4), headers: [] })],
  });

/** A message of the formats before Kafka 0.11. */
function olderMessage(magic: 0 | 1, offset: number, value: Buffer, attributes = 0, timestamp = 0n): Buffer {
  const key = Buffer.from("old");
  const time = Buffer.alloc(magic === 1 ? 8 : 0);
  if (magic === 1) {
    time.writeBigInt64BE(timestamp);
  }
  const length = (bytes: Buffer) => {
    const prefix = Buffer.alloc(4);
    prefix.writeInt32BE(bytes.length);
    return prefix;
  };
  const body = Buffer.concat([
    Buffer.alloc(4),
    Buffer.from([magic, attributes]),
    time,
    length(key),
    key,
    length(value),
    value,
  ]);
  const head = Buffer.alloc(12);
  head.writeBigInt64BE(BigInt(offset), 0);
  head.writeInt32BE(body.length, 8);
  return Buffer.concat([head, body]);
}

async function read(
  parts: readonly Buffer[],
  position = 0,
  abortedTransactions: readonly AbortedTransaction[] = [],
): Promise<{ messages: IncomingMessage[]; unreadable: UnreadableBatch[]; next: bigint }> {
  const result = {
    messages: [] as IncomingMessage[],
    unreadable: [] as UnreadableBatch[],
    next: BigInt(position),
  };
  const set = {
    topic: "t",
    partition: 0,
    position: BigInt(position),
    records: Buffer.concat(parts),
    abortedTransactions,
  };
  for await (const slice of readRecords(set, new LoopBudget())) {
    result.messages.push(...slice.messages);
    result.unreadable.push(...(slice.unreadable ? [slice.unreadable] : []));
    result.next = slice.next;
  }
  return result;
}

const offsets = (messages: readonly IncomingMessage[]): number[] =>
  messages.map(({ offset }) => Number(offset));

describe("a record set", () => {
  it("is read from the position on, which may be within a batch", async () => {
    const three = [record({}), record({}), record({})];
    const { messages, next } = await read(
      [batchAt({ offset: 10, records: three }), batchAt({ offset: 20 })],
      11,
    );
    assert.deepEqual(offsets(messages), [11, 12, 20]);
    assert.equal(next, 21n);
  });

  it("may end with an incomplete batch", async () => {
    const last = batchAt({ offset: 5 });
    const { messages, next } = await read([batchAt({ offset: 0 }), last.subarray(0, last.length - 1)]);
    assert.deepEqual(offsets(messages), [0]);
    assert.equal(next, 1n);
  });

  it("leaves control records out, and moves past them", async () => {
    const { messages, next } = await read([inTransaction(0, 7), abortMarker(1, 7)], 0, []);
    assert.deepEqual(offsets(messages), [0]);
    assert.equal(next, 2n);
  });

  it("leaves aborted transactions out, and nothing else", async () => {
    const parts = [
      inTransaction(0, 7),
      inTransaction(1, 8),
      // A key like that of an abort marker does not end the transaction.
      inTransaction(2, 7, "\0\0\0\0"),
      inTransaction(3, 7),
      batchAt({ offset: 4, producerId: 7 }),
      abortMarker(5, 7),
      inTransaction(6, 7),
    ];
    const { messages, next } = await read(parts, 0, [{ producerId: 7n, firstOffset: 0n }]);
    assert.deepEqual(offsets(messages), [1, 4, 6]);
    assert.equal(next, 7n);
  });

  it("leaves several aborted transactions out that began before the position, in whatever order they are listed", async () => {
    const parts = [
      inTransaction(10, 7),
      inTransaction(11, 8),
      abortMarker(12, 8),
      abortMarker(13, 7),
      batchAt({ offset: 14 }),
    ];
    const aborted = [
      { producerId: 8n, firstOffset: 4n },
      { producerId: 7n, firstOffset: 2n },
    ];
    assert.deepEqual(offsets((await read(parts, 10, aborted)).messages), [14]);
  });

  it("contains messages of the formats before Kafka 0.11", async () => {
    const inner = Buffer.concat([
      olderMessage(1, 0, Buffer.from("a"), 0, 1_000n),
      olderMessage(1, 1, Buffer.from("b"), 0, 2_000n),
    ]);
    const parts = [
      olderMessage(0, 3, Buffer.from("zero")),
      olderMessage(1, 4, Buffer.from("one"), 0, 5_000n),
      // Its inner offsets are relative to the last one, which has the offset of the whole.
      olderMessage(1, 6, gzipSync(inner), 1, 2_000n),
      batchAt({ offset: 7 }),
    ];
    const { messages, next } = await read(parts);
    assert.deepEqual(
      messages.map(({ offset, timestamp, value }) => [offset, timestamp, String(value)]),
      [
        ["3", "-1", "zero"],
        ["4", "5000", "one"],
        ["5", "1000", "a"],
        ["6", "2000", "b"],
        ["7", messages.at(-1)?.timestamp, "{}"],
      ],
    );
    assert.equal(next, 8n);
  });

  it("goes on after a batch that cannot be decoded", async () => {
    const unknownCodec = batchAt({ offset: 1, attributes: 7 });
    const corrupt = encodeRawBatch([record({ id: "x" }), record({ id: "y" })], "gzip");
    corrupt.writeBigInt64BE(2n, 0);
    corrupt.fill(0xff, 70);
    // All records up to its last offset are there: nothing is missing.
    const tooFew = batchAt({ offset: 4 });
    tooFew.writeInt32BE(1_000_000_000, 57);
    const negative = batchAt({ offset: 5 });
    negative.writeInt8(-1, 61);
    const nested = olderMessage(1, 6, gzipSync(olderMessage(1, 0, gzipSync(Buffer.alloc(1)), 1)), 1);
    const parts = [
      batchAt({ offset: 0 }),
      unknownCodec,
      corrupt,
      tooFew,
      negative,
      nested,
      batchAt({ offset: 7 }),
    ];
    const { messages, unreadable, next } = await read(parts);
    assert.deepEqual(offsets(messages), [0, 4, 7]);
    assert.deepEqual(
      unreadable.map(({ firstOffset, lastOffset }) => [Number(firstOffset), Number(lastOffset)]),
      [
        [1, 1],
        [2, 3],
        [5, 5],
        [6, 6],
      ],
    );
    assert.match(unreadable[0]?.reason ?? "", /codec 7, which this version does not support/);
    assert.match(unreadable[1]?.reason ?? "", /compressed with gzip cannot be read/);
    assert.deepEqual(unreadable[1]?.bytes, corrupt);
    assert.equal(next, 8n);
  });

  it("has the broker's time where the topic says so", async () => {
    const batch = batchAt({ offset: 0, attributes: 0x08, records: [record({}, { timestamp: 5n })] });
    batch.writeBigInt64BE(1_700_000_000_000n, 35);
    assert.equal((await read([batch])).messages[0]?.timestamp, "1700000000000");
  });
});
