import { InventoryError } from "../inventory/errors.ts";
import { storeUnavailable } from "./client.ts";
import type { BatchObserver, ItemTrace } from "./instruments.ts";
import { withResponseTimeout } from "./response-timeout.ts";

/** How a coalescer cuts its batches. */
export interface CoalescerOptions<Item, Result> extends BatchObserver<Item> {
  /** Sends one batch; answers in the order of the items. */
  readonly send: (items: readonly Item[]) => Promise<readonly Result[]>;
  /** How much one item adds to a batch: the number of products it touches, for example. */
  readonly weightOf: (item: Item) => number;
  /** Most weight in one batch; a heavier item travels alone. Bounds how long Redis is busy with one script. */
  readonly batchWeightMax: number;
  /** Most items in one batch. */
  readonly batchItemsMax: number;
  /** Batches under way at once: two keep Redis busy while the answer of one is on its way. */
  readonly inFlightMax: number;
  /** Most items waiting; one more is `OVERLOADED`. */
  readonly waitingMax: number;
  /**
   * An item is `STORE_UNAVAILABLE` when for this long, since it came, no batch was answered at all; it
   * is not sent any more if it was still waiting. A store that answers others is busy, and not away.
   */
  readonly answerMsMax: number;
  /** An item that has not been sent to a busy store by then is `OVERLOADED`. One that was sent may happen: it gets its answer. */
  readonly patienceMsMax: number;
  /** Whether to send the item once more after its batch failed with this error. */
  readonly mayRepeat: (item: Item, error: unknown) => boolean;
  /** What the item's caller gets for the error its batch failed with. */
  readonly errorOf: (error: unknown) => unknown;
  /** Whether a batch can be sent now. */
  readonly isReady: () => boolean;
  /** Whether there is no use in waiting. */
  readonly isLongGone: () => boolean;
  /** Calls back once when batches can be sent again. */
  readonly onceReady: (then: () => void) => void;
}

interface Waiting<Item, Result> {
  readonly item: Item;
  readonly weight: number;
  readonly resolve: (result: Result) => void;
  readonly reject: (error: unknown) => void;
  readonly submittedAt: number;
  readonly trace: ItemTrace | undefined;
  timer: ReturnType<typeof withResponseTimeout>;
  settled: boolean;
  sent: boolean;
  repeated: boolean;
}

/**
 * Group commit: what arrives while a batch is under way travels together in the next one. Callers
 * share the cost of a round trip and of a script call, but never an answer: each item has its own.
 *
 * The idea is that of group commit in DeWitt et al., "Implementation Techniques for Main Memory
 * Database Systems", SIGMOD 1984, section 5.2.
 */
export class Coalescer<Item, Result> {
  readonly #options: CoalescerOptions<Item, Result>;
  #waiting: Waiting<Item, Result>[] = [];
  #inFlight = 0;
  #answeredAt = Number.NEGATIVE_INFINITY;
  #flushScheduled = false;
  #waitsForReady = false;
  #closed = false;

  constructor(options: CoalescerOptions<Item, Result>) {
    this.#options = options;
  }

