import { setTimeout as wait } from "node:timers/promises";
import kafkajs, { type Kafka, type Message, type Producer } from "kafkajs";

// Node does not find these among the names that a CommonJS module exports.
const { CompressionTypes, Partitioners } = kafkajs;

/** Most bytes of messages in one request: half of what a broker takes as one batch by default, headers and all. */
const REQUEST_BYTES_MAX = 512 * 1024;
/** What a record costs besides key, value and headers. */
const RECORD_OVERHEAD_BYTES = 64;
/** How long the end of a producer may wait for its connections to end. */
const DISCONNECT_MS_MAX = 1_000;

/**
 * Sends in order, one request at a time, and waits for all in-sync replicas. kafkajs's idempotent
 * producer reuses sequence numbers when two sends overlap, so calls queue here. After a failure the
 * next send starts with a new producer: what became of the failed messages is unknown, and the
 * caller sends them again.
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

  /** Resolves when every message is acknowledged. Rejects with kafkajs's error; some may have been written then. */
  send(topic: string, messages: readonly Message[]): Promise<void> {
    const sent = this.#last.then(() => this.#send(topic, messages));
    this.#last = sent.catch(() => {});
    return sent;
  }

  /** What is under way and what is asked for later rejects. Resolves when the connections have ended, within a second. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#closing.reject(new Error("The producer is closed"));
    await this.#last;
    await this.#drop();
  }

  async #send(topic: string, messages: readonly Message[]): Promise<void> {
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
        // kafkajs may still be trying, and would then connect again.
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
      // One that never connected has nothing to end, and a broken one need not say so twice.
      const ended = producer.then((connected) => connected.disconnect()).catch(() => {});
      await Promise.race([ended, wait(DISCONNECT_MS_MAX, undefined, { ref: false })]);
    }
  }
}

/** Cuts messages into requests, in order. A message that is larger than a request travels alone. */
function* requestsOf(messages: readonly Message[]): Generator<Message[]> {
  let request: Message[] = [];
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

function bytesOf({ key, value, headers = {} }: Message): number {
  let bytes = RECORD_OVERHEAD_BYTES + (key?.length ?? 0) + Buffer.byteLength(value ?? "");
  for (const [name, header] of Object.entries(headers)) {
    for (const each of Array.isArray(header) ? header : [header]) {
      bytes += name.length + (each?.length ?? 0);
    }
  }
  return bytes;
}
