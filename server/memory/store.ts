import {
  available,
  type ChangeCause,
  type Ledger,
  onHand,
  type ProductDetails,
  QUANTITY_MAX,
  type Stock,
  type StockChange,
  UPDATE_AHEAD_MS_MAX,
} from "../inventory/ledger.ts";
import {
  CHANGES_KEPT_PER_PRODUCT,
  fingerprint,
  OPERATION_RETENTION_MS_DEFAULT,
} from "../inventory/operation.ts";
import {
  applyDelete,
  applyUpsert,
  type EventOutcome,
  isDeleted,
  NOTHING_SAID,
  type ProductDelete,
  type ProductRegisters,
  type ProductUpsert,
  type PutResult,
} from "../inventory/product-event.ts";
import {
  idReused,
  onHandOutOfRange,
  productUnknown,
  updateTooFarAhead,
  versionMismatch,
} from "../inventory/refusals.ts";
import type { ChangesPage, InventoryStore, StockAdjustment, StockCount } from "../inventory/store.ts";

interface MemoryStoreOptions {
  /** The store's clock, ms since 1970. */
  readonly now?: () => number;
  readonly operationRetentionMs?: number;
}

interface ProductRecord {
  readonly productId: string;
  registers: ProductRegisters;
  adjusted: number;
  sold: number;
  reserved: number;
  safety: number;
  version: number;
  updateTimeMs: number;
  /** Oldest first. */
  readonly changes: StockChange[];
}

/**
 * The reference store: semantics.md as code that runs, and what serves when no Redis is given.
 * It forgets everything when the process ends. Every method decides and writes in one turn of the
 * event loop, which makes each an atomic step.
 */
export class MemoryStore implements InventoryStore {
  readonly #products = new Map<string, ProductRecord>();
  readonly #operations = new Map<string, { readonly fingerprint: string; readonly forgetAt: number }>();
  readonly #now: () => number;
  readonly #operationRetentionMs: number;

  constructor(options: MemoryStoreOptions = {}) {
    this.#now = options.now ?? Date.now;
    this.#operationRetentionMs = options.operationRetentionMs ?? OPERATION_RETENTION_MS_DEFAULT;
  }

  async getStock(productId: string): Promise<Stock> {
    return stockOf(this.#visible(productId));
  }

  async batchGetStock(productIds: readonly string[]): Promise<(Stock | undefined)[]> {
    return productIds.map((productId) => {
      const product = this.#products.get(productId);
      return product && !isDeleted(product.registers) ? stockOf(product) : undefined;
    });
  }

  async getLedger(productId: string): Promise<Ledger> {
    return ledgerOf(this.#known(productId));
  }

  async listChanges(productId: string, page: ChangesPage): Promise<StockChange[]> {
    const below = page.beforeVersion ?? Number.POSITIVE_INFINITY;
    return this.#known(productId)
      .changes.filter((change) => change.ledger.version < below)
      .reverse()
      .slice(0, page.limit);
  }

  async putProduct(event: ProductUpsert): Promise<PutResult> {
    const at = this.#eventTime(event.updateTimeMicros);
    return this.#applyEvent(event.productId, (registers) => applyUpsert(registers, event, at));
  }

  async deleteProduct(event: ProductDelete): Promise<PutResult> {
    const at = this.#eventTime(event.updateTimeMicros);
    return this.#applyEvent(event.productId, (registers) => applyDelete(registers, at));
  }

  async countStock(count: StockCount): Promise<Ledger> {
    const print = fingerprint([count.productId, count.count, count.expectedVersion, count.reason]);
    if (this.#isRepeated("count", "count_id", count.countId, print)) {
      return ledgerOf(this.#known(count.productId));
    }
    const product = this.#visible(count.productId);
    if (count.expectedVersion !== undefined && count.expectedVersion !== product.version) {
      throw versionMismatch(count.productId, count.expectedVersion, product.version);
    }
    this.#remember("count", count.countId, print);
    const correction = count.count - onHand(ledgerOf(product));
    if (correction !== 0) {
      this.#record(product, "counted", count.countId, count.reason, () => {
        product.adjusted += correction;
      });
    }
    return ledgerOf(product);
  }

  async adjustStock(adjustment: StockAdjustment): Promise<Ledger> {
    const { productId, delta, adjustmentId, reason } = adjustment;
    const print = fingerprint([productId, delta, reason]);
    if (this.#isRepeated("adjust", "adjustment_id", adjustmentId, print)) {
      return ledgerOf(this.#known(productId));
    }
    const product = this.#visible(productId);
    const before = onHand(ledgerOf(product));
    const after = before + delta;
    if ((delta < 0 && after < 0) || (delta > 0 && after > QUANTITY_MAX)) {
      throw onHandOutOfRange(productId, delta, before);
    }
    this.#remember("adjust", adjustmentId, print);
    this.#record(product, "adjusted", adjustmentId, reason, () => {
      product.adjusted += delta;
    });
    return ledgerOf(product);
  }

