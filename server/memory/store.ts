import {
  CHANGES_KEPT_DEFAULT,
  type ChangeKey,
  findChanges,
  type HistoryPart,
  type ReferenceChanges,
  type ReferencePage,
  type ReferenceQuery,
} from "../inventory/change-history.ts";
import {
  type Collection,
  type CollectionEvent,
  type CollectionResult,
  isRepetition,
  replaces,
  type TimedCollectionEvent,
} from "../inventory/collection.ts";
import {
  available,
  type Ledger,
  leavesRange,
  onHand,
  QUANTITY_MAX,
  type Stock,
  type StockChange,
  shortfall,
  UPDATE_AHEAD_MS_MAX,
} from "../inventory/ledger.ts";
import { fingerprint, OPERATION_RETENTION_MS_DEFAULT } from "../inventory/operation.ts";
import {
  applyDelete,
  applyUpsert,
  type EventTime,
  isDeleted,
  type ProductDelete,
  type ProductRegisters,
  type ProductUpsert,
  type PutResult,
  type RegisterUpdate,
} from "../inventory/product-event.ts";
import {
  declaredOutOfRange,
  onHandOutOfRange,
  updateTooFarAhead,
  versionMismatch,
} from "../inventory/refusals.ts";
import type { ChangesPage, InventoryStore, StockAdjustment, StockCount } from "../inventory/store.ts";
import { MemoryFeed } from "./feed.ts";
import { Operations } from "./operations.ts";
import { ledgerOf, type ProductRecord, Products } from "./products.ts";
import { Reservations } from "./reservations.ts";

interface MemoryStoreOptions {
  /** The store's clock, ms since 1970. */
  readonly now?: () => number;
  /** How long ended reservations and IDs of operations are kept. */
  readonly operationRetentionMs?: number;
  /** Changes kept of each product. */
  readonly changesKept?: number;
}

/**
 * The reference store: the executable specification of the rules of stock, and the default if no
 * Redis is configured. Its data ends with the process. Every method decides and writes in one turn
 * of the event loop, which makes it an atomic step.
 */
export class MemoryStore implements InventoryStore {
  readonly reservations: Reservations;
  readonly feed: MemoryFeed;
  readonly #products: Products;
  readonly #operations: Operations;
  readonly #now: () => number;
  /** The newest event of every collection, deleted ones included. */
  readonly #collections = new Map<string, TimedCollectionEvent>();

