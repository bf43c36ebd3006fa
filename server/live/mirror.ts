import { EventEmitter } from "node:events";
import type { Collection } from "../inventory/collection.ts";
import {
  type FeedListener,
  type FeedPartitions,
  ONE_PARTITION,
  type ProductState,
} from "../inventory/feed.ts";
import { available, type StockChange, shortfall } from "../inventory/ledger.ts";
import { MirrorPartition } from "./mirror-partition.ts";
import { NO_ROW, ProductTable } from "./products/product-table.ts";
import type { RowSet } from "./products/row-set.ts";
import { compareNames } from "./products/text-order.ts";
import { Staleness } from "./staleness.ts";

export { STALE_AFTER_MS } from "./mirror-partition.ts";

/** The partition of a feed that has only one. */
const ONLY = 0;
/** The partition that has the collections. */
const OF_COLLECTIONS = 0;

/** The change of one product. */
export interface MirrorChange {
  /** `undefined` if the product was not in the mirror. */
  readonly before: ProductState | undefined;
  readonly after: ProductState;
}

interface MirrorEvents {
  /** Products that changed, each once. */
  change: [readonly MirrorChange[]];
  /** A partition became stale or current. `true` if any is stale now. */
  stale: [boolean];
  /** A full load has completed, and every partition is loaded or known to be unavailable. */
  loaded: [];
}

/**
 * The newest state of every product in memory, kept current by the change stream. Shoppers' reads are answered from
 * here, also while the store is unavailable; they are then marked stale. A state is applied only if its version is
 * newer, so repeated changes and changes that overlap with a full load do no harm.
 *
 * Staleness is a matter of time: the feed reports when its position was known to be current, and nothing else clears
 * the mark. A lost connection, a silent one and a stalled process all lead to the same result. Each partition of the feed
 * is stale on its own.
 */
export class Mirror implements FeedListener {
  readonly #events = new EventEmitter<MirrorEvents>();
  /** The newest state of every product, by row. */
  readonly table = new ProductTable();
  readonly #now: () => number;
  #collections: readonly Collection[] = [];
  #isLoaded = false;
  #partitions = ONE_PARTITION;
  #states: readonly MirrorPartition[];
  #staleness: Staleness;

  /** `now` is that of `performance`, in milliseconds. */
  constructor(now = () => performance.now()) {
    this.#now = now;
    this.#states = [this.#newPartition()];
    this.#staleness = new Staleness(ONE_PARTITION, new Set());
    this.#events.setMaxListeners(0);
  }

  /** Whether a full load has ever completed, of each partition that was available. */
  get isLoaded(): boolean {
    return this.#isLoaded;
  }

  /** Whether a full load of the partitions of these products has ever completed. */
  hasLoaded(productIds: Iterable<string>): boolean {
    if (this.#isLoaded && this.#states.every(({ isLoaded }) => isLoaded)) {
      return true;
    }
    for (const productId of productIds) {
      if (!this.#partitionOf(productId).isLoaded) {
        return false;
      }
    }
    return this.#isLoaded;
  }

  /** Whether any state may be out of date: it was not known to be current within the last `STALE_AFTER_MS`. */
  get isStale(): boolean {
    return this.#states.some(({ isStale }) => isStale);
  }

  /** As `isStale`, for one product. */
  isStaleOf(productId: string): boolean {
    return this.#partitionOf(productId).isStale;
  }

  /** As `isStale`, for the collections. */
  get areCollectionsStale(): boolean {
    return this.#partition(OF_COLLECTIONS).isStale;
  }

  /** What is stale now. The same object as long as it is the same. */
  staleness(): Staleness {
    const stale = new Set<number>();
    for (const [partition, { isStale }] of this.#states.entries()) {
      if (isStale) {
        stale.add(partition);
      }
    }
    if (!this.#staleness.hasExactly(stale)) {
      this.#staleness = new Staleness(this.#partitions, stale);
    }
    return this.#staleness;
  }

