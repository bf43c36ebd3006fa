import { InventoryError } from "../../inventory/errors.ts";
import { storeUnavailable } from "../connection/error-replies.ts";
import { withResponseTimeout } from "../connection/response-timeout.ts";
import type { BatchObserver, ItemTrace } from "../instruments.ts";

/** How a coalescer forms and sends batches. */
export interface CoalescerOptions<Item, Result> extends BatchObserver<Item> {
  /** Sends one batch. Resolves with one result or `Failure` per item, in the order of the items. Rejects if all failed. */
  readonly send: (items: readonly Item[]) => Promise<readonly (Result | Failure)[]>;
  /** Weight that one item adds to a batch, such as the number of products it touches. */
  readonly weightOf: (item: Item) => number;
  /** Maximum weight of a batch; a heavier item is sent alone. Bounds how long one script blocks Redis. */
  readonly batchWeightMax: number;
  /** Maximum number of items in one batch. */
  readonly batchItemsMax: number;
  /** Maximum number of batches in flight. Two keep Redis busy while the reply to one is on the network. */
  readonly inFlightMax: number;
  /** The same while the batches are full: waiting would not make them larger. Equal to `inFlightMax` unless given. */
  readonly fullInFlightMax?: number;
  /** Maximum number of queued items; one more is rejected with `OVERLOADED`. */
  readonly queueMax: number;
  /**
   * Response timeout, ms. An item is rejected with `STORE_UNAVAILABLE` when no batch has been answered for
   * this long since it was submitted; if it is still queued it is not sent. Replies to other batches restart
   * the timeout: the store is then busy, not unavailable.
   */
  readonly responseMsMax: number;
  /** Queue timeout, ms. An item that is still queued by then is rejected with `OVERLOADED`. An item that was sent waits for its result. */
  readonly queueMsMax: number;
  /** Whether to resend the item once after it or its batch failed with this error. */
  readonly shouldResend: (item: Item, error: unknown) => boolean;
  /** Maps the error of a failed item or batch to the error that the item's caller gets. */
  readonly errorOf: (error: unknown) => unknown;
  /** Whether a batch can be sent now. */
  readonly isReady: () => boolean;
  /** The error with which new items should be rejected instead of queued, if any. */
  readonly unavailability: () => InventoryError | undefined;
  /** Calls `then` once, when batches can be sent again. */
  readonly onceReady: (then: () => void) => void;
}

/** The failure of one item of a batch. */
export class Failure {
  readonly error: unknown;

  constructor(error: unknown) {
    this.error = error;
  }
}

interface Entry<Item, Result> {
  readonly item: Item;
  readonly weight: number;
  readonly resolve: (result: Result) => void;
  readonly reject: (error: unknown) => void;
  readonly submittedAt: number;
  readonly trace: ItemTrace | undefined;
  timer: ReturnType<typeof withResponseTimeout>;
  isSettled: boolean;
  isSent: boolean;
  isResent: boolean;
}

/**
 * Group commit: items that arrive while a batch is in flight are sent together in the next batch. They
 * share the cost of a round trip and of a script call. Each item has its own result.
 *
 * The idea is that of group commit in DeWitt et al., "Implementation Techniques for Main Memory
 * Database Systems", SIGMOD 1984, section 5.2.
 */
export class Coalescer<Item, Result> {
  readonly #options: CoalescerOptions<Item, Result>;
  #queue: Entry<Item, Result>[] = [];
  #inFlight = 0;
  #lastResponseAt = Number.NEGATIVE_INFINITY;
  #isFlushScheduled = false;
  #isAwaitingReady = false;
  /** The error of items that are submitted, or still queued, after the coalescer was closed. */
  #closed: unknown;

  constructor(options: CoalescerOptions<Item, Result>) {
    this.#options = options;
  }

  /**
   * Queues the item for the next batch. Resolves with its result. `submittedAt` is the time (`performance.now()`) from which
   * its timeouts count: now, unless given.
   */
  submit(item: Item, submittedAt?: number): Promise<Result> {
    const { queueMax, responseMsMax, unavailability, weightOf } = this.#options;
    const unavailable = this.#closed ?? unavailability();
    if (unavailable !== undefined) {
      return Promise.reject(unavailable);
    }
    if (this.#queue.length >= queueMax) {
      return Promise.reject(
        new InventoryError(
          "OVERLOADED",
          `${queueMax} operations are waiting for the store; try again shortly`,
        ),
      );
    }
    const { promise, resolve, reject } = Promise.withResolvers<Result>();
    const now = performance.now();
    const timeoutMs =
      submittedAt === undefined ? responseMsMax : Math.max(0, submittedAt + responseMsMax - now);
    const entry: Entry<Item, Result> = {
      item,
      weight: weightOf(item),
      resolve,
      reject,
      submittedAt: submittedAt ?? now,
      trace: this.#options.trace?.(item),
      timer: withResponseTimeout(timeoutMs, (expiredAtMs) => this.#onResponseTimeout(entry, expiredAtMs)),
      isSettled: false,
      isSent: false,
      isResent: false,
    };
    this.#queue.push(entry);
    this.#scheduleFlush();
    return promise;
  }

  /** Number of queued items. */
  get queued(): number {
    return this.#queue.length;
  }

  /** Rejects all queued and all future items: with `STORE_UNAVAILABLE` unless an error is given. */
  close(error: unknown = storeUnavailable()): void {
    this.#closed ??= error;
    for (const entry of this.#queue.splice(0)) {
      this.#fail(entry, error);
    }
  }

  /** Rejects an item whose response or queue timeout has expired; otherwise restarts its timer. */
  #onResponseTimeout(entry: Entry<Item, Result>, expiredAtMs: number): void {
    const { responseMsMax, queueMsMax, unavailability } = this.#options;
    const msSinceResponse = expiredAtMs - Math.max(entry.submittedAt, this.#lastResponseAt);
    if (msSinceResponse >= responseMsMax) {
      this.#fail(
        entry,
        unavailability() ?? storeUnavailable(new Error(`No reply within ${responseMsMax} ms`)),
      );
    } else if (!entry.isSent && expiredAtMs - entry.submittedAt >= queueMsMax) {
      const message = `The stock store is busy: not sent within ${queueMsMax} ms; try again shortly`;
      this.#fail(entry, new InventoryError("OVERLOADED", message));
    } else {
      entry.timer = withResponseTimeout(responseMsMax - msSinceResponse, (nextExpiredAtMs) =>
        this.#onResponseTimeout(entry, nextExpiredAtMs),
      );
    }
  }

