import { setTimeout as wait } from "node:timers/promises";
import type { Logger } from "pino";
import type { Metrics } from "../../ops/metrics.ts";
import { Backoff } from "../backoff.ts";
import type { Cluster } from "../kafkajs/cluster.ts";
import { BrokerError, TOO_LARGE } from "../kafkajs/errors.ts";
import { crc32c } from "../kafkajs/internals.ts";
import { encodeBatch, recordBytes } from "../records/encode-batch.ts";
import type { DeadLetter } from "./dead-letters.ts";
import { shortKey } from "./short-key.ts";

/** Maximum size of the letters of one batch, before compression: half of a broker's default `max.message.bytes`. */
const BATCH_BYTES_MAX = 512 * 1024;
/** Bounds of the backoff after an error. */
const RETRY_MS_MIN = 100;
const RETRY_MS_MAX = 2_000;

interface DeadLetterSenderOptions {
  readonly cluster: Cluster;
  readonly topic: string;
  /** How long letters that the brokers refuse are retried before they are only logged. */
  readonly waitMs: number;
  readonly metrics: Metrics;
  readonly log: Logger;
}

/**
 * Sends dead letters, acknowledged by all in-sync replicas.
 *
 * A letter that is too large for the topic is sent in its shortened form at once: retrying cannot help. A letter that
 * the brokers refuse in both forms, because the topic is missing for example, is retried. It is only logged, so that its
 * partition continues, once it has been refused for `waitMs`, or once nothing at all has been accepted for so long. The
 * originals stay in their topics. While the brokers cannot be reached, letters wait without limit: then nothing can be
 * read either.
 */
export class DeadLetterSender {
  readonly #options: DeadLetterSenderOptions;
  /** Since when the brokers have refused all letters, by the monotonic clock. */
  #refusedSince: number | undefined;
  #refusal: string | undefined;
  #logged = 0;

  constructor(options: DeadLetterSenderOptions) {
    this.#options = options;
  }

  /** Current problems, one sentence each. */
  get troubles(): string[] {
    if (this.#refusal === undefined) {
      return [];
    }
    const logged = this.#logged === 0 ? "" : `; ${this.#logged} were only logged`;
    return [`Dead letters cannot be sent to topic ${this.#options.topic}: ${this.#refusal}${logged}`];
  }

  /**
   * Resolves when each letter, all of one partition, was sent or logged. Rejects if `signal` is aborted. `onWaiting` is
   * called after each failed attempt, with the first letter that waits, and why.
   */
  async send(
    letters: readonly DeadLetter[],
    signal: AbortSignal,
    onWaiting: (letter: DeadLetter, reason: string) => Promise<void>,
  ): Promise<void> {
    const pending = [...letters];
    /** Letters to be sent one by one, because their batch was too large. */
    let single = 0;
    const backoff = new Backoff(RETRY_MS_MIN, RETRY_MS_MAX);
    /** Since when the brokers have refused the first pending letter, by the monotonic clock. */
    let refusedSince: number | undefined;
    for (let attempt = 0; pending[0] !== undefined; ) {
      signal.throwIfAborted();
      const batch = single > 0 ? [pending[0]] : batchOf(pending);
      const error = await this.#sendBatch(batch, attempt);
      if (error instanceof BrokerError && TOO_LARGE.has(error.code) && batch.length > 1) {
        single = batch.length;
        continue;
      }
      if (error !== undefined) {
        const reason = `dead letters cannot be sent to topic ${this.#options.topic}: ${error.message}`;
        await onWaiting(pending[0], reason);
        refusedSince = error instanceof BrokerError ? (refusedSince ?? performance.now()) : undefined;
        if (!this.#isGivenUp(refusedSince)) {
          attempt += 1;
          await wait(backoff.next(), undefined, { signal });
          continue;
        }
        this.#log(batch, error);
      }
      refusedSince = undefined;
      pending.splice(0, batch.length);
      single = Math.max(0, single - batch.length);
    }
  }

  /** Sends a batch. A single letter that is too large is sent in its shortened form. Returns the error, if any. */
  async #sendBatch(batch: readonly DeadLetter[], attempt: number): Promise<Error | undefined> {
    const { metrics, log, topic } = this.#options;
    const error = await this.#produce(batch, "record", attempt);
    const [letter] = batch;
    if (
      batch.length > 1 ||
      letter === undefined ||
      !(error instanceof BrokerError && TOO_LARGE.has(error.code))
    ) {
      return error;
    }
    const failed = await this.#produce(batch, "shortened", attempt);
    if (failed === undefined) {
      metrics.deadLettersShortened.inc({ topic: letter.topic, reason: letter.reason });
      log.error(
        { ...placeOf(letter), detail: letter.detail, deadLetterTopic: topic, refusal: error.message },
        "A dead letter is too large for its topic and was shortened; the original stays in its own topic",
      );
    }
    return failed;
  }

  async #produce(
    letters: readonly DeadLetter[],
    form: "record" | "shortened",
    attempt: number,
  ): Promise<Error | undefined> {
    const { cluster, topic, metrics } = this.#options;
    try {
      const partitions = await cluster.partitionsOf(topic);
      // Letters of a partition stay in order. The next attempt tries another partition, which may have another leader.
      const partition = partitions[((letters[0]?.partition ?? 0) + attempt) % partitions.length] ?? 0;
      const batch = await encodeBatch(
        letters.map((letter) => letter[form]),
        crc32c,
      );
      await cluster.produce({ topic, partition, batch });
    } catch (cause) {
      const error = cause instanceof Error ? cause : new Error(String(cause));
      if (!(error instanceof BrokerError)) {
        // The brokers cannot be reached. Once they can, letters wait anew.
        this.#refusedSince = undefined;
      } else if (form === "shortened" || !TOO_LARGE.has(error.code)) {
        this.#refusedSince ??= performance.now();
        this.#refusal = error.message;
      }
      return error;
    }
    this.#refusedSince = undefined;
    this.#refusal = undefined;
    this.#logged = 0;
    for (const { topic, reason } of letters) {
      metrics.deadLetters.inc({ topic, reason });
    }
    return undefined;
  }

  /** True if a letter that was refused just now, and first at `refusedSince`, has waited for as long as it may. */
  #isGivenUp(refusedSince: number | undefined): boolean {
    if (refusedSince === undefined) {
      return false;
    }
    const since = Math.min(refusedSince, this.#refusedSince ?? refusedSince);
    return performance.now() - since >= this.#options.waitMs;
  }

  #log(letters: readonly DeadLetter[], error: Error): void {
    const { metrics, log, topic } = this.#options;
    this.#logged += letters.length;
    for (const letter of letters) {
      metrics.deadLettersLogged.inc({ topic: letter.topic, reason: letter.reason });
      log.error(
        { ...placeOf(letter), detail: letter.detail, deadLetterTopic: topic, refusal: error.message },
        "A dead letter could not be sent and is only logged; the original stays in its own topic",
      );
    }
  }
}

/** The first letters, as many as fit into one batch. A letter that is larger than a batch is alone. */
function batchOf(letters: readonly DeadLetter[]): DeadLetter[] {
  const batch: DeadLetter[] = [];
  let bytes = 0;
  for (const letter of letters) {
    bytes += recordBytes(letter.record);
    if (batch.length > 0 && bytes > BATCH_BYTES_MAX) {
      break;
    }
    batch.push(letter);
  }
  return batch;
}

function placeOf({ topic, partition, offset, key, reason }: DeadLetter): Record<string, unknown> {
  return { topic, partition, offset, key: shortKey(key), reason };
}
