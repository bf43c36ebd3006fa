import { type CountLabel, countLabel } from "./count-label.ts";
import { icon } from "./icons.ts";
import type { Markup } from "./markup.ts";
import type { ListedProduct, NamedCollection } from "./product.ts";
import type { PageSettings } from "./settings.ts";

export interface ProductCardContext {
  readonly settings: PageSettings;
  readonly collections: readonly NamedCollection[];
  readonly nowMs: number;
}

/** One product: collection, name, description, price and count. */
export function productCard(markup: Markup, product: ListedProduct, context: ProductCardContext): unknown {
  const { html, nothing } = markup;
  const { level, text } = countLabelOf(product, context.settings);
  const { details } = product;
  const collection = collectionName(details?.collectionId ?? "", context.collections);
  const fade = product.changes === 0 ? "none" : product.changes % 2 === 0 ? "even" : "odd";
  const isBack = isBackInStock(product, context.nowMs);
  return html`<li class="card" data-product-id="${product.productId}" data-level="${level}">
    <div class="card-head">
      <p class="card-collection">${collection}</p>
      ${isBack ? html`<p class="card-note">${icon(markup, "back")}<span>Back in stock</span></p>` : nothing}
    </div>
    <h3 class="card-name">${details?.name || product.productId}</h3>
    <p class="card-description">${details?.description || nothing}</p>
    <div class="card-foot">
      <p class="card-price">${details ? formatPrice(details.price, context.settings.currency) : nothing}</p>
      <p class="count" data-fade="${fade}">${icon(markup, level)}<span class="count-text">${text}</span></p>
    </div>
  </li>`;
}

export function countLabelOf(product: ListedProduct, settings: PageSettings): CountLabel {
  return product.isRemoved
    ? { level: "removed", text: "No longer available" }
    : countLabel(product.available, settings);
}

/** Whether it was sold out until recently. */
export function isBackInStock(product: ListedProduct, nowMs: number): boolean {
  return product.available > 0 && product.restockedUntilMs > nowMs;
}

/** A collection's name, or its capitalised ID if it has none. */
export function collectionName(collectionId: string, collections: readonly NamedCollection[]): string {
  const known = collections.find((collection) => collection.collectionId === collectionId);
  return known?.name || collectionId.charAt(0).toUpperCase() + collectionId.slice(1);
}

const formats = new Map<string, Intl.NumberFormat>();

function formatPrice(price: number, currency: string): string {
  let format = formats.get(currency);
  if (format === undefined) {
    format = new Intl.NumberFormat("en", { style: "currency", currency });
    formats.set(currency, format);
  }
  return format.format(price);
}
