import { type CountLabel, countLabel } from "./count-label.ts";
import { icon } from "./icons.ts";
import type { Markup } from "./markup.ts";
import type { NamedCollection, ShelfProduct } from "./product.ts";
import type { PageSettings } from "./settings.ts";

export interface ProductLabelContext {
  readonly settings: PageSettings;
  readonly collections: readonly NamedCollection[];
  readonly nowMs: number;
}

/** One product as a shelf label: what it is, what it costs, what is left. */
export function productLabel(markup: Markup, product: ShelfProduct, context: ProductLabelContext): unknown {
  const { html, nothing } = markup;
  const { level, text } = labelOf(product, context.settings);
  const { details } = product;
  const collection = collectionName(details?.collectionId ?? "", context.collections);
  const fade = product.changes === 0 ? "none" : product.changes % 2 === 0 ? "even" : "odd";
  const isBack = isBackInStock(product, context.nowMs);
  return html`<li class="label" data-product-id="${product.productId}" data-level="${level}">
    <div class="label-head">
      <p class="label-collection">${collection}</p>
      ${isBack ? html`<p class="label-note">${icon(markup, "back")}<span>Back in stock</span></p>` : nothing}
    </div>
    <h3 class="label-name">${details?.name || product.productId}</h3>
    <p class="label-description">${details?.description || nothing}</p>
    <div class="label-foot">
      <p class="label-price">${details ? formatPrice(details.price, context.settings.currency) : nothing}</p>
      <p class="count" data-fade="${fade}">${icon(markup, level)}<span class="count-text">${text}</span></p>
    </div>
  </li>`;
}

/** The words and the level of a product right now. */
export function labelOf(product: ShelfProduct, settings: PageSettings): CountLabel {
  return product.isGone ? { level: "gone", text: "No longer sold" } : countLabel(product.available, settings);
}

/** Whether it was sold out a short while ago, and is not any more. */
export function isBackInStock(product: ShelfProduct, nowMs: number): boolean {
  return product.available > 0 && product.backUntilMs > nowMs;
}

/** A collection's name, or its ID as a word where its seller has not told a name. */
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
