import type { ProductState } from "../../inventory/feed.ts";
import type { ProductDetails } from "../../inventory/ledger.ts";
import { CollectionNumbers } from "./collection-numbers.ts";
import { ProductTexts } from "./product-texts.ts";
import { NO_ROW, RowsById } from "./rows-by-id.ts";
import type { Bytes } from "./text-order.ts";

export { NO_ROW };

const ROWS_AT_FIRST = 256;
/** By how much the columns grow when they are full. What is not written yet takes no memory. */
const GROWTH = 1.5;
/**
 * States kept as objects, 400 bytes each without what others keep with them, so 25 MB at most: those of products that many
 * read or watch are made once. The newest half of them is certain to be there.
 */
const STATES_CACHED_MAX = 65_536;

const IN_USE = 1;
const DELETED = 2;
const HAS_DETAILS = 4;
const MARKED = 8;

/** What of a product is another than before, as bits: what somebody who follows the table has to look at. */
export const CHANGED = { text: 1, price: 2, collection: 4, available: 8, updateTime: 16 } as const;
/** The product appears or vanishes. */
export const CHANGED_ALL = 63;

/** Keeps something of visible products by row. */
export interface RowFollower {
  /** A visible product is about to change in `changed`, or to vanish. The table still has it as it was. */
  leaving(row: number, changed: number): void;
  /** A visible product has changed in `changed`, or appeared. */
  entered(row: number, changed: number): void;
}

/**
 * The newest state of every product, deleted ones included, in columns and not in objects: some 240 bytes a
 * product with its texts, none of which the garbage collector has to visit. A product keeps its row for as long as
 * it is here; rows of products that were removed are used again.
 */
