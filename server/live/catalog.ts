import type { Collection } from "../inventory/collection.ts";
import type { ProductState } from "../inventory/feed.ts";
import { compareText, foldText, type Mirror, type MirrorChange } from "./mirror.ts";
import { SortedIndex } from "./sorted-index.ts";

export const LIST_ORDERS = ["name", "price", "available", "update_time"] as const;
export type ListOrder = (typeof LIST_ORDERS)[number];

/** Where a page ended: the sort key of its last product, and its ID. */
export interface ListPlace {
  readonly key: string | number;
  readonly productId: string;
}

/** What to list. */
export interface ListQuery {
  /** Words that must all be in the name or the ID, in any case, accents aside. */
  readonly words: string;
  readonly inStockOnly: boolean;
  /** Empty: of any collection or none. */
  readonly collectionId: string;
  readonly minPrice: number | undefined;
  readonly maxPrice: number | undefined;
  readonly order: ListOrder;
  readonly descending: boolean;
  readonly limit: number;
  /** Go on after this place. It stays valid whatever changes meanwhile. */
  readonly after: ListPlace | undefined;
}

export interface ListPage {
  readonly stocks: readonly ProductState[];
  /** How many products match in all. */
  readonly total: number;
  /** Where the next page goes on; absent where this is the last. */
  readonly next: ListPlace | undefined;
}

/** The catalog as a page of the shop reads it. */
export interface CatalogView {
  list(query: ListQuery): ListPage;
  readonly collections: readonly Collection[];
  readonly isStale: boolean;
}

/** A product with what it is found and sorted by. */
interface Entry {
  state: ProductState;
  /** Name and ID, folded, to search in. */
  haystack: string;
  keys: Readonly<Record<ListOrder, string | number>>;
}

/** Every visible product in every order, kept with the mirror. */
export class Catalog implements CatalogView {
  readonly #mirror: Mirror;
  readonly #entries = new Map<string, Entry>();
  readonly #indexes: Readonly<Record<ListOrder, SortedIndex<Entry>>> = {
    name: new SortedIndex(byKey("name")),
    price: new SortedIndex(byKey("price")),
    available: new SortedIndex(byKey("available")),
    update_time: new SortedIndex(byKey("update_time")),
  };

  constructor(mirror: Mirror) {
    this.#mirror = mirror;
    this.#onChanges([...mirror.visible()].map((after) => ({ before: undefined, after })));
    mirror.on("change", (changes) => this.#onChanges(changes));
  }

  get collections(): readonly Collection[] {
    return this.#mirror.collections;
  }

  get isStale(): boolean {
    return this.#mirror.isStale;
  }

  list(query: ListQuery): ListPage {
    const matches = matcherOf(query);
    const { order, after, limit } = query;
    const index = this.#indexes[order];
    const entries = query.descending
      ? index.descending((entry) => after === undefined || compareToPlace(entry, order, after) < 0)
      : index.ascending((entry) => after === undefined || compareToPlace(entry, order, after) > 0);
    const found: Entry[] = [];
    for (const entry of entries) {
      if (matches === undefined || matches(entry)) {
        found.push(entry);
        // One more than asked for tells whether there is a next page.
        if (found.length > limit) {
          break;
        }
      }
    }
    const shown = found.slice(0, limit);
    const last = shown.at(-1);
    return {
      stocks: shown.map((entry) => entry.state),
      total: this.#count(matches),
      next:
        found.length > limit && last !== undefined
          ? { key: last.keys[order], productId: last.state.productId }
          : undefined,
    };
  }

  #count(matches: ((entry: Entry) => boolean) | undefined): number {
    if (matches === undefined) {
      return this.#entries.size;
    }
    let total = 0;
    for (const entry of this.#entries.values()) {
      if (matches(entry)) {
        total += 1;
      }
    }
    return total;
  }

  #onChanges(changes: readonly MirrorChange[]): void {
    for (const { after } of changes) {
      const entry = this.#entries.get(after.productId);
      if (after.deleted) {
        this.#remove(entry);
      } else if (entry === undefined) {
        this.#add(after);
      } else {
        this.#update(entry, after);
      }
    }
  }

  #add(state: ProductState): void {
    const entry: Entry = { state, haystack: haystackOf(state), keys: keysOf(state) };
    this.#entries.set(state.productId, entry);
    for (const order of LIST_ORDERS) {
      this.#indexes[order].insert(entry);
    }
  }

  #remove(entry: Entry | undefined): void {
    if (entry !== undefined) {
      this.#entries.delete(entry.state.productId);
      for (const order of LIST_ORDERS) {
        this.#indexes[order].delete(entry);
      }
    }
  }

  #update(entry: Entry, state: ProductState): void {
    const renamed = entry.state.details !== state.details;
    const keys = renamed
      ? keysOf(state)
      : { ...entry.keys, available: state.available, update_time: state.updateTimeMs };
    const moved = LIST_ORDERS.filter((order) => keys[order] !== entry.keys[order]);
    for (const order of moved) {
      this.#indexes[order].delete(entry);
    }
    entry.state = state;
    entry.keys = keys;
    if (renamed) {
      entry.haystack = haystackOf(state);
    }
    for (const order of moved) {
      this.#indexes[order].insert(entry);
    }
  }
}

function keysOf(state: ProductState): Entry["keys"] {
  return {
    name: foldText(state.details?.name ?? state.productId),
    price: state.details?.price ?? 0,
    available: state.available,
    update_time: state.updateTimeMs,
  };
}

function haystackOf(state: ProductState): string {
  return foldText(`${state.details?.name ?? ""}\n${state.productId}`);
}

function byKey(order: ListOrder): (a: Entry, b: Entry) => number {
  return (a, b) =>
    compareKeys(a.keys[order], b.keys[order]) || compareText(a.state.productId, b.state.productId);
}

function compareToPlace(entry: Entry, order: ListOrder, place: ListPlace): number {
  return compareKeys(entry.keys[order], place.key) || compareText(entry.state.productId, place.productId);
}

function compareKeys(a: string | number, b: string | number): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** Whether an entry is asked for, or `undefined` where every one is. */
function matcherOf(query: ListQuery): ((entry: Entry) => boolean) | undefined {
  const tests: ((entry: Entry) => boolean)[] = [];
  const { collectionId, minPrice, maxPrice } = query;
  if (query.inStockOnly) {
    tests.push(({ state }) => state.available > 0);
  }
  if (collectionId !== "") {
    tests.push(({ state }) => state.details?.collectionId === collectionId);
  }
  if (minPrice !== undefined) {
    tests.push(({ keys }) => Number(keys.price) >= minPrice);
  }
  if (maxPrice !== undefined) {
    tests.push(({ keys }) => Number(keys.price) <= maxPrice);
  }
  for (const word of foldText(query.words).split(/\s+/)) {
    if (word !== "") {
      tests.push(({ haystack }) => haystack.includes(word));
    }
  }
  return tests.length === 0 ? undefined : (entry) => tests.every((test) => test(entry));
}
