import { EventEmitter } from "node:events";
import type { Collection } from "../inventory/collection.ts";
import type { FeedListener, ProductState } from "../inventory/feed.ts";
import { available, type StockChange } from "../inventory/ledger.ts";
import { NO_ROW, ProductTable } from "./products/product-table.ts";
import { compareNames } from "./products/text-order.ts";

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
  /** Every product's newest state, by row. */
  readonly table = new ProductTable();
  /** While a full picture loads: what it has named is marked in the table. */
  #isLoading = false;
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
    return this.table.size;
  }

  /** The product, if it is not deleted. */
  get(productId: string): ProductState | undefined {
    const row = this.table.find(productId);
    return row !== NO_ROW && this.table.isVisible(row) ? this.table.state(row) : undefined;
  }

  /**
   * Tells that this server has acknowledged a change: until the mirror has it, a read of the product
   * must go to the store, so that nobody reads less than was acknowledged to them here.
   */
  expect(productId: string, version: number): void {
    const row = this.table.find(productId);
    const known = row === NO_ROW ? 0 : this.table.version(row);
    if (version > known && version > (this.#expected.get(productId) ?? 0)) {
      this.#expected.set(productId, version);
    }
  }

  /** The product as it is known, deleted or not, unless something newer was acknowledged by this server. */
  current(productId: string): ProductState | undefined {
    return this.#expected.has(productId) ? undefined : this.#known(productId);
  }

  /** Every product that is not deleted. */
  *visible(): Generator<ProductState> {
    for (const row of this.table.visibleRows()) {
      yield this.table.state(row);
    }
  }

  /** The IDs of those. It may be read on while products come and go. */
  *visibleIds(): Generator<string> {
    for (const { productId } of this.visible()) {
      yield productId;
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
    this.table.clearMarks();
    this.#isLoading = true;
    this.#replaces = isOtherData;
    if (isOtherData) {
      // What was acknowledged is lost with the data that it was part of.
      this.#expected.clear();
    }
  }

  onProducts(states: readonly ProductState[]): void {
    this.#apply(states);
  }

  onLoaded(): void {
    this.#replaces = false;
    if (this.#isLoading) {
      this.#isLoading = false;
      this.#dropUnmarked();
    }
    this.#isLoaded = true;
    this.#events.emit("loaded");
  }

  onChanges(changes: readonly StockChange[]): void {
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
        details: details ?? this.#known(ledger.productId)?.details,
        deleted: ledger.deleted,
      };
    }
  }

  #known(productId: string): ProductState | undefined {
    const row = this.table.find(productId);
    return row === NO_ROW ? undefined : this.table.state(row);
  }

  /** Applies what is newer, and tells each product once. */
  #apply(states: Iterable<ProductState>): void {
    const { table } = this;
    const changed = new Map<number, MirrorChange>();
    for (const after of states) {
      const { productId, version } = after;
      let row = table.find(productId);
      if (row === NO_ROW || version > table.version(row) || this.#replaces) {
        const known = row === NO_ROW ? undefined : table.state(row);
        row = table.put(after, row);
        if (this.#expected.size > 0 && version >= (this.#expected.get(productId) ?? 0)) {
          this.#expected.delete(productId);
        }
        const earlier = changed.get(row);
        changed.set(row, { before: earlier === undefined ? known : earlier.before, after });
      }
      if (this.#isLoading) {
        table.mark(row);
      }
    }
    if (changed.size > 0) {
      this.#events.emit("change", [...changed.values()]);
    }
  }

  /** Forgets products that a full picture did not have: the store came back with other data. */
  #dropUnmarked(): void {
    const changed: MirrorChange[] = [];
    for (const row of this.table.unmarked()) {
      const before = this.table.state(row);
      this.table.remove(row);
      if (!before.deleted) {
        changed.push({ before, after: { ...before, deleted: true } });
      }
    }
    if (changed.length > 0) {
      this.#events.emit("change", changed);
    }
  }
}
