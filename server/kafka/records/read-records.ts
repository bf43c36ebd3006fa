import type { LoopBudget } from "../ingest/loop-budget.ts";
import type { IncomingMessage } from "../ingest/message.ts";
import { type AbortedTransaction, AbortedTransactions, type Batch, batchesOf } from "./batch.ts";
import { codecOf, decompress } from "./compression.ts";
import { RecordHeaders } from "./headers.ts";
import { RecordReader } from "./record-reader.ts";
import { Cursor } from "./varint.ts";

/** Messages that are decoded, and so applied, together. */
const MESSAGES_PER_SLICE_MAX = 256;
const SLICE_BYTES_MAX = 1024 * 1024;
/** An inner message of the formats before Kafka 0.11, whose offset is relative to the outer one. */
const RELATIVE_OFFSETS_MAGIC = 1;

/** What a fetch returned of one partition. */
export interface RecordSet {
  readonly topic: string;
  readonly partition: number;
  /** The offset that was asked for. A batch may contain records before it. */
  readonly position: bigint;
  readonly records: Buffer;
  readonly abortedTransactions: readonly AbortedTransaction[];
}

/** A batch, or the rest of one, whose records cannot be decoded. */
export interface UnreadableBatch {
  readonly topic: string;
  readonly partition: number;
  readonly firstOffset: bigint;
  readonly lastOffset: bigint;
  /** ms since 1970, in decimal digits. */
  readonly timestamp: string;
  readonly reason: string;
  /** The batch as the broker stores it. */
  readonly bytes: Buffer;
}

/** A part of a record set, in order. When it is processed, `next` is the offset to commit. */
export interface Slice {
  readonly messages: readonly IncomingMessage[];
  readonly unreadable: UnreadableBatch | undefined;
  readonly next: bigint;
}

/**
 * Decodes a record set in slices, within the turns of `budget`. Aborted and control records are left out. A batch that
 * cannot be decoded becomes a slice of its own; the batches after it are read. Throws only if the record set itself is
 * malformed, which brokers do not produce.
 */
export async function* readRecords(set: RecordSet, budget: LoopBudget): AsyncGenerator<Slice> {
  const aborted = new AbortedTransactions(set.abortedTransactions);
  const slices = new SliceBuilder(set.position);
  for (const batch of batchesOf(set.records)) {
    if (batch.lastOffset < set.position || aborted.excludes(batch)) {
      slices.skipTo(batch.lastOffset + 1n);
      continue;
    }
    try {
      for await (const messages of messagesOf(set, batch, budget)) {
        slices.add(messages);
        if (slices.isFull) {
          yield slices.take();
        }
        if (budget.isSpent) {
          await budget.nextTurn();
        }
      }
    } catch (error) {
      if (slices.hasMessages) {
        yield slices.take();
      }
      if (slices.next <= batch.lastOffset) {
        yield slices.unreadable(set, batch, error instanceof Error ? error.message : String(error));
      }
    }
    slices.skipTo(batch.lastOffset + 1n);
  }
  if (slices.hasProgress) {
    yield slices.take();
  }
}

/** Collects messages until a slice is full. */
class SliceBuilder {
  #messages: IncomingMessage[] = [];
  #bytes = 0;
  #next: bigint;
  #taken: bigint;

  constructor(position: bigint) {
    this.#next = position;
    this.#taken = position;
  }

  get isFull(): boolean {
    return this.#messages.length >= MESSAGES_PER_SLICE_MAX || this.#bytes >= SLICE_BYTES_MAX;
  }

  get next(): bigint {
    return this.#next;
  }

  get hasMessages(): boolean {
    return this.#messages.length > 0;
  }

  get hasProgress(): boolean {
    return this.#next > this.#taken;
  }

  add(messages: readonly IncomingMessage[]): void {
    for (const message of messages) {
      const offset = BigInt(message.offset);
      // A batch may begin before the position, and records of a batch must not be delivered twice.
      if (offset >= this.#next) {
        this.#messages.push(message);
        this.#bytes += sizeOf(message);
        this.#next = offset + 1n;
      }
    }
  }

  skipTo(next: bigint): void {
    if (next > this.#next) {
      this.#next = next;
    }
  }