  constructor(options: MemoryStoreOptions = {}) {
    const retentionMs = options.operationRetentionMs ?? OPERATION_RETENTION_MS_DEFAULT;
    this.#now = options.now ?? Date.now;
    this.feed = new MemoryFeed(() =>
      [...this.#products.all()].map((product) => ({
        ...stockOf(product),
        deleted: isDeleted(product.registers),
        isReserved: product.reserved > 0,
        isShort: shortfall(ledgerOf(product)) > 0,
      })),
    );
    this.#products = new Products(this.#now, options.changesKept ?? CHANGES_KEPT_DEFAULT, (change) =>
      this.feed.deliverChange(change),
    );
    this.#operations = new Operations(this.#now, retentionMs);
    this.reservations = new Reservations(this.#products, this.#operations, this.#now, retentionMs);
  }

  async getStock(productId: string): Promise<Stock> {
    return stockOf(this.#products.visible(productId));
  }

  async batchGetStock(productIds: readonly string[]): Promise<(Stock | undefined)[]> {
    return productIds.map((productId) => {
      const product = this.#products.find(productId);
      return product && !isDeleted(product.registers) ? stockOf(product) : undefined;
    });
  }

  async getLedger(productId: string): Promise<Ledger> {
    return ledgerOf(this.#products.known(productId));
  }

  async batchGetLedgers(productIds: readonly string[]): Promise<(Ledger | undefined)[]> {
    return productIds.map((productId) => {
      const product = this.#products.find(productId);
      return product && ledgerOf(product);
    });
  }

  bucketOf(): number {
    return 0;
  }

  async listChanges(productId: string, page: ChangesPage): Promise<StockChange[]> {
    this.#products.known(productId);
    return this.#changesBelow(productId, page.beforeVersion).slice(0, page.limit);
  }

  async findChanges(query: ReferenceQuery, page: ReferencePage): Promise<ReferenceChanges> {
    const { referenceId, productId } = query;
    if (productId !== undefined) {
      this.#products.known(productId);
    }
    const trace = {
      reservation: this.reservations.traceOf(referenceId),
      ...this.#operations.traceOf(referenceId),
    };
    return findChanges(query, page, trace, async (id, before, limit): Promise<HistoryPart> => {
      const changes = this.#changesBelow(id, before);
      const read = changes.slice(0, limit);
      return {
        changes: read,
        oldestVersion: read.at(-1)?.ledger.version,
        isLast: read.length === changes.length,
      };
    });
  }

  async putProduct(event: ProductUpsert): Promise<PutResult> {
    const at = this.#eventTime(event);
    return this.#applyEvent(event, (registers) => applyUpsert(registers, event, at));
  }

  async deleteProduct(event: ProductDelete): Promise<PutResult> {
    const at = this.#eventTime(event);
    return this.#applyEvent(event, (registers) => applyDelete(registers, at));
  }

  async countStock(count: StockCount): Promise<Ledger> {
    const { productId, countId, reason, actor } = count;
    const contentFingerprint = fingerprint([productId, count.count, count.expectedVersion, reason]);
    const operation = { field: "count_id", ownerId: productId, id: countId } as const;
    if (this.#operations.wasDone(operation, contentFingerprint)) {
      return ledgerOf(this.#products.known(productId));
    }
    const product = this.#products.visible(productId);
    if (count.expectedVersion !== undefined && count.expectedVersion !== BigInt(product.version)) {
      throw versionMismatch(productId, count.expectedVersion, product.version);
    }
    const correction = count.count - onHand(ledgerOf(product));
    const changes: ChangeKey[] = [];
    if (correction !== 0) {
      this.#products.change(product, { cause: "counted", referenceId: countId, reason, actor }, () => {
        product.adjusted += correction;
      });
      changes.push({ productId, version: product.version });
    }
    this.#operations.remember(operation, contentFingerprint, changes);
    return ledgerOf(product);
  }

  async adjustStock(adjustment: StockAdjustment): Promise<Ledger> {
    const { productId, delta, adjustmentId, reason, actor } = adjustment;
    const contentFingerprint = fingerprint([productId, delta, reason]);
    const operation = { field: "adjustment_id", ownerId: productId, id: adjustmentId } as const;
    if (this.#operations.wasDone(operation, contentFingerprint)) {
      return ledgerOf(this.#products.known(productId));
    }
    const product = this.#products.visible(productId);
    const before = onHand(ledgerOf(product));
    const after = before + delta;
    if ((delta < 0 && after < 0) || (delta > 0 && after > QUANTITY_MAX)) {
      throw onHandOutOfRange(productId, delta, before);
    }
    this.#products.change(product, { cause: "adjusted", referenceId: adjustmentId, reason, actor }, () => {
      product.adjusted += delta;
    });
    const changes = [{ productId, version: product.version }];
    this.#operations.remember(operation, contentFingerprint, changes);
    return ledgerOf(product);
  }

  async setSafetyStock(productId: string, safety: number, actor?: string): Promise<Ledger> {
    const product = this.#products.visible(productId);
    if (product.safety !== safety) {
      this.#products.change(product, { cause: "safety", actor }, () => {
        product.safety = safety;
      });
    }
    return ledgerOf(product);
  }

  async putCollection(event: CollectionEvent): Promise<CollectionResult> {
    const timed = { ...event, updateTimeMicros: this.#eventTime(event) };
    const known = this.#collections.get(event.collectionId);
    const repeats = isRepetition(timed, known);
    if (!replaces(timed, known)) {
      return { applied: repeats, changed: false };
    }
    this.#collections.set(event.collectionId, timed);
    if (!repeats) {
      this.feed.deliverCollections(this.#currentCollections());
    }
    return { applied: true, changed: !repeats };
  }

  async listCollections(): Promise<Collection[]> {
    return this.#currentCollections();
  }

  async unreadyReason(): Promise<string | undefined> {
    return undefined;
  }

  async close(): Promise<void> {}

  /** Newest first. */
  #changesBelow(productId: string, version = Number.POSITIVE_INFINITY): StockChange[] {
    const { changes = [] } = this.#products.find(productId) ?? {};
    return changes.filter((change) => change.ledger.version < version).reverse();
  }

  #currentCollections(): Collection[] {
    return [...this.#collections.values()].flatMap(({ collection }) => collection ?? []);
  }

  #applyEvent(
    { productId, actor }: ProductDelete,
    apply: (registers: ProductRegisters) => RegisterUpdate,
  ): PutResult {
    const product = this.#products.findOrCreate(productId);
    const outcome = apply(product.registers);
    const before = ledgerOf(product);
    const after = { ...before, declared: outcome.registers.declared };
    if (leavesRange(before, after)) {
      throw declaredOutOfRange(productId, after.declared, onHand(after));
    }
    if (outcome.cause === undefined) {
      product.registers = outcome.registers;
    } else {
      const details = outcome.detailsChanged ? outcome.registers.details : undefined;
      this.#products.change(product, { cause: outcome.cause, details, actor }, () => {
        product.registers = outcome.registers;
      });
    }
    return { applied: outcome.applied, changed: outcome.changed, ledger: ledgerOf(product) };
  }

  #eventTime(event: EventTime): number {
    const nowMs = this.#now();
    const at = event.updateTimeMicros ?? nowMs * 1000;
    if (at > (nowMs + UPDATE_AHEAD_MS_MAX) * 1000) {
      throw updateTooFarAhead(event, nowMs);
    }
    return at;
  }
}

function stockOf(product: ProductRecord): Stock {
  return {
    productId: product.productId,
    available: available(ledgerOf(product)),
    version: product.version,
    updateTimeMs: product.updateTimeMs,
    details: product.registers.details,
  };
}
