import { supersedes } from "../live/watch-message.ts";
import { type PageQuery, SORTS } from "../view/list-query.ts";
import { onShelf, type Product, type ShelfProduct } from "../view/product.ts";
import { labelOf } from "../view/product-label.ts";
import { BACK_IN_STOCK_MS, type PageSettings } from "../view/settings.ts";

/** What happened to a product that a reader may want to hear of. */
export interface ShelfChange {
  readonly before: ShelfProduct;
  readonly after: ShelfProduct;
}

interface Slot {
  product: ShelfProduct;
  /** The sort key when the product was put here. */
  key: string | number;
}

/** The products in the order in which they were put up. A change replaces a product where it stands. */
export class Shelf {
  #slots = new Map<string, Slot>();
  readonly #settings: PageSettings;
  #query: PageQuery;
  total = 0;

  constructor(query: PageQuery, settings: PageSettings) {
    this.#query = query;
    this.#settings = settings;
  }

  get products(): ShelfProduct[] {
    return Array.from(this.#slots.values(), (slot) => slot.product);
  }

  get productIds(): string[] {
    return [...this.#slots.keys()];
  }

  /** Puts up another list. What is known newer than the list has it stays known. */
  put(query: PageQuery, products: readonly Product[], total: number): void {
    const known = this.#slots;
    this.#query = query;
    this.total = total;
    const next = products.map((product) => this.#newest(product, known.get(product.productId)?.product));
    this.#slots = new Map(next.map((product) => [product.productId, this.#slot(product)]));
  }

  /** Appends what a longer list has besides, and moves nothing. */
  extend(query: PageQuery, products: readonly Product[], total: number): void {
    this.#query = query;
    this.total = total;
    for (const product of products) {
      if (!this.#slots.has(product.productId)) {
        this.#slots.set(product.productId, this.#slot(onShelf(product)));
      }
    }
  }

  /** Applies what is newer, each product where it stands, and tells what that changed. */
  apply(
    stocks: readonly Product[],
    removed: readonly string[],
    isSnapshot: boolean,
    nowMs: number,
  ): ShelfChange[] {
    const changes: ShelfChange[] = [];
    for (const next of stocks) {
      const slot = this.#slots.get(next.productId);
      // What is gone comes back with whatever is later: a store that began anew counts its versions from one.
      if (slot === undefined || !supersedes(next, slot.product, isSnapshot || slot.product.isGone)) continue;
      const before = slot.product;
      const after = {
        ...next,
        details: next.details ?? before.details,
        isGone: false,
        backUntilMs: backUntil(before, next, nowMs),
        changes: before.changes,
      };
      slot.product =
        this.#reads(before) === this.#reads(after) ? after : { ...after, changes: before.changes + 1 };
      changes.push({ before, after: slot.product });
    }
    for (const productId of removed) {
      const slot = this.#slots.get(productId);
      if (slot === undefined || slot.product.isGone) continue;
      const before = slot.product;
      slot.product = { ...before, available: 0, isGone: true, changes: before.changes + 1 };
      changes.push({ before, after: slot.product });
    }
    return changes;
  }

  /** How many products would not stand where they stand, or not at all, if the list were made now. */
  get outOfPlace(): number {
    const slots = [...this.#slots.values()];
    const misfits = slots.filter((slot) => this.#isMisfit(slot.product));
    const moved = slots.filter((slot) => this.#keyOf(slot.product) !== slot.key && !misfits.includes(slot));
    return misfits.length + (this.#isSorted(slots) ? 0 : moved.length);
  }

  /** What stands on the label: a count that stays within its band has not changed for the reader. */
  #reads(product: ShelfProduct): string {
    return labelOf(product, this.#settings).text;
  }

  #isMisfit(product: ShelfProduct): boolean {
    return product.isGone || (this.#query.inStockOnly && product.available === 0);
  }

  #isSorted(slots: readonly Slot[]): boolean {
    const { descending } = SORTS[this.#query.sort];
    const keys = slots.map((slot) => this.#keyOf(slot.product));
    return keys.every((key, index) => {
      const previous = keys[index - 1];
      return previous === undefined || (descending ? previous >= key : previous <= key);
    });
  }

  #newest(listed: Product, known: ShelfProduct | undefined): ShelfProduct {
    if (known === undefined || known.isGone) return onShelf(listed);
    return supersedes(listed, known, true) ? { ...known, ...listed, changes: 0 } : { ...known, changes: 0 };
  }

  #slot(product: ShelfProduct): Slot {
    return { product, key: this.#keyOf(product) };
  }

  /** Names are left out: the server's order of names is its own, and names hardly ever change. */
  #keyOf(product: ShelfProduct): number {
    switch (SORTS[this.#query.sort].order) {
      case "name":
        return 0;
      case "price":
        return product.details?.price ?? 0;
      case "available":
        return product.available;
      case "update_time":
        return product.updateTimeMs;
    }
  }
}

function backUntil(before: ShelfProduct, next: Product, nowMs: number): number {
  if (next.available === 0) return 0;
  return before.available === 0 && !before.isGone ? nowMs + BACK_IN_STOCK_MS : before.backUntilMs;
}
