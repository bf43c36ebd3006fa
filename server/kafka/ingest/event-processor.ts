import { setTimeout as wait } from "node:timers/promises";
import type { Logger } from "pino";
import { InventoryError } from "../../inventory/errors.ts";
import type { InventoryStore } from "../../inventory/store.ts";
import type { EventOutcome, Metrics } from "../../ops/metrics.ts";
import type { Tracing } from "../../ops/tracing.ts";
import { Backoff } from "../backoff.ts";
import type { DeadLetterSender } from "../dead-letters/dead-letter-sender.ts";
import {
  type AnyDeadLetterReason,
  type DeadLetter,
  toBatchLetter,
  toDeadLetter,
} from "../dead-letters/dead-letters.ts";
import { shortKey } from "../dead-letters/short-key.ts";
import type { Slice } from "../records/read-records.ts";
import { processSpan } from "../spans.ts";
import { type Applied, applyEvent } from "./apply.ts";
import type { SellerEvent, Subject } from "./decode.ts";
import type { LargeMessageDecoder } from "./large-messages.ts";
import type { LoopBudget } from "./loop-budget.ts";
import type { IncomingMessage } from "./message.ts";
import type { PartitionReader } from "./partition-reader.ts";

/** Bounds of the backoff while the store is unavailable. */
const RETRY_MS_MIN = 50;
const RETRY_MS_MAX = 1_000;

interface EventProcessorOptions {
  readonly store: InventoryStore;
  readonly deadLetters: DeadLetterSender;
  readonly decoder: LargeMessageDecoder;
  readonly budget: LoopBudget;
  readonly subjects: ReadonlyMap<string, Subject>;
  readonly group: string;
  /** How long an event that fails by itself is retried before it becomes a dead letter. */
  readonly faultMs: number;
  readonly metrics: Metrics;
  readonly tracing?: Tracing | undefined;
  readonly log: Logger;
}

/** The result of one attempt to apply a message. */
type Attempt =
  | { readonly kind: "done"; readonly outcome: EventOutcome }
  | {
      readonly kind: "dead";
      /** Absent if nothing was applied. */
      readonly outcome?: EventOutcome;
      readonly reason: AnyDeadLetterReason;
      readonly detail: string;
    }
  | Failure;

type Failure =
  /** The store is unavailable or overloaded: every event waits. */
  | { readonly kind: "wait"; readonly error: Error }
  /** An internal error, which may concern this event only. */
  | { readonly kind: "fault"; readonly error: Error };

const TOMBSTONE: Attempt = { kind: "done", outcome: "tombstone" };

interface Retried {
  readonly message: IncomingMessage;
  readonly attempt: Failure;
}

/** Applies the events of a slice to the store, and sends those that cannot be applied to the dead-letter topic. */
export class EventProcessor {
  readonly #options: EventProcessorOptions;
  /** When the store last acknowledged an event, by the monotonic clock. */
  #appliedAt = Number.NEGATIVE_INFINITY;

  constructor(options: EventProcessorOptions) {
    this.#options = options;
  }

  /** Resolves when each message is in the store or a dead letter. Rejects if `signal` is aborted. */
  async process(slice: Slice, reader: PartitionReader, signal: AbortSignal): Promise<void> {
    let letters: DeadLetter[] = [];
    const startedAt = performance.now();
    let left = slice.messages;
    let atOnce = Number.POSITIVE_INFINITY;
    const backoff = new Backoff(RETRY_MS_MIN, RETRY_MS_MAX);
    while (left.length > 0) {
      const retried = await this.#applyAll(left, atOnce, letters, startedAt, signal);
      const [first] = retried;
      if (first !== undefined) {
        const { offset } = first.message;
        const isBefore = (letter: DeadLetter) => BigInt(letter.offset) < BigInt(offset);
        await this.#sendDeadLetters(letters.filter(isBefore), reader, signal);
        letters = letters.filter((letter) => !isBefore(letter));
        await reader.commitUpTo(BigInt(offset));
        this.#report(reader, first.message, first.attempt);
        await wait(backoff.next(), undefined, { signal });
      }
      left = retried.map(({ message }) => message);
      // The store may fail a whole batch of operations because of one. Alone, each fails by itself.
      atOnce = retried.some(({ attempt }) => attempt.kind === "fault") ? 1 : Number.POSITIVE_INFINITY;
    }
    if (slice.unreadable !== undefined) {
      letters.push(toBatchLetter(slice.unreadable, Date.now()));
    }
    letters.sort((a, b) => Number(BigInt(a.offset) - BigInt(b.offset)));
    await this.#sendDeadLetters(letters, reader, signal);
  }