  /** Flushes after this iteration of the event loop, so that calls that arrived together share a batch. */
  #scheduleFlush(): void {
    if (!this.#isFlushScheduled && this.#hasRoom) {
      this.#isFlushScheduled = true;
      setImmediate(() => {
        this.#isFlushScheduled = false;
        this.#flush();
      });
    }
  }

  #flush(): void {
    const { isReady, onceReady } = this.#options;
    while (this.#hasRoom && this.#queue.length > 0) {
      if (!isReady()) {
        if (!this.#isAwaitingReady) {
          this.#isAwaitingReady = true;
          onceReady(() => {
            this.#isAwaitingReady = false;
            this.#flush();
          });
        }
        return;
      }
      const batch = this.#takeBatch();
      if (batch.length > 0) {
        void this.#sendBatch(batch);
      }
    }
  }

  get #hasRoom(): boolean {
    const { inFlightMax, fullInFlightMax = inFlightMax, batchItemsMax } = this.#options;
    return this.#inFlight < (this.#queue.length >= batchItemsMax ? fullInFlightMax : inFlightMax);
  }

  #takeBatch(): Entry<Item, Result>[] {
    const { batchItemsMax, batchWeightMax } = this.#options;
    const batch: Entry<Item, Result>[] = [];
    let weight = 0;
    let taken = 0;
    for (const entry of this.#queue) {
      const full = batch.length >= batchItemsMax || weight + entry.weight > batchWeightMax;
      if (!entry.isSettled && batch.length > 0 && full) {
        break;
      }
      taken += 1;
      if (!entry.isSettled) {
        entry.isSent = true;
        batch.push(entry);
        weight += entry.weight;
      }
    }
    this.#queue.splice(0, taken);
    return batch;
  }

  async #sendBatch(batch: readonly Entry<Item, Result>[]): Promise<void> {
    this.#inFlight += 1;
    const sentAt = performance.now();
    this.#options.onSent?.(batch.length);
    for (const { trace } of batch) {
      trace?.sent(batch.length);
    }
    try {
      const results = await this.#options.send(batch.map((entry) => entry.item));
      this.#lastResponseAt = performance.now();
      this.#options.onEnded?.(this.#lastResponseAt - sentAt, undefined);
      if (results.length !== batch.length) {
        throw new Error(`${batch.length} operations were sent and ${results.length} results were received`);
      }
      const failed: [Entry<Item, Result>, unknown][] = [];
      batch.forEach((entry, index) => {
        const result = results[index];
        if (result instanceof Failure) {
          failed.push([entry, result.error]);
        } else {
          this.#resolve(entry, result as Result);
        }
      });
      if (failed.length > 0) {
        this.#onFailed(failed);
      }
    } catch (error) {
      this.#options.onEnded?.(performance.now() - sentAt, error);
      this.#onFailed(batch.map((entry) => [entry, error]));
    } finally {
      this.#inFlight -= 1;
      this.#flush();
    }
  }

  #onFailed(failed: readonly (readonly [Entry<Item, Result>, unknown])[]): void {
    const resent: Entry<Item, Result>[] = [];
    for (const [entry, error] of failed) {
      if (!entry.isSettled && !entry.isResent && this.#options.shouldResend(entry.item, error)) {
        entry.isResent = true;
        resent.push(entry);
      } else {
        this.#fail(entry, this.#options.errorOf(error));
      }
    }
    if (this.#closed === undefined) {
      this.#queue = [...resent, ...this.#queue];
    } else {
      for (const entry of resent) {
        this.#fail(entry, this.#closed);
      }
    }
  }

  #resolve(entry: Entry<Item, Result>, result: Result): void {
    entry.timer.cancel();
    if (!entry.isSettled) {
      entry.isSettled = true;
      entry.trace?.ended(undefined);
      entry.resolve(result);
    }
  }

  #fail(entry: Entry<Item, Result>, error: unknown): void {
    entry.timer.cancel();
    if (!entry.isSettled) {
      entry.isSettled = true;
      entry.trace?.ended(error);
      entry.reject(error);
    }
  }
}
