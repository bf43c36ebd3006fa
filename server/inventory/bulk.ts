import { InventoryError } from "./errors.ts";

/** Mutations of batches that are in the store at once, over all batches of this server. */
const IN_STORE_MAX = 128;
/** Batches that run or wait, over all callers. Bounds the memory that they take. */
const BATCHES_MAX = 64;

/** One mutation of a batch. */
export interface BulkItem<T> {
  readonly productId: string;
  run(): Promise<T>;
}

/**
 * Runs the mutations of batches beside those of single calls. A batch has few mutations in the store at once, so that a
 * single call waits for few of them, whatever the size of the batch.
 */
export class BulkQueue {
  readonly #bucketOf: (productId: string) => number;
  readonly #waiting: (() => void)[] = [];
  #inStore = 0;
  #batches = 0;

  /** `bucketOf`: see `InventoryStore`. */
  constructor(bucketOf: (productId: string) => number) {
    this.#bucketOf = bucketOf;
  }

  /**
   * Runs every mutation once, bucket by bucket, and those of one product in order. Resolves with the results in the order of
   * the items. After the first `STORE_UNAVAILABLE`, or once the signal is aborted, those that have not started are not run.
   * Rejects with `OVERLOADED` if too many batches are waiting.
   */
  async run<T>(items: readonly BulkItem<T>[], signal: AbortSignal): Promise<PromiseSettledResult<T>[]> {
    if (this.#batches >= BATCHES_MAX) {
      throw new InventoryError(
        "OVERLOADED",
        `${BATCHES_MAX} batches are in flight, which is the limit; try again later`,
      );
    }
    this.#batches += 1;
    try {
      return await this.#runAll(items, signal);
    } finally {
      this.#batches -= 1;
    }
  }

  async #runAll<T>(items: readonly BulkItem<T>[], signal: AbortSignal): Promise<PromiseSettledResult<T>[]> {
    const results: PromiseSettledResult<T>[] = [];
    let unavailable: unknown;
    const runOne = async (index: number, item: BulkItem<T>): Promise<void> => {
      await this.#enter();
      try {
        signal.throwIfAborted();
        if (unavailable !== undefined) {
          throw unavailable;
        }
        results[index] = { status: "fulfilled", value: await item.run() };
      } catch (reason) {
        results[index] = { status: "rejected", reason };
        if (reason instanceof InventoryError && reason.code === "STORE_UNAVAILABLE") {
          unavailable ??= reason;
        }
      } finally {
        this.#leave();
      }
    };
    const latest = new Map<string, Promise<void>>();
    const order = [...items.entries()].sort(
      ([a, { productId: productA }], [b, { productId: productB }]) =>
        this.#bucketOf(productA) - this.#bucketOf(productB) || a - b,
    );
    for (const [index, item] of order) {
      const earlier = latest.get(item.productId);
      latest.set(
        item.productId,
        earlier === undefined ? runOne(index, item) : earlier.then(() => runOne(index, item)),
      );
    }
    await Promise.all(latest.values());
    return results;
  }

  async #enter(): Promise<void> {
    if (this.#inStore < IN_STORE_MAX) {
      this.#inStore += 1;
      return;
    }
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting.push(resolve);
    await promise;
  }

  #leave(): void {
    const next = this.#waiting.shift();
    if (next === undefined) {
      this.#inStore -= 1;
    } else {
      next();
    }
  }
}
