import type { Logger } from "pino";

/**
 * Logs what the partitions load: one line once every partition was loaded for the first time, with the sum of the products
 * and the time from the first start of a load to the last end, and one line for each partition that is loaded again.
 */
export class LoadLog {
  readonly #partitions: number;
  readonly #log: Logger;
  /** Products of each partition at its first load. */
  readonly #loaded = new Map<number, number>();
  #startedAt = Number.POSITIVE_INFINITY;

  constructor(partitions: number, log: Logger) {
    this.#partitions = partitions;
    this.#log = log;
  }

  /** A partition with this number of products was loaded just now; the load began at `startedAt` of `performance.now()`. */
  loaded(partition: number, products: number, startedAt: number): void {
    const ms = Math.round(performance.now() - startedAt);
    if (this.#partitions === 1) {
      this.#log.info({ products, ms, partition }, "Loaded every product's state");
    } else if (this.#loaded.has(partition)) {
      this.#log.info({ products, ms, partition }, "Loaded the products of a partition again");
    } else {
      this.#log.debug({ products, ms, partition }, "Loaded the products of a partition");
      this.#loadedFirst(partition, products, startedAt);
    }
  }

  #loadedFirst(partition: number, products: number, startedAt: number): void {
    this.#loaded.set(partition, products);
    this.#startedAt = Math.min(this.#startedAt, startedAt);
    if (this.#loaded.size === this.#partitions) {
      const sum = [...this.#loaded.values()].reduce((total, count) => total + count, 0);
      const ms = Math.round(performance.now() - this.#startedAt);
      this.#log.info({ products: sum, ms, partitions: this.#partitions }, "Loaded every product's state");
    }
  }
}