  async setSafetyStock(productId: string, safety: number): Promise<Ledger> {
    const product = this.#visible(productId);
    if (product.safety !== safety) {
      this.#record(product, "safety", "", "", () => {
        product.safety = safety;
      });
    }
    return ledgerOf(product);
  }

  async unreadyReason(): Promise<string | undefined> {
    return undefined;
  }

  async close(): Promise<void> {}

  #applyEvent(productId: string, apply: (registers: ProductRegisters) => EventOutcome): PutResult {
    const product = this.#products.get(productId) ?? emptyRecord(productId);
    const outcome = apply(product.registers);
    this.#products.set(productId, product);
    if (outcome.cause === undefined) {
      product.registers = outcome.registers;
    } else {
      const details = outcome.detailsChanged ? outcome.registers.details : undefined;
      this.#record(
        product,
        outcome.cause,
        "",
        "",
        () => {
          product.registers = outcome.registers;
        },
        details,
      );
    }
    return { applied: outcome.applied, ledger: ledgerOf(product) };
  }

  /** Makes one visible change: the next version, and its record. */
  #record(
    product: ProductRecord,
    cause: ChangeCause,
    referenceId: string,
    reason: string,
    change: () => void,
    details?: ProductDetails,
  ): void {
    const availableBefore = available(ledgerOf(product));
    change();
    product.version += 1;
    product.updateTimeMs = this.#now();
    const ledger = ledgerOf(product);
    product.changes.push({
      cause,
      delta: available(ledger) - availableBefore,
      ledger,
      changeTimeMs: product.updateTimeMs,
      referenceId,
      reason,
      details,
    });
    if (product.changes.length > CHANGES_KEPT_PER_PRODUCT) {
      product.changes.shift();
    }
  }

  #eventTime(updateTimeMicros: number | undefined): number {
    const nowMs = this.#now();
    const at = updateTimeMicros ?? nowMs * 1000;
    if (at > (nowMs + UPDATE_AHEAD_MS_MAX) * 1000) {
      throw updateTooFarAhead("update_time", at, nowMs);
    }
    return at;
  }

  /** Whether the operation was done before. Throws `ID_REUSED` where its ID stands for another. */
  #isRepeated(kind: string, field: string, id: string, print: string): boolean {
    const known = this.#operations.get(`${kind}:${id}`);
    if (known === undefined || known.forgetAt <= this.#now()) {
      return false;
    }
    if (known.fingerprint !== print) {
      throw idReused(field, id);
    }
    return true;
  }

  #remember(kind: string, id: string, print: string): void {
    const now = this.#now();
    // Insertion order is order of age, so the ones to forget stand first.
    for (const [key, { forgetAt }] of this.#operations) {
      if (forgetAt > now) {
        break;
      }
      this.#operations.delete(key);
    }
    this.#operations.set(`${kind}:${id}`, {
      fingerprint: print,
      forgetAt: now + this.#operationRetentionMs,
    });
  }

  #known(productId: string): ProductRecord {
    const product = this.#products.get(productId);
    if (product === undefined) {
      throw productUnknown(productId);
    }
    return product;
  }

  #visible(productId: string): ProductRecord {
    const product = this.#known(productId);
    if (isDeleted(product.registers)) {
      throw productUnknown(productId);
    }
    return product;
  }
}

function emptyRecord(productId: string): ProductRecord {
  return {
    productId,
    registers: NOTHING_SAID,
    adjusted: 0,
    sold: 0,
    reserved: 0,
    safety: 0,
    version: 0,
    updateTimeMs: 0,
    changes: [],
  };
}

function ledgerOf(product: ProductRecord): Ledger {
  return {
    productId: product.productId,
    declared: product.registers.declared,
    declareTimeMicros: product.registers.declareTimeMicros,
    adjusted: product.adjusted,
    sold: product.sold,
    reserved: product.reserved,
    safety: product.safety,
    version: product.version,
    deleted: isDeleted(product.registers),
  };
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
