import { EventEmitter } from "node:events";
import type { Collection } from "../inventory/collection.ts";
import type { FeedListener, ProductState } from "../inventory/feed.ts";
import { available, type StockChange, shortfall } from "../inventory/ledger.ts";
import { AcknowledgedVersions } from "./acknowledged-versions.ts";
import { NO_ROW, ProductTable } from "./products/product-table.ts";
import { compareNames } from "./products/text-order.ts";

/** The states are stale if they were last known to be current longer ago than this. */
export const STALE_AFTER_MS = 1_000;

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
 *
 * Staleness is a matter of time: the feed reports when its position was known to be current, and nothing else clears
 * the mark. A lost connection, a silent one and a stalled process all lead to the same result.
 */
export class Mirror implements FeedListener {
  readonly #events = new EventEmitter<MirrorEvents>();
  /** The newest state of every product, by row. */
  readonly table = new ProductTable();
  /** Whether a full load is in progress. It marks the rows that it reports. */
  #isLoading = false;
  /** Whether a full load of other data is in progress. Its versions may be lower than known ones. */
  #ignoresVersions = false;
  readonly #acknowledged: AcknowledgedVersions;
  readonly #now: () => number;
  #collections: readonly Collection[] = [];
  #isLoaded = false;
  /** When the states were last known to be current, on the clock of `#now`. */
  #currentAtMs = Number.NEGATIVE_INFINITY;
  #staleTimer: NodeJS.Timeout | undefined;

  /** `now` is that of `performance`, in milliseconds. */
  constructor(now = () => performance.now()) {
    this.#now = now;
    this.#acknowledged = new AcknowledgedVersions((productId) => this.#versionOf(productId), now);
    this.#events.setMaxListeners(0);
  }

  /** Whether a full load has ever completed. */
  get isLoaded(): boolean {
    return this.#isLoaded;
  }

  /** Whether the states may be out of date: they were not known to be current within the last `STALE_AFTER_MS`. */
  get isStale(): boolean {
    return this.#now() - this.#currentAtMs > STALE_AFTER_MS;
  }

  /** When the states were last known to be current, ms since 1970; 0 if never. */
  get currentTimeMs(): number {
    const ageMs = Math.max(0, this.#now() - this.#currentAtMs);
    return ageMs === Number.POSITIVE_INFINITY ? 0 : Date.now() - ageMs;
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
    this.#acknowledged.add(productId, version);
  }

  /** The product, deleted or not; `undefined` if this server has acknowledged a newer version. */
  current(productId: string): ProductState | undefined {
    return this.#acknowledged.has(productId) ? undefined : this.#find(productId);
  }

  /**
   * Resolves when the mirror has what this server has acknowledged up to now, of these products or of all. Resolves
   * within `STALE_AFTER_MS` in any case: the mirror is then stale. `undefined` if there is nothing to wait for.
   */
  caughtUp(productIds?: ReadonlySet<string>): Promise<void> | undefined {
    return this.isStale ? undefined : this.#acknowledged.delivered(productIds);
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
      this.#acknowledged.clear();
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

  onCurrent(atMs: number): void {
    const wasStale = this.isStale;
    this.#currentAtMs = Math.max(this.#currentAtMs, atMs);
    this.#acknowledged.dropUntil(atMs);
    if (this.isStale) {
      return;
    }
    if (wasStale) {
      this.#events.emit("stale", false);
    }
    if (this.#staleTimer === undefined) {
      this.#setStaleTimer();
    }
  }

  /** Reports when the states become stale. One timer, which is restarted if they became current in between. */
  #setStaleTimer(): void {
    const restMs = this.#currentAtMs + STALE_AFTER_MS - this.#now();
    if (restMs === Number.POSITIVE_INFINITY) {
      return;
    }
    this.#staleTimer = setTimeout(
      () => {
        this.#staleTimer = undefined;
        if (this.isStale) {
          this.#acknowledged.resolveAll();
          this.#events.emit("stale", true);
        } else {
          this.#setStaleTimer();
        }
      },
      Math.floor(Math.max(0, restMs)) + 1,
    );
    this.#staleTimer.unref();
  }

  #versionOf(productId: string): number {
    const row = this.table.find(productId);
    return row === NO_ROW ? 0 : this.table.version(row);
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
        isReserved: ledger.reserved > 0,
        isShort: shortfall(ledger) > 0,
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
        this.#acknowledged.onDelivered(productId, version);
        const earlier = changed.get(row);
        changed.set(row, { before: earlier === undefined ? known : earlier.before, after });
      }
      if (this.#isLoading) {
        table.mark(row);
      }
    }
    if (changed.size > 0) {
      this.#acknowledged.resolveWaiters();
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
