/** A product as the page knows it. Plain data: it is sent between tabs, and from the server in the HTML. */
export interface Product {
  readonly productId: string;
  readonly available: number;
  readonly version: number;
  readonly updateTimeMs: number;
  /** Absent in a change of the stock only. */
  readonly details?: ProductDetails | undefined;
}

export interface ProductDetails {
  readonly name: string;
  readonly description: string;
  readonly price: number;
  readonly collectionId: string;
}

/** A product in the list, with its history since the list was loaded. */
export interface ListedProduct extends Product {
  readonly isRemoved: boolean;
  /** The product is marked "Back in stock" until this time; 0: it is not. */
  readonly restockedUntilMs: number;
  /** How often the text of its count has changed. Odd and even values select two identical animations, so that each change
   * restarts the animation. */
  readonly changes: number;
}

export interface NamedCollection {
  readonly collectionId: string;
  readonly name: string;
}

/** The state in the HTML from which the script starts. */
export interface PageStart {
  readonly products: readonly Product[];
  readonly total: number;
  readonly collections: readonly NamedCollection[];
  /** When the counts were last known to be current; 0 if never. */
  readonly serverTimeMs: number;
  /** False while the server does not know the products yet. */
  readonly isLoaded: boolean;
  readonly isStale: boolean;
}

export function toListed(product: Product): ListedProduct {
  return { ...product, isRemoved: false, restockedUntilMs: 0, changes: 0 };
}