  /** Sends the item with the next batch. */
  submit(item: Item): Promise<Result> {
    const { waitingMax, answerMsMax, isLongGone, weightOf } = this.#options;
    if (this.#closed || isLongGone()) {
      return Promise.reject(storeUnavailable());
    }
    if (this.#waiting.length >= waitingMax) {
      return Promise.reject(
        new InventoryError(
          "OVERLOADED",
          `${waitingMax} operations are waiting for the store; try again shortly`,
        ),
      );
    }
    const { promise, resolve, reject } = Promise.withResolvers<Result>();
    const waiting: Waiting<Item, Result> = {
      item,
      weight: weightOf(item),
      resolve,
      reject,
      submittedAt: performance.now(),
      trace: this.#options.trace?.(item),
      timer: withResponseTimeout(answerMsMax, (overAtMs) => this.#onSilence(waiting, overAtMs)),
      settled: false,
      sent: false,
      repeated: false,
    };
    this.#waiting.push(waiting);
    this.#scheduleFlush();
    return promise;
  }

  /** How many items wait to be sent. */
  get waiting(): number {
    return this.#waiting.length;
  }

  /** Rejects what is waiting with `STORE_UNAVAILABLE`, and everything from now on. */
  close(): void {
    this.#closed = true;
    for (const waiting of this.#waiting.splice(0)) {
      this.#fail(waiting, storeUnavailable());
    }
  }

  /** Gives an item up if the store has been silent; waits on while it answers others. */
  #onSilence(waiting: Waiting<Item, Result>, overAtMs: number): void {
    const { answerMsMax, patienceMsMax } = this.#options;
    const silentMs = overAtMs - Math.max(waiting.submittedAt, this.#answeredAt);
    if (silentMs >= answerMsMax) {
      this.#fail(waiting, storeUnavailable(new Error(`No answer within ${answerMsMax} ms`)));
    } else if (!waiting.sent && overAtMs - waiting.submittedAt >= patienceMsMax) {
      const message = `The stock store is busy: no turn within ${patienceMsMax} ms; try again shortly`;
      this.#fail(waiting, new InventoryError("OVERLOADED", message));
    } else {
      waiting.timer = withResponseTimeout(answerMsMax - silentMs, (againAtMs) =>
        this.#onSilence(waiting, againAtMs),
      );
    }
  }

  /** Flushes after the events of this turn of the loop, so that calls that came in together go together. */
  #scheduleFlush(): void {
    if (!this.#flushScheduled && this.#inFlight < this.#options.inFlightMax) {
      this.#flushScheduled = true;
      setImmediate(() => {
        this.#flushScheduled = false;
        this.#flush();
      });
    }
  }

  #flush(): void {
    const { isReady, onceReady, inFlightMax } = this.#options;
    while (this.#inFlight < inFlightMax && this.#waiting.length > 0) {
      if (!isReady()) {
        if (!this.#waitsForReady) {
          this.#waitsForReady = true;
          onceReady(() => {
            this.#waitsForReady = false;
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

  #takeBatch(): Waiting<Item, Result>[] {
    const { batchItemsMax, batchWeightMax } = this.#options;
    const batch: Waiting<Item, Result>[] = [];
    let weight = 0;
    let taken = 0;
    for (const waiting of this.#waiting) {
      const full = batch.length >= batchItemsMax || weight + waiting.weight > batchWeightMax;
      if (!waiting.settled && batch.length > 0 && full) {
        break;
      }
      taken += 1;
      if (!waiting.settled) {
        waiting.sent = true;
        batch.push(waiting);
        weight += waiting.weight;
      }
    }
    this.#waiting.splice(0, taken);
    return batch;
  }

  async #sendBatch(batch: readonly Waiting<Item, Result>[]): Promise<void> {
    this.#inFlight += 1;
    const sentAt = performance.now();
    this.#options.onSent?.(batch.length);
    for (const { trace } of batch) {
      trace?.sent(batch.length);
    }
    try {
      const results = await this.#options.send(batch.map((waiting) => waiting.item));
      this.#answeredAt = performance.now();
      this.#options.onEnded?.(this.#answeredAt - sentAt, undefined);
      if (results.length !== batch.length) {
        throw new Error(`${batch.length} operations were sent and ${results.length} answers came`);
      }
      for (const [index, result] of results.entries()) {
        const waiting = batch[index];
        if (waiting !== undefined) {
          this.#answer(waiting, result);
        }
      }
    } catch (error) {
      this.#options.onEnded?.(performance.now() - sentAt, error);
      this.#onBatchFailed(batch, error);
    } finally {
      this.#inFlight -= 1;
      this.#flush();
    }
  }

  #onBatchFailed(batch: readonly Waiting<Item, Result>[], error: unknown): void {
    const again: Waiting<Item, Result>[] = [];
    for (const waiting of batch) {
      if (
        !this.#closed &&
        !waiting.settled &&
        !waiting.repeated &&
        this.#options.mayRepeat(waiting.item, error)
      ) {
        waiting.repeated = true;
        again.push(waiting);
      } else {
        this.#fail(waiting, this.#options.errorOf(error));
      }
    }
    this.#waiting = [...again, ...this.#waiting];
  }

  #answer(waiting: Waiting<Item, Result>, result: Result): void {
    waiting.timer.cancel();
    if (!waiting.settled) {
      waiting.settled = true;
      waiting.trace?.ended(undefined);
      waiting.resolve(result);
    }
  }

  #fail(waiting: Waiting<Item, Result>, error: unknown): void {
    waiting.timer.cancel();
    if (!waiting.settled) {
      waiting.settled = true;
      waiting.trace?.ended(error);
      waiting.reject(error);
    }
  }
}
