import { supersedes } from "../live/watch-message.ts";
import { type PageQuery, SORTS } from "../view/list-query.ts";
import { type ListedProduct, type Product, toListed } from "../view/product.ts";
import { countLabelOf } from "../view/product-card.ts";
import { BACK_IN_STOCK_MS, type PageSettings } from "../view/settings.ts";

/** The change of one product in the list. */
export interface ListChange {
  readonly before: ListedProduct;
  readonly after: ListedProduct;
}

interface Slot {
  product: ListedProduct;
  /** The sort key when the list was loaded. */
  key: string | number;
}

/** The products that the page shows, in the order of the last load. A change updates a product in place. */
export class LiveList {
  #slots = new Map<string, Slot>();
  readonly #settings: PageSettings;
  #query: PageQuery;
  total = 0;

  constructor(query: PageQuery, settings: PageSettings) {
    this.#query = query;
    this.#settings = settings;
  }

  get products(): ListedProduct[] {
    return Array.from(this.#slots.values(), (slot) => slot.product);
  }

  get productIds(): string[] {
    return [...this.#slots.keys()];
  }

  /** Shows another list. Products that are known in a newer state keep it. */
  put(query: PageQuery, products: readonly Product[], total: number): void {
    const known = this.#slots;
    this.#query = query;
    this.total = total;
    const next = products.map((product) => this.#newest(product, known.get(product.productId)?.product));
    this.#slots = new Map(next.map((product) => [product.productId, this.#slot(product)]));
  }

  /** Appends the additional products of a longer list. The others keep their positions. */
  extend(query: PageQuery, products: readonly Product[], total: number): void {
    this.#query = query;
    this.total = total;
    for (const product of products) {
      if (!this.#slots.has(product.productId)) {
        this.#slots.set(product.productId, this.#slot(toListed(product)));
      }
    }
  }

  /** Applies newer states in place, and returns the changes. */
  apply(
    stocks: readonly Product[],
    removed: readonly string[],
    isSnapshot: boolean,
    nowMs: number,
  ): ListChange[] {
    const changes: ListChange[] = [];
    for (const next of stocks) {
      const slot = this.#slots.get(next.productId);
      // A removed product may return with a lower version, from a store that restarted without its data.
      if (slot === undefined || !supersedes(next, slot.product, isSnapshot || slot.product.isRemoved))
        continue;
      const before = slot.product;
      const after = {
        ...next,
        details: next.details ?? before.details,
        isRemoved: false,
        restockedUntilMs: restockedUntil(before, next, nowMs),
        changes: before.changes,
      };
      slot.product =
        this.#textOf(before) === this.#textOf(after) ? after : { ...after, changes: before.changes + 1 };
      changes.push({ before, after: slot.product });
    }
    for (const productId of removed) {
      const slot = this.#slots.get(productId);
      if (slot === undefined || slot.product.isRemoved) continue;
      const before = slot.product;
      slot.product = { ...before, available: 0, isRemoved: true, changes: before.changes + 1 };
      changes.push({ before, after: slot.product });
    }
    return changes;
  }

  /** Number of products that would have another position, or be absent, if the list were loaded now. */
  get movedCount(): number {
    const slots = [...this.#slots.values()];
    const misfits = slots.filter((slot) => this.#isMisfit(slot.product));
    const moved = slots.filter((slot) => this.#keyOf(slot.product) !== slot.key && !misfits.includes(slot));
    return misfits.length + (this.#isSorted(slots) ? 0 : moved.length);
  }

  /** The text of a product's count. A count that stays in its band has the same text. */
  #textOf(product: ListedProduct): string {
    return countLabelOf(product, this.#settings).text;
  }

  #isMisfit(product: ListedProduct): boolean {
    return product.isRemoved || (this.#query.inStockOnly && product.available === 0);
  }

  #isSorted(slots: readonly Slot[]): boolean {
    const { descending } = SORTS[this.#query.sort];
    const keys = slots.map((slot) => this.#keyOf(slot.product));
    return keys.every((key, index) => {
      const previous = keys[index - 1];
      return previous === undefined || (descending ? previous >= key : previous <= key);
    });
  }

  #newest(listed: Product, known: ListedProduct | undefined): ListedProduct {
    if (known === undefined || known.isRemoved) return toListed(listed);
    return supersedes(listed, known, true) ? { ...known, ...listed, changes: 0 } : { ...known, changes: 0 };
  }

  #slot(product: ListedProduct): Slot {
    return { product, key: this.#keyOf(product) };
  }

  /** The order by name is not checked: the server folds names differently, and names rarely change. */
  #keyOf(product: ListedProduct): number {
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

function restockedUntil(before: ListedProduct, next: Product, nowMs: number): number {
  if (next.available === 0) return 0;
  return before.available === 0 && !before.isRemoved ? nowMs + BACK_IN_STOCK_MS : before.restockedUntilMs;
}
