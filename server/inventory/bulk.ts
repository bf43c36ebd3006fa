import { InventoryError } from "./errors.ts";

/** Mutations of batches that are in the store at once, over all batches of this server: two script calls of Redis. */
const IN_STORE_MAX = 128;
/** Batches that run or wait, over all callers. Bounds the memory that they take. */
const BATCHES_MAX = 64;

/** One mutation of a batch. */
export interface BulkItem<T> {
  readonly productId: string;
  run(): Promise<T>;
}

/**
 * Runs the mutations of batches beside those of single calls. Few mutations of batches are in the store at once, so that a
 * single call waits for few of them, however large and many the batches are. Batches take turns.
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
   * Runs every mutation once, bucket by bucket, and those of one product in the order of the items. Resolves with the results
   * in the order of the items. Mutations that have not started by the first `STORE_UNAVAILABLE` are rejected with it, and by
   * the abort of the signal with its reason. Rejects with `OVERLOADED` if too many batches are in flight.
   */
  async run<T>(items: readonly BulkItem<T>[], signal: AbortSignal): Promise<PromiseSettledResult<T>[]> {
    if (this.#batches >= BATCHES_MAX) {
      throw new InventoryError(
        "OVERLOADED",
        `${this.#batches} batches are in flight, and the limit is ${BATCHES_MAX}; try again later`,
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
    let unavailable: InventoryError | undefined;
    const runOne = async (item: BulkItem<T>): Promise<PromiseSettledResult<T>> => {
      await this.#enter();
      try {
        signal.throwIfAborted();
        if (unavailable !== undefined) {
          throw unavailable;
        }
        return { status: "fulfilled", value: await item.run() };
      } catch (reason) {
        if (reason instanceof InventoryError && reason.code === "STORE_UNAVAILABLE") {
          unavailable ??= reason;
        }
        return { status: "rejected", reason };
      } finally {
        this.#leave();
      }
    };
    const chains = this.#chainsOf(items);
    let next = 0;
    const work = async (): Promise<void> => {
      for (let chain = chains[next++]; chain !== undefined; chain = chains[next++]) {
        for (const [index, item] of chain) {
          results[index] = await runOne(item);
        }
      }
    };
    await Promise.all(Array.from({ length: Math.min(IN_STORE_MAX, chains.length) }, work));
    return results;
  }

  /** The items of each product in their order, with their indexes; sorted by bucket. */
  #chainsOf<T>(items: readonly BulkItem<T>[]): [index: number, item: BulkItem<T>][][] {
    const chains = new Map<string, [number, BulkItem<T>][]>();
    for (const [index, item] of items.entries()) {
      const chain = chains.get(item.productId);
      if (chain === undefined) {
        chains.set(item.productId, [[index, item]]);
      } else {
        chain.push([index, item]);
      }
    }
    return [...chains]
      .map(([productId, chain]) => ({ bucket: this.#bucketOf(productId), chain }))
      .sort((a, b) => a.bucket - b.bucket)
      .map(({ chain }) => chain);
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

  /** Passes the place on to the mutation that has waited longest. */
  #leave(): void {
    const next = this.#waiting.shift();
    if (next === undefined) {
      this.#inStore -= 1;
    } else {
      next();
    }
  }
}
