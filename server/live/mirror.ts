import { EventEmitter } from "node:events";
import type { Collection } from "../inventory/collection.ts";
import type { FeedListener, ProductState } from "../inventory/feed.ts";
import { available, type StockChange } from "../inventory/ledger.ts";
import { NO_ROW, ProductTable } from "./products/product-table.ts";
import { compareNames } from "./products/text-order.ts";

/** The change of one product. */
export interface MirrorChange {
  /** `undefined` if the product was not in the mirror. */
  readonly before: ProductState | undefined;
  readonly after: ProductState;
}

interface MirrorEvents {
  /** Products that changed, each once. */
  change: [readonly MirrorChange[]];
  stale: [boolean];
  loaded: [];
}

/**
 * The newest state of every product in memory, kept current by the change stream. Shoppers' reads are answered from
 * here, also while the store is unavailable; they are then marked stale. A state is applied only if its version is
 * newer, so repeated changes and changes that overlap with a full load do no harm.
 */
export class Mirror implements FeedListener {
  readonly #events = new EventEmitter<MirrorEvents>();
  /** The newest state of every product, by row. */
  readonly table = new ProductTable();
  /** Whether a full load is in progress. It marks the rows that it reports. */
  #isLoading = false;
  /** Whether a full load of other data is in progress. Its versions may be lower than known ones. */
  #ignoresVersions = false;
  /** Versions that this server has acknowledged and the mirror does not have yet, by product ID. */
  readonly #expected = new Map<string, number>();
  #collections: readonly Collection[] = [];
  #isLoaded = false;
  #isStale = true;

  constructor() {
    this.#events.setMaxListeners(0);
  }

  /** Whether a full load has ever completed. */
  get isLoaded(): boolean {
    return this.#isLoaded;
  }

  /** Whether the states may be out of date. */
  get isStale(): boolean {
    return this.#isStale;
  }

  get collections(): readonly Collection[] {
    return this.#collections;
  }

  /** Number of products, including deleted ones. */
  get size(): number {
    return this.table.size;
  }

  /** The product, unless it is deleted. */
  get(productId: string): ProductState | undefined {
    const row = this.table.find(productId);
    return row !== NO_ROW && this.table.isVisible(row) ? this.table.state(row) : undefined;
  }

  /**
   * Records a version that this server has acknowledged. Until the mirror has it, a read of the product must go to the
   * store, so that no read is older than an acknowledged change.
   */
  expect(productId: string, version: number): void {
    const row = this.table.find(productId);
    const known = row === NO_ROW ? 0 : this.table.version(row);
    if (version > known && version > (this.#expected.get(productId) ?? 0)) {
      this.#expected.set(productId, version);
    }
  }

  /** The product, deleted or not; `undefined` if this server has acknowledged a newer version. */
  current(productId: string): ProductState | undefined {
    return this.#expected.has(productId) ? undefined : this.#find(productId);
  }

  /** Every product that is not deleted. */
  *visible(): Generator<ProductState> {
    for (const row of this.table.visibleRows()) {
      yield this.table.state(row);
    }
  }

  /** Their IDs. Products may be added and removed while it is read. */
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
    this.#ignoresVersions = isOtherData;
    if (isOtherData) {
      // Acknowledged changes were lost with the previous data.
      this.#expected.clear();
    }
  }

  onProducts(states: readonly ProductState[]): void {
    this.#apply(states);
  }

  onLoaded(): void {
    this.#ignoresVersions = false;
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

  /** Lazy: a change without details takes those of the product's previous change, which must be applied before. */
  *#statesAfter(changes: readonly StockChange[]): Generator<ProductState> {
    for (const { ledger, changeTimeMs, details } of changes) {
      yield {
        productId: ledger.productId,
        available: available(ledger),
        version: ledger.version,
        updateTimeMs: changeTimeMs,
        details: details ?? this.#find(ledger.productId)?.details,
        deleted: ledger.deleted,
      };
    }
  }

  #find(productId: string): ProductState | undefined {
    const row = this.table.find(productId);
    return row === NO_ROW ? undefined : this.table.state(row);
  }

  /** Applies newer states, and emits one change per product. */
  #apply(states: Iterable<ProductState>): void {
    const { table } = this;
    const changed = new Map<number, MirrorChange>();
    for (const after of states) {
      const { productId, version } = after;
      let row = table.find(productId);
      if (row === NO_ROW || version > table.version(row) || this.#ignoresVersions) {
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

  /** Removes products that a full load did not report. */
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
