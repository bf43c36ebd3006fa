import { setTimeout as wait } from "node:timers/promises";
import type { Consumer, EachBatchPayload, Kafka } from "kafkajs";
import type { Logger } from "pino";
import { InventoryError } from "../inventory/errors.ts";
import type { InventoryStore } from "../inventory/store.ts";
import type { EventOutcome, Metrics } from "../ops/metrics.ts";
import type { Tracing } from "../ops/tracing.ts";
import { applyEvent } from "./apply.ts";
import type { KafkaSettings } from "./client.ts";
import { toDeadLetter } from "./dead-letters.ts";
import {
  DEAD_LETTER_REASONS,
  decodeMessage,
  type IncomingMessage,
  type Subject,
  type Undeliverable,
} from "./decode.ts";
import { Oldest } from "./oldest.ts";
import type { OrderedProducer } from "./ordered-producer.ts";
import { processSpan } from "./spans.ts";

/** Events of one partition applied at once: four of the store's batches, so that its queue is never empty. */
const EVENTS_IN_FLIGHT_MAX = 256;
/** Partitions of one server processed at once. */
const PARTITIONS_AT_ONCE = 4;
/** Session timeout: a member that sends no heartbeat for this long loses its partitions. The minimum that brokers allow by default. */
const SESSION_MS = 6_000;
const HEARTBEAT_INTERVAL_MS = 1_000;
/** How long a rebalance waits for members that process a batch. */
const REBALANCE_MS_MAX = 30_000;
/** How long a fetch waits for a first message. Bounds the delay until a member notices a rebalance or its own stop. */
const FETCH_WAIT_MS_MAX = 500;
/** Bounds of the backoff while the store or the dead-letter topic is unavailable. It doubles from the first to the second. */
const RETRY_MS_MIN = 50;
const RETRY_MS_MAX = 1_000;
/** Bounds of the backoff before a consumer is replaced. It doubles from the first to the second. */
const REPLACE_MS_MIN = 250;
const REPLACE_MS_MAX = 2_000;
/** A consumer that neither fetches nor processes a batch for this long counts as stalled. */
const STALLED_MS = 60_000;
const WATCH_INTERVAL_MS = 5_000;
/** Maximum length of a message's key in the log. */
const KEY_LENGTH_MAX = 128;
/** A consumer that has run this long resets the backoff. */
const BACKOFF_RESET_MS = 30_000;

interface IngestorOptions {
  readonly kafka: Kafka;
  readonly settings: KafkaSettings;
  readonly store: InventoryStore;
  readonly deadLetters: OrderedProducer;
  readonly metrics: Metrics;
  readonly tracing?: Tracing | undefined;
  readonly log: Logger;
}

/**
 * Applies sellers' events from Kafka to the store. Events of a batch are applied in parallel, because their order does
 * not matter. An offset is committed only after the store has acknowledged all events before it. Events that a crash
 * leaves uncommitted are delivered again and change nothing the second time.
 */
export class Ingestor {
  readonly #options: IngestorOptions;
  readonly #subjects: ReadonlyMap<string, Subject>;
  readonly #stopping = new AbortController();
  readonly #oldest = new Oldest();
  readonly #running: Promise<void>;
  #aliveAt = performance.now();
  /** Why no events are consumed, and why they cannot be applied. */
  #trouble: string | undefined = "the consumer is not connected yet";
  #storeTrouble: string | undefined;

