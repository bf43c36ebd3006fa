import type { ProductState } from "../../inventory/feed.ts";
import type { ProductDetails } from "../../inventory/ledger.ts";
import { CollectionNumbers } from "./collection-numbers.ts";
import { ProductTexts } from "./product-texts.ts";
import { RowSet } from "./row-set.ts";
import { NO_ROW, RowsById } from "./rows-by-id.ts";
import type { Bytes } from "./text-order.ts";

export { NO_ROW };

const INITIAL_ROWS = 256;
/** Factor by which full columns grow. Pages that were never written take no memory. */
const GROWTH = 1.5;
/**
 * Maximum number of states cached as objects. At about 400 bytes each, 25 MB. The most recently used half is always
 * cached.
 */
const STATES_CACHED_MAX = 65_536;

const IN_USE = 1;
const DELETED = 2;
const HAS_DETAILS = 4;
const RESERVED = 8;
const SHORT = 16;

/** Which columns of a product changed, as bits; `visibility` only together with all others. */
export const CHANGED = {
  text: 1,
  price: 2,
  collection: 4,
  available: 8,
  updateTime: 16,
  visibility: 32,
} as const;
/** The product becomes visible or invisible. */
export const CHANGED_ALL = 63;

/** Keeps an index of visible products. Called in the same step as the change. */
export interface RowObserver {
  /** A visible product is about to change in `changed`, or to become invisible. The table still has the old values. */
  beforeChange(row: number, changed: number): void;
  /** A visible product has changed in `changed`, or has become visible. */
  afterChange(row: number, changed: number): void;
}

/**
 * The newest state of every product, including deleted ones, in columns instead of objects: about 240 bytes per
 * product with its texts, none of which the garbage collector visits. A product keeps its row until it is removed; the
 * rows of removed products are reused.
 */