  /** Tries each message once, `atOnce` in parallel. Adds dead letters. Returns the messages to be retried. */
  async #applyAll(
    messages: readonly IncomingMessage[],
    atOnce: number,
    letters: DeadLetter[],
    startedAt: number,
    signal: AbortSignal,
  ): Promise<Retried[]> {
    const { budget } = this.#options;
    const attempts: Promise<Attempt>[] = [];
    for (const message of messages) {
      signal.throwIfAborted();
      const attempt = this.#apply(message);
      attempts.push(attempt);
      if (attempts.length >= atOnce) {
        await attempt;
      }
      if (budget.isSpent) {
        await budget.nextTurn();
      }
    }
    const retried: Retried[] = [];
    const ended = await Promise.all(attempts);
    this.#count(messages[0]?.topic ?? "", ended);
    for (const [index, attempt] of ended.entries()) {
      const message = messages[index];
      if (message === undefined || attempt.kind === "done") {
        continue;
      }
      if (attempt.kind === "dead") {
        letters.push(toDeadLetter(message, attempt.reason, attempt.detail, Date.now()));
      } else if (attempt.kind === "fault" && this.#isOwnFault(startedAt)) {
        letters.push(toDeadLetter(message, "internal-error", attempt.error.message, Date.now()));
      } else {
        retried.push({ message, attempt });
      }
    }
    return retried;
  }

  /** Counts the outcomes of messages of one topic, each outcome at once. */
  #count(topic: string, attempts: readonly Attempt[]): void {
    const counts = new Map<EventOutcome, number>();
    for (const attempt of attempts) {
      if ("outcome" in attempt) {
        counts.set(attempt.outcome, (counts.get(attempt.outcome) ?? 0) + 1);
      }
    }
    for (const [outcome, count] of counts) {
      this.#options.metrics.events.inc({ topic, outcome }, count);
    }
  }

  /** True if an event has failed for long enough, while the store has applied others: then the event is the cause. */
  #isOwnFault(startedAt: number): boolean {
    return performance.now() - startedAt >= this.#options.faultMs && this.#appliedAt > startedAt;
  }

  /** Does not reject. */
  async #apply(message: IncomingMessage): Promise<Attempt> {
    try {
      if (message.oversizedBytes !== undefined) {
        return { kind: "dead", reason: "too-large", detail: `a record of ${message.oversizedBytes} bytes` };
      }
      const { decoder, subjects, store, tracing } = this.#options;
      const decoding = decoder.decode(message, subjects.get(message.topic) ?? "product");
      const decoded = decoding instanceof Promise ? await decoding : decoding;
      if (decoded.kind === "dead") {
        return decoded;
      }
      if (decoded.kind === "tombstone") {
        return TOMBSTONE;
      }
      const { outcome, rejected } = await (tracing === undefined
        ? applyEvent(store, decoded, message)
        : this.#applyTraced(tracing, decoded, message));
      this.#appliedAt = performance.now();
      return rejected === undefined
        ? { kind: "done", outcome }
        : {
            kind: "dead",
            outcome,
            reason: rejected.reason,
            detail: `${rejected.detail}; the rest was applied`,
          };
    } catch (error) {
      return failedAttempt(error);
    }
  }

  async #applyTraced(tracing: Tracing, event: SellerEvent, message: IncomingMessage): Promise<Applied> {
    const span = processSpan(tracing, message, this.#options.group);
    try {
      const applied = await span.run(() => applyEvent(this.#options.store, event, message));
      span.end();
      return applied;
    } catch (error) {
      span.end(error instanceof InventoryError ? error.code : "fault");
      throw error;
    }
  }

  /** Sends letters in the order of their offsets, after everything before the first of them is done. */
  async #sendDeadLetters(
    letters: readonly DeadLetter[],
    reader: PartitionReader,
    signal: AbortSignal,
  ): Promise<void> {
    const [first] = letters;
    await this.#options.deadLetters.send(letters, signal, async (letter, reason) => {
      const { topic, partition, offset } = letter;
      const key = shortKey(letter.key);
      if (reader.trouble?.reason !== reason || reader.trouble.offset !== offset) {
        this.#options.log.warn(
          { topic, partition, offset, key, reason, letter: letter.reason, detail: letter.detail },
          "A dead letter cannot be sent; its partition waits",
        );
      }
      reader.setTrouble({ reason, offset, key });
      await reader.commitUpTo(BigInt(offset));
    });
    if (first !== undefined) {
      const { topic, partition, offset, key, reason, detail } = first;
      this.#options.log.warn(
        { letters: letters.length, topic, partition, offset, key: shortKey(key), reason, detail },
        "Messages that can never be applied were dead-lettered; this is the first of them",
      );
    }
  }

  #report(reader: PartitionReader, message: IncomingMessage, attempt: Failure): void {
    const { topic, partition, offset } = message;
    const place = { topic, partition, offset, key: shortKey(message.key) };
    const { error } = attempt;
    if (reader.trouble?.reason !== error.message) {
      if (attempt.kind === "fault") {
        this.#options.log.error(
          { ...place, err: error },
          "A seller's event failed with an internal error; it is retried",
        );
      } else {
        this.#options.log.warn(
          { ...place, reason: error.message },
          "Sellers' events are waiting; they are retried until they are applied",
        );
      }
    }
    reader.setTrouble({ reason: error.message, offset, key: place.key });
  }
}

/** The attempt that ended with an error of the store or of the decoder. */
function failedAttempt(thrown: unknown): Attempt {
  const error = thrown instanceof Error ? thrown : new Error(String(thrown));
  switch (error instanceof InventoryError ? error.code : undefined) {
    case "STORE_UNAVAILABLE":
    case "OVERLOADED":
      return { kind: "wait", error };
    case "INVALID_INPUT":
      // All other bounds were checked by the decoder.
      return { kind: "dead", reason: "time-ahead", detail: error.message };
    case "STOCK_OUT_OF_RANGE":
      return { kind: "dead", reason: "bad-stock", detail: error.message };
    default:
      return { kind: "fault", error };
  }
}