  /** When the states were last known to be current, ms since 1970: of the oldest partition that ever was. 0 if none was. */
  get currentTimeMs(): number {
    const currentAtMs = this.#states
      .map((partition) => partition.currentAtMs)
      .filter((atMs) => atMs !== Number.NEGATIVE_INFINITY)
      .reduce((oldest, atMs) => Math.min(oldest, atMs), Number.POSITIVE_INFINITY);
    const isKnown = this.#states.some((partition) => partition.currentAtMs !== Number.NEGATIVE_INFINITY);
    return isKnown ? Date.now() - Math.max(0, this.#now() - currentAtMs) : 0;
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
   * Records a version that this server has acknowledged. Until the mirror has it, a read of the product goes to the
   * store, and a read of many products waits (`caughtUp`), so that no read is older than an acknowledged change.
   */
  expect(productId: string, version: number): void {
    this.#partitionOf(productId).acknowledged.add(productId, version);
  }

  /** The product, deleted or not; `undefined` if this server has acknowledged a newer version. */
  current(productId: string): ProductState | undefined {
    return this.#partitionOf(productId).acknowledged.has(productId) ? undefined : this.#find(productId);
  }

  /**
   * Resolves when the mirror has what this server has acknowledged up to now, of these products or of all. Resolves
   * within `STALE_AFTER_MS` in any case: the mirror is then stale. Stale partitions are not waited for. `undefined` if there
   * is nothing to wait for.
   */
  caughtUp(productIds?: Iterable<string>): Promise<void> | undefined {
    const deliveries: Promise<void>[] = [];
    for (const { isStale, acknowledged } of this.#states) {
      const delivered = isStale ? undefined : acknowledged.delivered(productIds);
      if (delivered !== undefined) {
        deliveries.push(delivered);
      }
    }
    return deliveries.length > 1 ? Promise.all(deliveries).then(() => {}) : deliveries[0];
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

  onStart(partitions: FeedPartitions): void {
    for (const partition of this.#states) {
      partition.close();
    }
    this.#partitions = partitions;
    this.#states = Array.from({ length: partitions.count }, () => this.#newPartition());
    this.#staleness = new Staleness(partitions, new Set());
  }

  onLoading(isOtherData: boolean, partition = ONLY): void {
    const state = this.#partition(partition);
    state.unreported = this.table.rowsOf(partition);
    state.ignoresVersions = isOtherData;
    if (isOtherData) {
      // Acknowledged changes were lost with the previous data.
      state.acknowledged.clear();
    }
  }

  onProducts(states: readonly ProductState[], partition = ONLY): void {
    this.#apply(
      states,
      partition,
      (state) => state,
      (state) => state,
    );
  }

  onLoaded(partition = ONLY): void {
    const state = this.#partition(partition);
    const { unreported } = state;
    state.unreported = undefined;
    state.ignoresVersions = false;
    state.isLoaded = true;
    if (unreported !== undefined) {
      this.#drop(unreported);
    }
    this.#checkLoaded();
  }

  onUnavailable(partition = ONLY): void {
    this.#partition(partition).isUnavailable = true;
    this.#checkLoaded();
  }

  onChanges(changes: readonly StockChange[], partition = ONLY): void {
    this.#apply(changes, partition, ({ ledger }) => ledger, stateAfter);
  }

  onSuperseded(): void {
    // The newest state is all that a mirror needs.
  }

  onCollections(collections: readonly Collection[]): void {
    this.#collections = [...collections].sort((a, b) => compareNames(a.name, b.name));
  }

  onCurrent(atMs: number, partition = ONLY): void {
    this.#partition(partition).onCurrent(atMs);
  }

  #newPartition(): MirrorPartition {
    return new MirrorPartition({
      now: this.#now,
      versionOf: (productId) => this.#versionOf(productId),
      onStale: () => this.#events.emit("stale", this.isStale),
    });
  }

  #partitionOf(productId: string): MirrorPartition {
    return this.#partition(this.#partitions.of(productId));
  }

  #partition(partition: number): MirrorPartition {
    const state = this.#states[partition];
    if (state === undefined) {
      throw new RangeError(`There is no partition ${partition}: there are ${this.#states.length}`);
    }
    return state;
  }

  /** Without one that can be loaded, nothing is known of any product. */
  #checkLoaded(): void {
    const isComplete = this.#states.every(({ isLoaded, isUnavailable }) => isLoaded || isUnavailable);
    if (isComplete && this.#states.some(({ isLoaded }) => isLoaded)) {
      this.#isLoaded = true;
      this.#events.emit("loaded");
    }
  }

  #versionOf(productId: string): number {
    const row = this.table.find(productId);
    return row === NO_ROW ? 0 : this.table.version(row);
  }

  #find(productId: string): ProductState | undefined {
    const row = this.table.find(productId);
    return row === NO_ROW ? undefined : this.table.state(row);
  }

  /** Applies newer states, and emits one change per product. `stateAfter` returns the new state of a known product. */
  #apply<Item>(
    items: readonly Item[],
    partition: number,
    identify: (item: Item) => Pick<ProductState, "productId" | "version">,
    stateAfter: (item: Item, known: ProductState | undefined) => ProductState,
  ): void {
    const { table } = this;
    const { acknowledged, ignoresVersions, unreported } = this.#partition(partition);
    const changed = new Map<number, MirrorChange>();
    for (const item of items) {
      const { productId, version } = identify(item);
      let row = table.find(productId);
      if (row === NO_ROW || version > table.version(row) || ignoresVersions) {
        const known = row === NO_ROW ? undefined : table.state(row);
        const after = stateAfter(item, known);
        row = table.put(after, row, partition);
        acknowledged.onDelivered(productId, version);
        const earlier = changed.get(row);
        changed.set(row, { before: earlier === undefined ? known : earlier.before, after });
      }
      unreported?.set(row, false);
    }
    if (changed.size > 0) {
      acknowledged.resolveWaiters();
      this.#events.emit("change", [...changed.values()]);
    }
  }

  /** Removes products that a full load did not report. */
  #drop(rows: RowSet): void {
    const changed: MirrorChange[] = [];
    rows.forEach((row) => {
      const before = this.table.state(row);
      this.table.remove(row);
      if (!before.deleted) {
        changed.push({ before, after: { ...before, deleted: true } });
      }
    });
    if (changed.length > 0) {
      this.#events.emit("change", changed);
    }
  }
}

/** A change without details leaves those that the product has. */
function stateAfter(
  { ledger, changeTimeMs, details }: StockChange,
  known: ProductState | undefined,
): ProductState {
  return {
    productId: ledger.productId,
    available: available(ledger),
    version: ledger.version,
    updateTimeMs: changeTimeMs,
    details: details ?? known?.details,
    deleted: ledger.deleted,
    isReserved: ledger.reserved > 0,
    isShort: shortfall(ledger) > 0,
  };
}
