import { setTimeout as wait } from "node:timers/promises";
import { Backoff } from "../backoff.ts";
import type { Cluster } from "../kafkajs/cluster.ts";
import { BrokerError, ErrorCode } from "../kafkajs/errors.ts";
import { crc32c } from "../kafkajs/internals.ts";
import type { PartitionBatch, ProducerIdentity } from "../kafkajs/produce-protocol.ts";
import { encodeBatch, type OutgoingRecord, recordBytes } from "../records/encode-batch.ts";
import { RecordHeaders } from "../records/headers.ts";
import { partitionOfKey } from "./partitioner.ts";

/** Maximum size of the messages of one batch, before compression: half of a broker's default `max.message.bytes`. */
const BATCH_BYTES_MAX = 512 * 1024;
/** Attempts of one request: about three seconds in all. The caller repeats what fails for longer. */
const ATTEMPTS_MAX = 7;
const RETRY_MS_MIN = 100;
const RETRY_MS_MAX = 1_000;
/** Age at which the metadata is read again, for added partitions. */
const METADATA_MS_MAX = 60_000;
/** Sequence numbers are 31 bits. */
const SEQUENCE_MODULUS = 2 ** 31;

/** A message to be sent. */
export interface ProducedMessage {
  readonly key: string;
  readonly value: string;
  readonly headers: Readonly<Record<string, string>>;
}

/** An idempotent producer: brokers recognize a batch that they have written already by the number of its first record. */
interface Session extends ProducerIdentity {
  /** The number of records sent, by partition. */
  readonly sent: Map<number, number>;
}

/**
 * Sends in order, one request at a time to each broker, acknowledged by all in-sync replicas. A request that fails is
 * repeated, and is written once. After a failure that retries do not repair, the next send uses a new identity: it is
 * unknown whether the failed messages were written, and the caller sends them again.
 */
export class OrderedProducer {
  readonly #cluster: Cluster;
  readonly #closing = new AbortController();
  #session: Session | undefined;
  #last: Promise<unknown> = Promise.resolve();
  #describedAt = Number.NEGATIVE_INFINITY;

  /** `cluster`: not used for anything else. It is closed with the producer. */
  constructor(cluster: Cluster) {
    this.#cluster = cluster;
  }

  /** Resolves when every message is acknowledged. Rejects if one is not; some may have been written. */
  send(topic: string, messages: readonly ProducedMessage[]): Promise<void> {
    const sent = this.#last.then(() => this.#send(topic, messages));
    this.#last = sent.catch(() => {});
    return sent;
  }

  /** Rejects pending and later sends. Resolves when the connections are closed, within a second. */
  async close(): Promise<void> {
    this.#closing.abort(new Error("The producer is closed"));
    await this.#last;
    await this.#cluster.close();
  }

  async #send(topic: string, messages: readonly ProducedMessage[]): Promise<void> {
    const partitions = await this.#retry(() => this.#partitionsOf(topic));
    try {
      for (const request of requestsOf(messages, partitions)) {
        await this.#deliver(await this.#encode(topic, request));
      }
    } catch (error) {
      this.#session = undefined;
      throw error;
    }
  }

  async #partitionsOf(topic: string): Promise<readonly number[]> {
    const now = performance.now();
    if (now - this.#describedAt > METADATA_MS_MAX) {
      await this.#cluster.describeTopics([topic]);
      this.#describedAt = now;
    }
    return this.#cluster.partitionsOf(topic);
  }

  async #encode(
    topic: string,
    request: ReadonlyMap<number, readonly OutgoingRecord[]>,
  ): Promise<PartitionBatch[]> {
    this.#session ??= {
      ...(await this.#retry(() => this.#cluster.initProducerId())),
      sent: new Map(),
    };
    const { producerId, producerEpoch, sent } = this.#session;
    return await Promise.all(
      [...request].map(async ([partition, records]) => {
        const first = sent.get(partition) ?? 0;
        sent.set(partition, (first + records.length) % SEQUENCE_MODULUS);
        const batch = await encodeBatch(records, crc32c, { producerId, producerEpoch, first });
        return { topic, partition, batch };
      }),
    );
  }

  /** Sends batches until all are acknowledged. */
  async #deliver(batches: readonly PartitionBatch[]): Promise<void> {
    let pending = batches;
    await this.#retry(async () => {
      const errors = await this.#cluster.produceAll(pending);
      const failed = pending.flatMap((batch, index) => {
        const error = errors[index];
        return isWritten(error) ? [] : [{ batch, error }];
      });
      if (failed.length > 0) {
        pending = failed.map(({ batch }) => batch);
        throw (failed.find(({ error }) => !isRetriable(error)) ?? failed[0])?.error;
      }
    });
  }

  /** Repeats an action while its error may be temporary. */
  async #retry<T>(action: () => Promise<T>): Promise<T> {
    const { signal } = this.#closing;
    const backoff = new Backoff(RETRY_MS_MIN, RETRY_MS_MAX);
    for (let attempt = 1; ; attempt++) {
      signal.throwIfAborted();
      try {
        return await unlessAborted(action(), signal);
      } catch (error) {
        if (!isRetriable(error) || attempt === ATTEMPTS_MAX) {
          throw error;
        }
        await wait(backoff.next(), undefined, { signal }).catch(() => {});
      }
    }
  }
}

/** As `promise`, but rejects as soon as `signal` is aborted: a request to a broker that hangs takes ten seconds. */
async function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const onAbort = () => reject(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

/** A broker answers a repeated batch with an error if it is not among the latest of its producer. */
function isWritten(error: Error | undefined): boolean {
  return (
    error === undefined || (error instanceof BrokerError && error.code === ErrorCode.duplicateSequenceNumber)
  );
}

/** Errors of connections are, and those of brokers that mean a temporary state. */
function isRetriable(error: unknown): boolean {
  return error instanceof BrokerError ? error.isRetriable : true;
}

/**
 * Divides messages among requests, in order: by partition, with at most one batch for each. A message larger than a batch is
 * alone in its batch.
 */
function* requestsOf(
  messages: readonly ProducedMessage[],
  partitions: readonly number[],
): Generator<ReadonlyMap<number, readonly OutgoingRecord[]>> {
  const timestamp = BigInt(Date.now());
  let request = new Map<number, { records: OutgoingRecord[]; bytes: number }>();
  const recordsOf = () => new Map([...request].map(([partition, { records }]) => [partition, records]));
  for (const { key, value, headers } of messages) {
    const record = { key, value, headers: RecordHeaders.of(Object.entries(headers)), timestamp };
    const partition = partitions[partitionOfKey(key, partitions.length)] ?? 0;
    const size = recordBytes(record);
    let batch = request.get(partition);
    if (batch !== undefined && batch.bytes + size > BATCH_BYTES_MAX) {
      yield recordsOf();
      request = new Map();
      batch = undefined;
    }
    if (batch === undefined) {
      batch = { records: [], bytes: 0 };
      request.set(partition, batch);
    }
    batch.records.push(record);
    batch.bytes += size;
  }
  if (request.size > 0) {
    yield recordsOf();
  }
}