export class ProductTable {
  #flags = new Uint8Array(ROWS_AT_FIRST);
  #available = new Float64Array(ROWS_AT_FIRST);
  #versions = new Float64Array(ROWS_AT_FIRST);
  #updateTimes = new Float64Array(ROWS_AT_FIRST);
  #prices = new Float64Array(ROWS_AT_FIRST);
  #collections = new Uint32Array(ROWS_AT_FIRST);
  #addresses = new Uint32Array(ROWS_AT_FIRST);
  #rows = 0;
  #size = 0;
  readonly #freeRows: number[] = [];
  readonly #collectionNumbers = new CollectionNumbers();
  readonly #texts = new ProductTexts((row, address) => {
    this.#addresses[row] = address;
  });
  readonly #byId = new RowsById({
    idBytes: (row) => this.idBytes(row),
    idAtHand: (row) => this.#stateAtHand(row)?.productId,
  });
  /** States made lately; when there are many, they become the older ones, and those before are forgotten. */
  #states = new Map<number, ProductState>();
  #olderStates = new Map<number, ProductState>();
  readonly #followers: RowFollower[] = [];

  /** Every row in use is below this. */
  get rows(): number {
    return this.#rows;
  }

  /** How many products there are, deleted ones included. */
  get size(): number {
    return this.#size;
  }

  /** What the texts take, bytes. */
  get textBytes(): number {
    return this.#texts.bytes;
  }

  /** Tells the follower of every change from now on, in the step that makes it. */
  follow(follower: RowFollower): void {
    this.#followers.push(follower);
  }

  /** The product's row, or `NO_ROW`. */
  find(productId: string): number {
    return this.#byId.find(productId);
  }

  isVisible(row: number): boolean {
    return ((this.#flags[row] ?? 0) & (IN_USE | DELETED)) === IN_USE;
  }

  available(row: number): number {
    return this.#available[row] ?? 0;
  }

  version(row: number): number {
    return this.#versions[row] ?? 0;
  }

  updateTimeMs(row: number): number {
    return this.#updateTimes[row] ?? 0;
  }

  /** 0 where there are no details. */
  price(row: number): number {
    return this.#prices[row] ?? 0;
  }

  /** The number of the product's collection; 0 where it is in none. */
  collection(row: number): number {
    return this.#collections[row] ?? 0;
  }

  /** The number of a collection, or `undefined` where no product is in it. */
  collectionNumber(collectionId: string): number | undefined {
    return this.#collectionNumbers.find(collectionId);
  }

  /** The product's ID as it is. This and the next three are valid until the next call but one of any of them. */
  idBytes(row: number): Bytes {
    return this.#texts.id(this.#addresses[row] ?? 0);
  }

  /** The ID to search in, folded but for the case of ASCII letters. */
  searchableId(row: number): Bytes {
    return this.#texts.searchableId(this.#addresses[row] ?? 0);
  }

  /** The same of the name; nothing where there are no details. */
  searchableName(row: number): Bytes {
    return this.#texts.searchableName(this.#addresses[row] ?? 0);
  }

  /** Whether the name or the ID has a folded word in it. */
  hasWord(row: number, word: Uint8Array): boolean {
    return this.#texts.hasWord(this.#addresses[row] ?? 0, word);
  }

  /** What names are sorted by: the name, or the ID where there are no details. */
  sortName(row: number): Bytes {
    return this.#hasDetails(row) ? this.searchableName(row) : this.searchableId(row);
  }

  /** The product's state: for one that is read often the same object each time, as long as it does not change. */
  state(row: number): ProductState {
    const known = this.#states.get(row);
    if (known !== undefined) {
      return known;
    }
    const state = this.#olderStates.get(row) ?? this.#read(row);
    this.#remember(row, state);
    return state;
  }

  #stateAtHand(row: number): ProductState | undefined {
    return this.#states.get(row) ?? this.#olderStates.get(row);
  }

  /** Adds the product, or replaces what is known of it in `known`, the row that it was found at. Returns its row. */
  put(state: ProductState, known = this.find(state.productId)): number {
    if (known === NO_ROW) {
      return this.#add(state);
    }
    this.#replace(known, state);
    return known;
  }

  remove(row: number): void {
    if (this.isVisible(row)) {
      this.#leaving(row, CHANGED_ALL);
    }
    this.#byId.remove(row);
    this.#texts.remove(this.#addresses[row] ?? 0);
    this.#collectionNumbers.leave(this.collection(row));
    this.#flags[row] = 0;
    this.#states.delete(row);
    this.#olderStates.delete(row);
    this.#freeRows.push(row);
    this.#size -= 1;
  }

  /** The rows of products that are not deleted. It may be read on while products come and go. */
  *visibleRows(): Generator<number> {
    for (let row = 0; row < this.#rows; row++) {
      if (this.isVisible(row)) {
        yield row;
      }
    }
  }

  /** Marks a row, until all marks are taken away. */
  mark(row: number): void {
    this.#flags[row] = (this.#flags[row] ?? 0) | MARKED;
  }

  clearMarks(): void {
    for (let row = 0; row < this.#rows; row++) {
      this.#flags[row] = (this.#flags[row] ?? 0) & ~MARKED;
    }
  }

  /** The rows of products that are not marked. They may be removed meanwhile. */
  *unmarked(): Generator<number> {
    for (let row = 0; row < this.#rows; row++) {
      if (((this.#flags[row] ?? 0) & (IN_USE | MARKED)) === IN_USE) {
        yield row;
      }
    }
  }

  #read(row: number): ProductState {
    const { productId, name, description } = this.#texts.read(this.#addresses[row] ?? 0);
    return {
      productId,
      available: this.available(row),
      version: this.version(row),
      updateTimeMs: this.updateTimeMs(row),
      details: this.#hasDetails(row)
        ? {
            name,
            description,
            price: this.price(row),
            collectionId: this.#collectionNumbers.idOf(this.collection(row)),
          }
        : undefined,
      deleted: ((this.#flags[row] ?? 0) & DELETED) !== 0,
    };
  }

  #hasDetails(row: number): boolean {
    return ((this.#flags[row] ?? 0) & HAS_DETAILS) !== 0;
  }

  #add(state: ProductState): number {
    const row = this.#freeRows.pop() ?? this.#rows++;
    if (row >= this.#flags.length) {
      this.#grow(Math.ceil(row * GROWTH));
    }
    this.#size += 1;
    this.#collections[row] = 0;
    this.#addresses[row] = this.#texts.add(row, textsOf(state));
    this.#flags[row] = IN_USE;
    this.#byId.add(row);
    this.#write(row, state);
    if (!state.deleted) {
      this.#entered(row, CHANGED_ALL);
    }
    return row;
  }

  #replace(row: number, state: ProductState): void {
    const before = this.state(row);
    const wasVisible = !before.deleted;
    const changed = wasVisible === state.deleted ? CHANGED_ALL : changedBetween(before, state);
    if (wasVisible) {
      this.#leaving(row, changed);
    }
    if (!sameTexts(before.details, state.details)) {
      const address = this.#addresses[row] ?? 0;
      this.#addresses[row] = this.#texts.add(row, textsOf(state));
      this.#texts.remove(address);
    }
    this.#write(row, state);
    this.#remember(row, state);
    if (!state.deleted) {
      this.#entered(row, changed);
    }
  }

  /** All but the texts. */
  #write(row: number, { available, version, updateTimeMs, details, deleted }: ProductState): void {
    this.#available[row] = available;
    this.#versions[row] = version;
    this.#updateTimes[row] = updateTimeMs;
    this.#prices[row] = details?.price ?? 0;
    const before = this.collection(row);
    this.#collections[row] = this.#collectionNumbers.enter(details?.collectionId ?? "");
    this.#collectionNumbers.leave(before);
    const marked = (this.#flags[row] ?? 0) & MARKED;
    this.#flags[row] = IN_USE | marked | (deleted ? DELETED : 0) | (details === undefined ? 0 : HAS_DETAILS);
  }

  #remember(row: number, state: ProductState): void {
    if (this.#states.size === STATES_CACHED_MAX / 2) {
      this.#olderStates = this.#states;
      this.#states = new Map();
    }
    this.#states.set(row, state);
  }

  #leaving(row: number, changed: number): void {
    for (const follower of this.#followers) {
      follower.leaving(row, changed);
    }
  }

  #entered(row: number, changed: number): void {
    for (const follower of this.#followers) {
      follower.entered(row, changed);
    }
  }

  #grow(rows: number): void {
    this.#flags = grown(this.#flags, new Uint8Array(rows));
    this.#available = grown(this.#available, new Float64Array(rows));
    this.#versions = grown(this.#versions, new Float64Array(rows));
    this.#updateTimes = grown(this.#updateTimes, new Float64Array(rows));
    this.#prices = grown(this.#prices, new Float64Array(rows));
    this.#collections = grown(this.#collections, new Uint32Array(rows));
    this.#addresses = grown(this.#addresses, new Uint32Array(rows));
  }
}

function grown<Column extends Uint8Array | Uint32Array | Float64Array>(from: Column, to: Column): Column {
  to.set(from);
  return to;
}

function textsOf({ productId, details }: ProductState) {
  return { productId, name: details?.name ?? "", description: details?.description ?? "" };
}

function sameTexts(a: ProductDetails | undefined, b: ProductDetails | undefined): boolean {
  return a === b || (a?.name === b?.name && a?.description === b?.description);
}

function changedBetween(before: ProductState, after: ProductState): number {
  let changed = 0;
  if (before.available !== after.available) {
    changed |= CHANGED.available;
  }
  if (before.updateTimeMs !== after.updateTimeMs) {
    changed |= CHANGED.updateTime;
  }
  const [old, now] = [before.details, after.details];
  if (old !== now) {
    if (old?.name !== now?.name) {
      changed |= CHANGED.text;
    }
    if ((old?.price ?? 0) !== (now?.price ?? 0)) {
      changed |= CHANGED.price;
    }
    if ((old?.collectionId ?? "") !== (now?.collectionId ?? "")) {
      changed |= CHANGED.collection;
    }
  }
  return changed;
}
