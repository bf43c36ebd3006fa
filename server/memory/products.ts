import {
  available,
  type ChangeCause,
  type Ledger,
  type ProductDetails,
  type StockChange,
} from "../inventory/ledger.ts";
import { EMPTY_REGISTERS, isDeleted, type ProductRegisters } from "../inventory/product-event.ts";
import { productUnknown } from "../inventory/refusals.ts";

/** One product of the memory store. */
export interface ProductRecord {
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

/** What a change record has besides the ledger. */
interface ChangeNote {
  readonly cause: ChangeCause;
  readonly referenceId?: string;
  readonly reason?: string;
  readonly details?: ProductDetails | undefined;
  readonly actor?: string | undefined;
}

/** The products of the memory store. Every visible change goes through `change`. */
export class Products {
  readonly #records = new Map<string, ProductRecord>();
  readonly #now: () => number;
  readonly #onChange: (change: StockChange) => void;
  readonly #changesKept: number;

  /** `onChange` is called with every change, in the step that makes it. */
  constructor(now: () => number, changesKept: number, onChange: (change: StockChange) => void) {
    this.#now = now;
    this.#changesKept = changesKept;
    this.#onChange = onChange;
  }

  all(): Iterable<ProductRecord> {
    return this.#records.values();
  }

  find(productId: string): ProductRecord | undefined {
    return this.#records.get(productId);
  }

  /** The product, deleted or not. Throws `PRODUCT_UNKNOWN`. */
  known(productId: string): ProductRecord {
    const product = this.#records.get(productId);
    if (product === undefined) {
      throw productUnknown(productId);
    }
    return product;
  }

  /** The product, if it is not deleted. Throws `PRODUCT_UNKNOWN`. */
  visible(productId: string): ProductRecord {
    const product = this.known(productId);
    if (isDeleted(product.registers)) {
      throw productUnknown(productId);
    }
    return product;
  }

  findOrCreate(productId: string): ProductRecord {
    const product = this.#records.get(productId) ?? emptyRecord(productId);
    this.#records.set(productId, product);
    return product;
  }

  /** Makes one visible change: increments the version and records the change. */
  change(product: ProductRecord, note: ChangeNote, make: () => void): void {
    const availableBefore = available(ledgerOf(product));
    make();
    product.version += 1;
    product.updateTimeMs = this.#now();
    const ledger = ledgerOf(product);
    const change: StockChange = {
      cause: note.cause,
      delta: available(ledger) - availableBefore,
      ledger,
      changeTimeMs: product.updateTimeMs,
      referenceId: note.referenceId ?? "",
      reason: note.reason ?? "",
      actor: note.actor ?? "",
      details: note.details,
    };
    product.changes.push(change);
    if (product.changes.length > this.#changesKept) {
      product.changes.shift();
    }
    this.#onChange(change);
  }
}

function emptyRecord(productId: string): ProductRecord {
  return {
    productId,
    registers: EMPTY_REGISTERS,
    adjusted: 0,
    sold: 0,
    reserved: 0,
    safety: 0,
    version: 0,
    updateTimeMs: 0,
    changes: [],
  };
}

export function ledgerOf(product: ProductRecord): Ledger {
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