  /** Starts to consume at once, until `stop` is called. */
  constructor(options: IngestorOptions) {
    this.#options = options;
    this.#subjects = new Map<string, Subject>([
      [options.settings.productTopic, "product"],
      [options.settings.collectionTopic, "collection"],
    ]);
    for (const topic of this.#subjects.keys()) {
      // Starting at 0, so that an alert on the increase sees the first dead letter.
      for (const reason of DEAD_LETTER_REASONS) {
        options.metrics.deadLetters.inc({ topic, reason }, 0);
      }
    }
    this.#running = this.#consumeUntilStopped();
  }

  /** Current problems, one sentence each; empty while events are consumed. */
  get troubles(): string[] {
    return [this.#trouble, this.#storeTrouble]
      .filter((trouble) => trouble !== undefined)
      .map((trouble) => `Sellers' events are not applied: ${trouble}`);
  }

  /** Age of the oldest message that this server has fetched and not acknowledged, in seconds. */
  lagSeconds(): number {
    return this.#oldest.ageMs(Date.now()) / 1_000;
  }

  /** Leaves the group. Resolves when no more events will be applied. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#running;
  }

  async #consumeUntilStopped(): Promise<void> {
    const { log, metrics } = this.#options;
    const { signal } = this.#stopping;
    let replaceMs = REPLACE_MS_MIN;
    while (!signal.aborted) {
      const startedAt = performance.now();
      try {
        await this.#consume();
      } catch (error) {
        if (signal.aborted) {
          return;
        }
        const reason = error instanceof Error ? error.message : String(error);
        if (this.#trouble !== reason) {
          log.warn({ err: error }, "The Kafka consumer failed and is being replaced");
        }
        this.#trouble = reason;
        metrics.consumersReplaced.inc();
      }
      replaceMs =
        performance.now() - startedAt > BACKOFF_RESET_MS
          ? REPLACE_MS_MIN
          : Math.min(replaceMs * 2, REPLACE_MS_MAX);
      await pause(replaceMs, signal);
    }
  }

  /** Runs one consumer until it fails, and rejects with the error; resolves when this ingestor is stopped. */
  async #consume(): Promise<void> {
    const { kafka, settings, log } = this.#options;
    const consumer = kafka.consumer({
      groupId: settings.group,
      sessionTimeout: SESSION_MS,
      heartbeatInterval: HEARTBEAT_INTERVAL_MS,
      rebalanceTimeout: REBALANCE_MS_MAX,
      maxWaitTimeInMs: FETCH_WAIT_MS_MAX,
      allowAutoTopicCreation: false,
      // The ingestor itself replaces a consumer that crashes, whatever the reason.
      retry: { restartOnFailure: async () => false },
    });
    const ended = Promise.withResolvers<void>();
    const watch = setInterval(() => {
      if (performance.now() - this.#aliveAt > STALLED_MS) {
        ended.reject(new Error(`the consumer has not fetched for ${STALLED_MS / 1_000} seconds`));
      }
    }, WATCH_INTERVAL_MS);
    const onAbort = () => ended.resolve();
    this.#stopping.signal.addEventListener("abort", onAbort, { once: true });
    this.#aliveAt = performance.now();
    consumer.on(consumer.events.CRASH, ({ payload }) => ended.reject(payload.error));
    consumer.on(consumer.events.FETCH_START, () => this.#alive());
    consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
      this.#alive();
      this.#oldest.keep(payload.memberAssignment);
      this.#trouble = undefined;
      this.#storeTrouble = undefined;
      log.info({ assignment: payload.memberAssignment }, "The Kafka consumer has joined its group");
    });
    const given = new AbortController();
    const started = this.#startConsumer(consumer, given.signal);
    try {
      await Promise.race([started, ended.promise]);
      await ended.promise;
    } finally {
      given.abort();
      clearInterval(watch);
      this.#stopping.signal.removeEventListener("abort", onAbort);
      ended.promise.catch(() => {});
      this.#oldest.keep({});
      // If the consumer connects after it has been given up, disconnect it as well.
      started.catch(() => consumer.disconnect()).catch(() => {});
      await consumer.disconnect().catch((error: unknown) => {
        log.debug({ err: error }, "The Kafka consumer could not leave its group");
      });
    }
  }

  async #startConsumer(consumer: Consumer, given: AbortSignal): Promise<void> {
    await consumer.connect();
    given.throwIfAborted();
    await consumer.subscribe({ topics: [...this.#subjects.keys()], fromBeginning: true });
    given.throwIfAborted();
    await consumer.run({
      autoCommit: false,
      eachBatchAutoResolve: false,
      partitionsConsumedConcurrently: PARTITIONS_AT_ONCE,
      eachBatch: (payload) => this.#applyBatch(payload),
    });
  }

  async #applyBatch(payload: EachBatchPayload): Promise<void> {
    const { batch, resolveOffset, heartbeat, commitOffsetsIfNecessary, isRunning, isStale } = payload;
    const { topic, partition } = batch;
    const subject = this.#subjects.get(topic);
    if (subject === undefined) {
      return;
    }
    for (let start = 0; start < batch.messages.length; start += EVENTS_IN_FLIGHT_MAX) {
      const messages = batch.messages
        .slice(start, start + EVENTS_IN_FLIGHT_MAX)
        .map(
          (message): IncomingMessage => ({ ...message, topic, partition, headers: message.headers ?? {} }),
        );
      const [first, last] = [messages[0], messages.at(-1)];
      if (first === undefined || last === undefined) {
        return;
      }
      this.#oldest.started(topic, partition, Number(first.timestamp));
      const isAssigned = () => isRunning() && !isStale() && !this.#stopping.signal.aborted;
      if (!(await this.#applyAll(messages, subject, heartbeat, isAssigned))) {
        return;
      }
      const offset = (BigInt(last.offset) + 1n).toString();
      await commitOffsetsIfNecessary({ topics: [{ topic, partitions: [{ partition, offset }] }] });
      // Only after the commit: if it fails, the same messages are fetched and committed again.
      resolveOffset(last.offset);
      this.#oldest.done(topic, partition);
      await heartbeat();
    }
  }

  /**
   * Applies messages until each is in the store or in the dead-letter topic, however long either is unavailable.
   * Heartbeats in between keep the membership. Returns false if the partition has been revoked.
   */
  async #applyAll(
    messages: readonly IncomingMessage[],
    subject: Subject,
    heartbeat: () => Promise<void>,
    isAssigned: () => boolean,
  ): Promise<boolean> {
    let left = messages;
    const dead: { message: IncomingMessage; why: Undeliverable }[] = [];
    for (let retryMs = RETRY_MS_MIN; ; retryMs = Math.min(retryMs * 2, RETRY_MS_MAX)) {
      this.#alive();
      if (!isAssigned()) {
        return false;
      }
      const results = await Promise.all(left.map((message) => this.#apply(message, subject)));
      left = left.filter((message, index) => {
        const result = results[index];
        if (result !== undefined && result !== "later") {
          dead.push({ message, why: result });
        }
        return result === "later";
      });
      if (left.length === 0 && (await this.#sendDeadLetters(dead))) {
        this.#storeTrouble = undefined;
        return true;
      }
      await heartbeat();
      await pause(retryMs, this.#stopping.signal);
    }
  }

  /** Resolves with `undefined` if the store has answered, with the reason if the event can never be applied, or with `"later"`. */
  async #apply(message: IncomingMessage, subject: Subject): Promise<Undeliverable | "later" | undefined> {
    const decoded = decodeMessage(message, subject);
    if (decoded.kind === "dead") {
      return decoded;
    }
    const { store, metrics, tracing, settings, log } = this.#options;
    const span = tracing && processSpan(tracing, message, settings.group);
    const apply = (): Promise<EventOutcome> => applyEvent(store, decoded);
    try {
      const outcome = await (span === undefined ? apply() : span.run(apply));
      metrics.events.inc({ topic: message.topic, outcome });
      span?.end();
      return undefined;
    } catch (error) {
      span?.end(error instanceof InventoryError ? error.code : "fault");
      if (!(error instanceof InventoryError)) {
        log.error(
          { ...placeOf(message), traceId: span?.traceId, err: error },
          "A seller's event failed with an internal error; it is retried",
        );
        throw error;
      }
      switch (error.code) {
        case "STORE_UNAVAILABLE":
        case "OVERLOADED":
          this.#reportStoreTrouble(error.message, message);
          return "later";
        case "INVALID_INPUT":
          // All other bounds were checked by the decoder.
          return { kind: "dead", reason: "time-ahead", detail: error.message };
        default:
          throw error;
      }
    }
  }

  /** Sends dead letters. Returns false if they could not be sent now. */
  async #sendDeadLetters(
    dead: readonly { message: IncomingMessage; why: Undeliverable }[],
  ): Promise<boolean> {
    const { deadLetters, settings, metrics, log } = this.#options;
    if (dead.length === 0) {
      return true;
    }
    try {
      const letters = dead.map(({ message, why }) => toDeadLetter(message, why, Date.now()));
      await deadLetters.send(settings.deadLetterTopic, letters);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      this.#reportStoreTrouble(`dead letters cannot be sent to topic ${settings.deadLetterTopic}: ${reason}`);
      return false;
    }
    for (const { message, why } of dead) {
      metrics.deadLetters.inc({ topic: message.topic, reason: why.reason });
    }
    const [first] = dead;
    log.warn(
      {
        letters: dead.length,
        ...(first && placeOf(first.message)),
        reason: first?.why.reason,
        detail: first?.why.detail,
      },
      "Messages that can never be applied were sent to the dead-letter topic; this is the first of them",
    );
    return true;
  }

  #reportStoreTrouble(reason: string, message?: IncomingMessage): void {
    if (this.#storeTrouble === undefined) {
      this.#options.log.warn(
        { reason, ...(message && placeOf(message)) },
        "Sellers' events are waiting; they are retried until they are applied",
      );
    }
    this.#storeTrouble = reason;
  }

  #alive(): void {
    this.#aliveAt = performance.now();
  }
}

/** The position of a message, for the log. */
function placeOf({ topic, partition, offset, key }: IncomingMessage): Record<string, unknown> {
  return { topic, partition, offset, key: key?.toString().slice(0, KEY_LENGTH_MAX) };
}

/** Waits, or returns at once when stopped. */
async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await wait(ms, undefined, { signal }).catch(() => {});
}
