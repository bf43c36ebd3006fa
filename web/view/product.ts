/** A product as the page keeps it. Plain data: it goes from tab to tab, and from the server into the page. */
export interface Product {
  readonly productId: string;
  readonly available: number;
  readonly version: number;
  readonly updateTimeMs: number;
  /** Absent in a change of the stock alone. */
  readonly details?: ProductDetails | undefined;
}

export interface ProductDetails {
  readonly name: string;
  readonly description: string;
  readonly price: number;
  readonly collectionId: string;
}

/** A product on the shelf, with what has happened to it since it was put there. */
export interface ShelfProduct extends Product {
  readonly isGone: boolean;
  /** Until when "Back in stock" is said; 0 for never. */
  readonly backUntilMs: number;
  /** How often the words about its count changed before the eyes of the reader: it alternates the fade. */
  readonly changes: number;
}

export interface NamedCollection {
  readonly collectionId: string;
  readonly name: string;
}

/** What the server puts into the page for the script to start from. */
export interface PageStart {
  readonly products: readonly Product[];
  readonly total: number;
  readonly collections: readonly NamedCollection[];
  readonly serverTimeMs: number;
  readonly isStale: boolean;
}

export function onShelf(product: Product): ShelfProduct {
  return { ...product, isGone: false, backUntilMs: 0, changes: 0 };
}
