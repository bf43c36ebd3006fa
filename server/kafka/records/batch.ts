/** A transaction that was aborted, as a fetch response lists them. */
export interface AbortedTransaction {
  readonly producerId: bigint;
  readonly firstOffset: bigint;
}

/** One entry of a record set: a record batch, or a message of the formats before Kafka 0.11. */
export interface Batch {
  /** 2 for a record batch, 0 or 1 for a message of an older format. */
  readonly magic: number;
  readonly attributes: number;
  readonly firstOffset: bigint;
  readonly lastOffset: bigint;
  /** ms since 1970. Of a message of an older format, both are the message's time, -1 without one. */
  readonly firstTimestamp: bigint;
  readonly maxTimestamp: bigint;
  readonly producerId: bigint;
  readonly isTransactional: boolean;
  readonly isControl: boolean;
  readonly isLogAppendTime: boolean;
  /** Number of records as the batch states it. */
  readonly count: number;
  /** Key of a message of an older format. */
  readonly key: Buffer | null;
  /** The records, compressed as `attributes` says. Of a message of an older format, its value. */
  readonly payload: Buffer | null;
  /** The whole entry as the broker stores it. */
  readonly bytes: Buffer;
}

const LOG_OVERHEAD_BYTES = 12;
const MAGIC_AT = 16;
const BATCH_HEADER_BYTES = 61;
const MESSAGE_V0_HEADER_BYTES = 18;
const MESSAGE_V1_HEADER_BYTES = 26;

const LOG_APPEND_TIME = 0x08;
const TRANSACTIONAL = 0x10;
const CONTROL = 0x20;

/**
 * Iterates over the entries of a record set. An incomplete entry at the end is ignored: brokers cut a record set off at
 * the maximum size of the response. Throws if an entry is malformed.
 */
export function* batchesOf(records: Buffer): Generator<Batch> {
  for (let at = 0; at + MAGIC_AT < records.length; ) {
    const size = records.readInt32BE(at + 8);
    const end = at + LOG_OVERHEAD_BYTES + size;
    if (size < MESSAGE_V0_HEADER_BYTES - LOG_OVERHEAD_BYTES) {
      throw new Error(`a batch of ${size} bytes`);
    }
    if (end > records.length) {
      return;
    }
    yield readEntry(records.subarray(at, end));
    at = end;
  }
}

/** The offset after the last entry that is complete and not malformed; `undefined` without one. */
export function endOf(records: Buffer): bigint | undefined {
  let end: bigint | undefined;
  try {
    for (const { lastOffset } of batchesOf(records)) {
      end = lastOffset + 1n;
    }
  } catch {
    // The reader of the records reports it, in its turn.
  }
  return end;
}

function readEntry(bytes: Buffer): Batch {
  const magic = bytes.readInt8(MAGIC_AT);
  switch (magic) {
    case 0:
    case 1:
      return readMessage(bytes, magic);
    case 2:
      return readBatch(bytes);
    default:
      throw new Error(`a batch of format ${magic}, which this version does not support`);
  }
}

function readBatch(bytes: Buffer): Batch {
  if (bytes.length < BATCH_HEADER_BYTES) {
    throw new Error(`a batch of ${bytes.length} bytes`);
  }
  const firstOffset = bytes.readBigInt64BE(0);
  const attributes = bytes.readInt16BE(21);
  return {
    magic: 2,
    attributes,
    firstOffset,
    lastOffset: firstOffset + BigInt(bytes.readInt32BE(23)),
    firstTimestamp: bytes.readBigInt64BE(27),
    maxTimestamp: bytes.readBigInt64BE(35),
    producerId: bytes.readBigInt64BE(43),
    isTransactional: (attributes & TRANSACTIONAL) !== 0,
    isControl: (attributes & CONTROL) !== 0,
    isLogAppendTime: (attributes & LOG_APPEND_TIME) !== 0,
    count: bytes.readInt32BE(57),
    key: null,
    payload: bytes.subarray(BATCH_HEADER_BYTES),
    bytes,
  };
}

function readMessage(bytes: Buffer, magic: 0 | 1): Batch {
  const attributes = bytes.readInt8(17);
  const timestamp = magic === 1 ? bytes.readBigInt64BE(18) : -1n;
  const keyAt = magic === 1 ? MESSAGE_V1_HEADER_BYTES : MESSAGE_V0_HEADER_BYTES;
  const key = readNullable(bytes, keyAt);
  const value = readNullable(bytes, key.end);
  const offset = bytes.readBigInt64BE(0);
  return {
    magic,
    attributes,
    firstOffset: offset,
    lastOffset: offset,
    firstTimestamp: timestamp,
    maxTimestamp: timestamp,
    producerId: -1n,
    isTransactional: false,
    isControl: false,
    isLogAppendTime: magic === 1 && (attributes & LOG_APPEND_TIME) !== 0,
    count: 1,
    key: key.value,
    payload: value.value,
    bytes,
  };
}

function readNullable(bytes: Buffer, at: number): { value: Buffer | null; end: number } {
  const length = bytes.readInt32BE(at);
  const start = at + 4;
  if (length < -1 || start + length > bytes.length) {
    throw new Error(`a message field of ${length} bytes`);
  }
  return length === -1
    ? { value: null, end: start }
    : { value: bytes.subarray(start, start + length), end: start + length };
}

/**
 * Decides which batches belong to aborted transactions. To be asked about each batch of a record set in order.
 *
 * The same algorithm as in Kafka's Java client, `CompletedFetch.nextFetchedRecord`: an aborted transaction begins at its
 * first offset, in the order of the first offsets, and ends at the producer's abort marker, which only a control batch is.
 */
export class AbortedTransactions {
  readonly #pending: AbortedTransaction[];
  readonly #producers = new Set<bigint>();

  constructor(aborted: readonly AbortedTransaction[]) {
    this.#pending = aborted.toSorted((a, b) => (a.firstOffset < b.firstOffset ? -1 : 1));
  }

  /** True if the batch's records must not be delivered: they were aborted, or are control records. */
  excludes(batch: Batch): boolean {
    for (let next = this.#pending[0]; next !== undefined && next.firstOffset <= batch.lastOffset; ) {
      this.#producers.add(next.producerId);
      this.#pending.shift();
      next = this.#pending[0];
    }
    if (batch.isControl) {
      this.#producers.delete(batch.producerId);
      return true;
    }
    return batch.isTransactional && this.#producers.has(batch.producerId);
  }
}
