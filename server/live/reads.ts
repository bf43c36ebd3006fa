import { InventoryError } from "../inventory/errors.ts";
import type { ProductState } from "../inventory/feed.ts";
import type { Stock } from "../inventory/ledger.ts";
import { productUnknown } from "../inventory/refusals.ts";
import type { InventoryStore } from "../inventory/store.ts";
import type { Mirror } from "./mirror.ts";

/** A value, and whether it may be out of date because the store is unavailable. */
export interface Read<T> {
  readonly value: T;
  readonly stale: boolean;
}

/**
 * Shoppers' reads. They come from the mirror if it has the product, else from the store, which may adopt it. Never
 * older than what this server has acknowledged; changes of other servers arrive with the delay of the change stream.
 * While the store is unavailable, they return the last known state, marked stale.
 */
export class LiveReads {
  readonly #mirror: Mirror;
  readonly #store: InventoryStore;

  constructor(mirror: Mirror, store: InventoryStore) {
    this.#mirror = mirror;
    this.#store = store;
  }

  /**
   * Synchronous if the mirror has the product. `PRODUCT_UNKNOWN`; `STORE_UNAVAILABLE` if the store is needed and
   * unavailable.
   */
  getStock(productId: string): Read<Stock> | Promise<Read<Stock>> {
    const state = this.#mirror.current(productId);
    return state === undefined
      ? this.#fetch(productId)
      : { value: visible(state), stale: this.#mirror.isStaleOf(productId) };
  }

  /** In the order of the request; `undefined` for an unknown product. */
  async batchGetStock(productIds: readonly string[]): Promise<Read<(Stock | undefined)[]>> {
    const states = productIds.map((productId) => this.#mirror.current(productId));
    const missing = productIds.filter((_, index) => states[index] === undefined);
    const { length } = missing;
    let stale = this.#mirror.staleness().isAmong(length === 0 ? productIds : known(states));
    if (length === 0) {
      return { value: states.map(ifVisible), stale };
    }
    const fetched = new Map<string, Stock | undefined>();
    try {
      const stocks = await this.#store.batchGetStock(missing);
      for (const [index, productId] of missing.entries()) {
        fetched.set(productId, stocks[index]);
      }
    } catch (error) {
      // Without the store, an unknown ID and a new product look the same: answer only if all are known.
      if (
        !isStoreUnavailable(error) ||
        missing.some((productId) => this.#mirror.get(productId) === undefined)
      ) {
        throw error;
      }
      stale = true;
      for (const productId of missing) {
        fetched.set(productId, this.#mirror.get(productId));
      }
    }
    return {
      value: productIds.map((productId, index) => {
        const state = states[index];
        return state === undefined ? fetched.get(productId) : ifVisible(state);
      }),
      stale,
    };
  }

  async #fetch(productId: string): Promise<Read<Stock>> {
    try {
      return { value: await this.#store.getStock(productId), stale: false };
    } catch (error) {
      const known = isStoreUnavailable(error) ? this.#mirror.get(productId) : undefined;
      if (known === undefined) {
        throw error;
      }
      return { value: known, stale: true };
    }
  }
}

function visible(state: ProductState): Stock {
  if (state.deleted) {
    throw productUnknown(state.productId);
  }
  return state;
}

function* known(states: readonly (ProductState | undefined)[]): Generator<string> {
  for (const state of states) {
    if (state !== undefined) {
      yield state.productId;
    }
  }
}

function ifVisible(state: ProductState | undefined): Stock | undefined {
  return state?.deleted === false ? state : undefined;
}

function isStoreUnavailable(error: unknown): boolean {
  return error instanceof InventoryError && error.code === "STORE_UNAVAILABLE";
}
