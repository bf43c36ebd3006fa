import { setTimeout as wait } from "node:timers/promises";
import kafkajs, { type Kafka, type Producer } from "kafkajs";

// Node does not detect these as named exports of the CommonJS module.
const { CompressionTypes, Partitioners } = kafkajs;

/** Maximum size of the messages in one request: half of a broker's default `max.message.bytes`. */
const REQUEST_BYTES_MAX = 512 * 1024;
/** Size of a record without key, value and headers. */
const RECORD_OVERHEAD_BYTES = 64;
/** Timeout for disconnecting a producer. */
const DISCONNECT_MS_MAX = 1_000;

/** A message to be sent. */
export interface ProducedMessage {
  readonly key: string;
  readonly value: string;
  readonly headers: Readonly<Record<string, string>>;
}

/**
 * Sends in order, one request at a time, acknowledged by all in-sync replicas. kafkajs's idempotent producer reuses
 * sequence numbers if two sends overlap, so calls are queued here. After a failure the next send uses a new producer:
 * it is unknown whether the failed messages were written, and the caller sends them again.
 */
export class OrderedProducer {
  readonly #kafka: Kafka;
  readonly #closing = Promise.withResolvers<never>();
  #producer: Promise<Producer> | undefined;
  #last: Promise<unknown> = Promise.resolve();
  #closed = false;

  constructor(kafka: Kafka) {
    this.#kafka = kafka;
    this.#closing.promise.catch(() => {});
  }

  /** Resolves when every message is acknowledged. Rejects with kafkajs's error; some messages may have been written. */
  send(topic: string, messages: readonly ProducedMessage[]): Promise<void> {
    const sent = this.#last.then(() => this.#send(topic, messages));
    this.#last = sent.catch(() => {});
    return sent;
  }

  /** Rejects pending and later sends. Resolves when the connections are closed, within a second. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#closing.reject(new Error("The producer is closed"));
    await this.#last;
    await this.#drop();
  }

  async #send(topic: string, messages: readonly ProducedMessage[]): Promise<void> {
    for (const request of requestsOf(messages)) {
      if (this.#closed) {
        throw new Error("The producer is closed");
      }
      this.#producer ??= this.#connect();
      const sending = this.#producer.then((producer) =>
        producer.send({ topic, messages: request, acks: -1, compression: CompressionTypes.GZIP }),
      );
      try {
        await Promise.race([sending, this.#closing.promise]);
      } catch (error) {
        const producer = this.#producer;
        await this.#drop();
        // kafkajs may still be retrying, and would then connect again.
        sending.catch(() => producer.then((connected) => connected.disconnect())).catch(() => {});
        throw error;
      }
    }
  }

  async #connect(): Promise<Producer> {
    const producer = this.#kafka.producer({
      idempotent: true,
      maxInFlightRequests: 1,
      allowAutoTopicCreation: false,
      createPartitioner: Partitioners.DefaultPartitioner,
    });
    try {
      await producer.connect();
    } catch (error) {
      await producer.disconnect().catch(() => {});
      throw error;
    }
    return producer;
  }

  async #drop(): Promise<void> {
    const producer = this.#producer;
    this.#producer = undefined;
    if (producer !== undefined) {
      // A failure to connect or disconnect has been reported already.
      const ended = producer.then((connected) => connected.disconnect()).catch(() => {});
      await Promise.race([ended, wait(DISCONNECT_MS_MAX, undefined, { ref: false })]);
    }
  }
}

/** Splits messages into requests, in order. A message larger than a request is sent alone. */
function* requestsOf(messages: readonly ProducedMessage[]): Generator<ProducedMessage[]> {
  let request: ProducedMessage[] = [];
  let bytes = 0;
  for (const message of messages) {
    const size = bytesOf(message);
    if (request.length > 0 && bytes + size > REQUEST_BYTES_MAX) {
      yield request;
      request = [];
      bytes = 0;
    }
    request.push(message);
    bytes += size;
  }
  if (request.length > 0) {
    yield request;
  }
}

function bytesOf({ key, value, headers }: ProducedMessage): number {
  let bytes = RECORD_OVERHEAD_BYTES + key.length + Buffer.byteLength(value);
  for (const [name, header] of Object.entries(headers)) {
    bytes += name.length + header.length;
  }
  return bytes;
}