  take(): Slice {
    const messages = this.#messages;
    this.#messages = [];
    this.#bytes = 0;
    this.#taken = this.#next;
    return { messages, unreadable: undefined, next: this.#next };
  }

  /** The rest of a batch, from the first record that was not delivered. */
  unreadable({ topic, partition }: RecordSet, batch: Batch, reason: string): Slice {
    const { firstOffset, lastOffset, maxTimestamp, bytes } = batch;
    this.skipTo(firstOffset);
    const from = this.#next;
    this.skipTo(lastOffset + 1n);
    this.#taken = this.#next;
    const timestamp = maxTimestamp.toString();
    const unreadable = { topic, partition, firstOffset: from, lastOffset, timestamp, reason, bytes };
    return { messages: [], unreadable, next: this.#next };
  }
}

/** Yields the messages of a batch in groups of at most a slice. */
function messagesOf(set: RecordSet, batch: Batch, budget: LoopBudget): AsyncIterable<IncomingMessage[]> {
  return batch.magic === 2 ? recordsOf(set, batch, budget) : olderMessagesOf(set, batch, budget);
}

async function* recordsOf(
  { topic, partition }: RecordSet,
  batch: Batch,
  budget: LoopBudget,
): AsyncGenerator<IncomingMessage[]> {
  const source = decompress(codecOf(batch.attributes), batch.payload ?? Buffer.alloc(0), budget);
  const records = new RecordReader(source);
  let group: IncomingMessage[] = [];
  let bytes = 0;
  try {
    for (let index = 0; index < batch.count; index++) {
      const record = records.tryNext() ?? (await records.next());
      const decoded =
        record.oversizedBytes === undefined
          ? decodeRecord(record.bytes, batch)
          : decodeOversized(record.bytes, record.oversizedBytes, batch);
      group.push({ topic, partition, ...decoded });
      bytes += record.bytes.length;
      if (group.length >= MESSAGES_PER_SLICE_MAX || bytes >= SLICE_BYTES_MAX || budget.isSpent) {
        yield group;
        group = [];
        bytes = 0;
      }
    }
    if (group.length > 0) {
      yield group;
    }
  } catch (error) {
    // The records before the one that cannot be decoded.
    if (group.length > 0) {
      yield group;
    }
    throw error;
  } finally {
    await source.return(undefined);
  }
}

/** Lengths are `1 + varints`, see https://kafka.apache.org/documentation/#record. */
function decodeRecord(bytes: Buffer, batch: Batch): Omit<IncomingMessage, "topic" | "partition"> {
  const cursor = new Cursor(bytes, 1);
  const { offset, timestamp } = decodePosition(cursor, batch);
  const key = cursor.nullable();
  const value = cursor.nullable();
  const count = cursor.varint();
  const headers = count === 0 ? RecordHeaders.NONE : new RecordHeaders(count, bytes.subarray(cursor.at));
  headers.validate();
  return { offset, timestamp, key, value, headers };
}

function decodeOversized(
  prefix: Buffer,
  recordBytes: number,
  batch: Batch,
): Omit<IncomingMessage, "topic" | "partition"> {
  const cursor = new Cursor(prefix, 1);
  const { offset, timestamp } = decodePosition(cursor, batch);
  const keyLength = cursor.varint();
  const key = keyLength === -1 ? null : cursor.take(Math.min(keyLength, cursor.remaining));
  return { offset, timestamp, key, value: null, headers: RecordHeaders.NONE, oversizedBytes: recordBytes };
}

function decodePosition(cursor: Cursor, batch: Batch): { offset: string; timestamp: string } {
  const timestampDelta = cursor.varlong();
  const timestamp = batch.isLogAppendTime ? batch.maxTimestamp : batch.firstTimestamp + timestampDelta;
  const offset = batch.firstOffset + BigInt(cursor.varint());
  return { offset: offset.toString(), timestamp: timestamp.toString() };
}

/** A message of the formats before Kafka 0.11. A compressed one contains further messages, and no others. */
async function* olderMessagesOf(
  { topic, partition }: RecordSet,
  batch: Batch,
  budget: LoopBudget,
): AsyncGenerator<IncomingMessage[]> {
  const codec = codecOf(batch.attributes);
  if (codec === "none") {
    yield [{ topic, partition, ...olderMessage(batch, batch.lastOffset, batch.maxTimestamp) }];
    return;
  }
  const chunks: Buffer[] = [];
  for await (const chunk of decompress(codec, batch.payload ?? Buffer.alloc(0), budget)) {
    chunks.push(chunk);
  }
  const inner: Batch[] = [];
  for (const message of batchesOf(Buffer.concat(chunks))) {
    if (message.magic === 2 || codecOf(message.attributes) !== "none") {
      throw new Error("a compressed message contains a batch");
    }
    inner.push(message);
    if (budget.isSpent) {
      await budget.nextTurn();
    }
  }
  const last = inner.at(-1)?.lastOffset ?? 0n;
  const base = batch.magic === RELATIVE_OFFSETS_MAGIC ? batch.lastOffset - last : 0n;
  for (const message of inner) {
    const timestamp = batch.isLogAppendTime ? batch.maxTimestamp : message.maxTimestamp;
    yield [{ topic, partition, ...olderMessage(message, base + message.lastOffset, timestamp) }];
  }
}

function olderMessage(
  { key, payload }: Batch,
  offset: bigint,
  timestamp: bigint,
): Omit<IncomingMessage, "topic" | "partition"> {
  return {
    offset: offset.toString(),
    timestamp: timestamp.toString(),
    key,
    value: payload,
    headers: RecordHeaders.NONE,
  };
}

function sizeOf({ key, value, headers }: IncomingMessage): number {
  return (key?.length ?? 0) + (value?.length ?? 0) + headers.bytes.length;
}