export class ProductTable {
  #flags = new Uint8Array(INITIAL_ROWS);
  #available = new Float64Array(INITIAL_ROWS);
  #versions = new Float64Array(INITIAL_ROWS);
  #updateTimes = new Float64Array(INITIAL_ROWS);
  #prices = new Float64Array(INITIAL_ROWS);
  #collections = new Uint32Array(INITIAL_ROWS);
  #addresses = new Uint32Array(INITIAL_ROWS);
  #partitions = new Uint8Array(INITIAL_ROWS);
  #rows = 0;
  #size = 0;
  readonly #freeRows: number[] = [];
  readonly #collectionNumbers = new CollectionNumbers();
  readonly #texts = new ProductTexts((row, address) => {
    this.#addresses[row] = address;
  });
  readonly #byId = new RowsById({
    idBytes: (row) => this.idBytes(row),
    cachedId: (row) => this.#cachedState(row)?.productId,
  });
  /** Recently used states. When the map is full it replaces `#olderStates`, whose content is dropped. */
  #states = new Map<number, ProductState>();
  #olderStates = new Map<number, ProductState>();
  readonly #observers: RowObserver[] = [];

  /** Every row in use is below this. */
  get rows(): number {
    return this.#rows;
  }

  /** Number of products, including deleted ones. */
  get size(): number {
    return this.#size;
  }

  /** Memory allocated for texts, bytes. */
  get textBytes(): number {
    return this.#texts.bytes;
  }

  observe(observer: RowObserver): void {
    this.#observers.push(observer);
  }

  /** The product's row, or `NO_ROW`. */
  find(productId: string): number {
    return this.#byId.find(productId);
  }

  isVisible(row: number): boolean {
    return ((this.#flags[row] ?? 0) & (IN_USE | DELETED)) === IN_USE;
  }

  /** Whether the row has a product, deleted or not. */
  isInUse(row: number): boolean {
    return ((this.#flags[row] ?? 0) & IN_USE) !== 0;
  }

  /** Whether active reservations hold units of it. */
  isReserved(row: number): boolean {
    return ((this.#flags[row] ?? 0) & RESERVED) !== 0;
  }

  /** Whether some of the units held are not in stock. */
  isShort(row: number): boolean {
    return ((this.#flags[row] ?? 0) & SHORT) !== 0;
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

  /** 0 without details. */
  price(row: number): number {
    return this.#prices[row] ?? 0;
  }

  /** The number of the product's collection; 0 if it is in none. */
  collection(row: number): number {
    return this.#collections[row] ?? 0;
  }

  /** The number of a collection; `undefined` if it has no products. */
  collectionNumber(collectionId: string): number | undefined {
    return this.#collectionNumbers.find(collectionId);
  }

  productId(row: number): string {
    return this.#cachedState(row)?.productId ?? this.#texts.read(this.#addresses[row] ?? 0).productId;
  }

  /** The numbers of the collections that have products, also deleted ones. */
  collectionNumbers(): number[] {
    return this.#collectionNumbers.numbers();
  }

  /** The ID of a collection that has products. */
  collectionId(number: number): string {
    return this.#collectionNumbers.idOf(number);
  }

  /**
   * The product's ID in UTF-8. The results of this method and of the next three share two buffers: a result is valid
   * until the second call after it.
   */
  idBytes(row: number): Bytes {
    return this.#texts.id(this.#addresses[row] ?? 0);
  }

  /** The ID for searching: folded, except that ASCII letters keep their case. */
  searchableId(row: number): Bytes {
    return this.#texts.searchableId(this.#addresses[row] ?? 0);
  }

  /** The name for searching, in the same form; empty without details. */
  searchableName(row: number): Bytes {
    return this.#texts.searchableName(this.#addresses[row] ?? 0);
  }

  /** Whether the name or the ID contains a folded word. */
  hasWord(row: number, word: Uint8Array): boolean {
    return this.#texts.hasWord(this.#addresses[row] ?? 0, word);
  }

  /** The sort key of the order by name: the name, or the ID without details. */
  sortName(row: number): Bytes {
    return this.#hasDetails(row) ? this.searchableName(row) : this.searchableId(row);
  }

  /** The product's state. For a product that is read often it is the same object until the product changes. */
  state(row: number): ProductState {
    const known = this.#states.get(row);
    if (known !== undefined) {
      return known;
    }
    const state = this.#olderStates.get(row) ?? this.#read(row);
    this.#remember(row, state);
    return state;
  }

  #cachedState(row: number): ProductState | undefined {
    return this.#states.get(row) ?? this.#olderStates.get(row);
  }

  /**
   * Adds or replaces a product and returns its row. `row`: the result of `find`, if the caller has it. `partition`: 0 to
   * 255.
   */
  put(state: ProductState, row = this.find(state.productId), partition = 0): number {
    if (row === NO_ROW) {
      return this.#add(state, partition);
    }
    this.#replace(row, state);
    return row;
  }

  remove(row: number): void {
    if (this.isVisible(row)) {
      this.#notifyBefore(row, CHANGED_ALL);
    }
    this.#byId.remove(row);
    this.#texts.remove(this.#addresses[row] ?? 0);
    this.#collectionNumbers.remove(this.collection(row));
    this.#flags[row] = 0;
    this.#states.delete(row);
    this.#olderStates.delete(row);
    this.#freeRows.push(row);
    this.#size -= 1;
  }

  /** The rows of products that are not deleted. Products may be added and removed while it is read. */
  *visibleRows(): Generator<number> {
    for (let row = 0; row < this.#rows; row++) {
      if (this.isVisible(row)) {
        yield row;
      }
    }
  }

  /** The rows of a partition's products, also of deleted ones. */
  rowsOf(partition: number): RowSet {
    const rows = new RowSet(this.#rows);
    for (let row = 0; row < this.#rows; row++) {
      if (this.#partitions[row] === partition && this.isInUse(row)) {
        rows.set(row, true);
      }
    }
    return rows;
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
      isReserved: this.isReserved(row),
      isShort: this.isShort(row),
    };
  }

  #hasDetails(row: number): boolean {
    return ((this.#flags[row] ?? 0) & HAS_DETAILS) !== 0;
  }

  #add(state: ProductState, partition: number): number {
    const row = this.#freeRows.pop() ?? this.#rows++;
    if (row >= this.#flags.length) {
      this.#grow(Math.ceil(row * GROWTH));
    }
    this.#size += 1;
    this.#collections[row] = 0;
    this.#partitions[row] = partition;
    this.#addresses[row] = this.#texts.add(row, textsOf(state));
    this.#flags[row] = IN_USE;
    this.#byId.add(row);
    this.#write(row, state);
    if (!state.deleted) {
      this.#notifyAfter(row, CHANGED_ALL);
    }
    return row;
  }

  #replace(row: number, state: ProductState): void {
    const before = this.state(row);
    const wasVisible = !before.deleted;
    const changed = wasVisible === state.deleted ? CHANGED_ALL : changedBetween(before, state);
    if (wasVisible) {
      this.#notifyBefore(row, changed);
    }
    if (!sameTexts(before.details, state.details)) {
      const address = this.#addresses[row] ?? 0;
      this.#addresses[row] = this.#texts.add(row, textsOf(state));
      this.#texts.remove(address);
    }
    this.#write(row, state);
    this.#remember(row, state);
    if (!state.deleted) {
      this.#notifyAfter(row, changed);
    }
  }

  /** Writes all columns except the texts. */
  #write(row: number, state: ProductState): void {
    const { available, version, updateTimeMs, details } = state;
    this.#available[row] = available;
    this.#versions[row] = version;
    this.#updateTimes[row] = updateTimeMs;
    this.#prices[row] = details?.price ?? 0;
    const before = this.collection(row);
    this.#collections[row] = this.#collectionNumbers.add(details?.collectionId ?? "");
    this.#collectionNumbers.remove(before);
    this.#flags[row] =
      IN_USE |
      (state.deleted ? DELETED : 0) |
      (details === undefined ? 0 : HAS_DETAILS) |
      (state.isReserved ? RESERVED : 0) |
      (state.isShort ? SHORT : 0);
  }

  #remember(row: number, state: ProductState): void {
    if (this.#states.size === STATES_CACHED_MAX / 2) {
      this.#olderStates = this.#states;
      this.#states = new Map();
    }
    this.#states.set(row, state);
  }

  #notifyBefore(row: number, changed: number): void {
    for (const observer of this.#observers) {
      observer.beforeChange(row, changed);
    }
  }

  #notifyAfter(row: number, changed: number): void {
    for (const observer of this.#observers) {
      observer.afterChange(row, changed);
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
    this.#partitions = grown(this.#partitions, new Uint8Array(rows));
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
