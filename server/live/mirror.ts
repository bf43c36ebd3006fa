import { EventEmitter } from "node:events";
import type { Collection } from "../inventory/collection.ts";
import type { FeedListener, ProductState } from "../inventory/feed.ts";
import { available, type StockChange } from "../inventory/ledger.ts";

/** How one product came to be other than it was. */
export interface MirrorChange {
  /** Absent where the mirror had not heard of the product. */
  readonly before: ProductState | undefined;
  readonly after: ProductState;
}

interface MirrorEvents {
  /** Products that changed, each once, with their newest state. */
  change: [readonly MirrorChange[]];
  stale: [boolean];
  loaded: [];
}

/**
 * Every product's newest state in memory, fed by the change stream. Reads of shoppers are answered
 * from here, also while the store is away: then marked stale. A state is applied by its version alone,
 * so that repeats and the overlap of full picture and stream do no harm.
 */
export class Mirror implements FeedListener {
  readonly #events = new EventEmitter<MirrorEvents>();
  readonly #states = new Map<string, ProductState>();
  /** While the full picture loads: what it has named so far. */
  #named: Set<string> | undefined;
  /** While a full picture of other data loads: its versions began anew. */
  #replaces = false;
  /** Versions that this server has acknowledged and the mirror has not reached yet. */
  readonly #expected = new Map<string, number>();
  #collections: readonly Collection[] = [];
  #isLoaded = false;
  #isStale = true;

  constructor() {
    this.#events.setMaxListeners(0);
  }

  /** Whether a full picture was ever there. */
  get isLoaded(): boolean {
    return this.#isLoaded;
  }

  /** Whether what is here may be behind. */
  get isStale(): boolean {
    return this.#isStale;
  }

  get collections(): readonly Collection[] {
    return this.#collections;
  }

  /** How many products are kept, deleted ones included. */
  get size(): number {
    return this.#states.size;
  }

  /** The product, if it is not deleted. */
  get(productId: string): ProductState | undefined {
    const state = this.#states.get(productId);
    return state?.deleted === false ? state : undefined;
  }

  /**
   * Tells that this server has acknowledged a change: until the mirror has it, a read of the product
   * must go to the store, so that nobody reads less than was acknowledged to them here.
   */
  expect(productId: string, version: number): void {
    const known = this.#states.get(productId)?.version ?? 0;
    if (version > known && version > (this.#expected.get(productId) ?? 0)) {
      this.#expected.set(productId, version);
    }
  }

  /** The product as it is known, deleted or not, unless something newer was acknowledged by this server. */
  current(productId: string): ProductState | undefined {
    return this.#expected.has(productId) ? undefined : this.#states.get(productId);
  }

  /** Every product that is not deleted. */
  *visible(): Generator<ProductState> {
    for (const state of this.#states.values()) {
      if (!state.deleted) {
        yield state;
      }
    }
  }

  /** The IDs of those. It may be read on while products come and go. */
  *visibleIds(): Generator<string> {
    for (const state of this.visible()) {
      yield state.productId;
    }
  }

  on<Name extends keyof MirrorEvents>(
    name: Name,
    listener: (...args: MirrorEvents[Name]) => void,
  ): () => void {
    this.#events.on(name, listener as never);
    return () => this.#events.off(name, listener as never);
  }

  onLoading(isOtherData: boolean): void {
    this.#named = new Set();
    this.#replaces = isOtherData;
    if (isOtherData) {
      // What was acknowledged is lost with the data that it was part of.
      this.#expected.clear();
    }
  }

  onProducts(states: readonly ProductState[]): void {
    for (const state of states) {
      this.#named?.add(state.productId);
    }
    this.#apply(states);
  }

  onLoaded(): void {
    const named = this.#named;
    this.#named = undefined;
    this.#replaces = false;
    if (named !== undefined) {
      const gone = [...this.#states.keys()].filter((productId) => !named.has(productId));
      this.#drop(gone);
    }
    this.#isLoaded = true;
    this.#events.emit("loaded");
  }

  onChanges(changes: readonly StockChange[]): void {
    for (const { ledger } of changes) {
      this.#named?.add(ledger.productId);
    }
    this.#apply(this.#statesAfter(changes));
  }

  onCollections(collections: readonly Collection[]): void {
    this.#collections = [...collections].sort((a, b) => compareNames(a.name, b.name));
  }

  onStale(stale: boolean): void {
    if (stale !== this.#isStale) {
      this.#isStale = stale;
      this.#events.emit("stale", stale);
    }
  }

  /** One at a time: a change that left the details alone takes those of the change before it. */
  *#statesAfter(changes: readonly StockChange[]): Generator<ProductState> {
    for (const { ledger, changeTimeMs, details } of changes) {
      yield {
        productId: ledger.productId,
        available: available(ledger),
        version: ledger.version,
        updateTimeMs: changeTimeMs,
        details: details ?? this.#states.get(ledger.productId)?.details,
        deleted: ledger.deleted,
      };
    }
  }

  /** Applies what is newer, and tells each product once. */
  #apply(states: Iterable<ProductState>): void {
    const changed = new Map<string, MirrorChange>();
    for (const after of states) {
      const known = this.#states.get(after.productId);
      if (known === undefined || after.version > known.version || this.#replaces) {
        const before = changed.has(after.productId) ? changed.get(after.productId)?.before : known;
        this.#states.set(after.productId, after);
        if (after.version >= (this.#expected.get(after.productId) ?? 0)) {
          this.#expected.delete(after.productId);
        }
        changed.set(after.productId, { before, after });
      }
    }
    if (changed.size > 0) {
      this.#events.emit("change", [...changed.values()]);
    }
  }

  /** Forgets products that a full picture did not have: the store came back with other data. */
  #drop(productIds: readonly string[]): void {
    const changed = productIds.flatMap((productId) => {
      const before = this.#states.get(productId);
      this.#states.delete(productId);
      return before && !before.deleted ? [{ before, after: { ...before, deleted: true } }] : [];
    });
    if (changed.length > 0) {
      this.#events.emit("change", changed);
    }
  }
}

/** Names in one order for all: by code point after folding case and accents away, then as they are. */
export function compareNames(a: string, b: string): number {
  return compareText(foldText(a), foldText(b)) || compareText(a, b);
}

/** For searching and sorting: lower case, without accents. */
export function foldText(text: string): string {
  return text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
}

export function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
