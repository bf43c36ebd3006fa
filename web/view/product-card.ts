import { type CountLabel, countLabel } from "./count-label.ts";
import { type Formats, formatsOf } from "./formats.ts";
import type { HoldModel } from "./hold.ts";
import { icon } from "./icons.ts";
import type { Markup } from "./markup.ts";
import type { ListedProduct, NamedCollection } from "./product.ts";
import type { PageSettings } from "./settings.ts";

export interface ProductCardContext {
  readonly settings: PageSettings;
  readonly collections: readonly NamedCollection[];
  readonly nowMs: number;
  readonly isConnected: boolean;
  /** In the demo: what a visitor may do with a product. */
  readonly holdView: ((markup: Markup, model: HoldModel) => unknown) | undefined;
}

/** One product: picture, collection, name, description, price and count. */
export function productCard(markup: Markup, product: ListedProduct, context: ProductCardContext): unknown {
  const { html, nothing } = markup;
  const { settings, holdView, isConnected, nowMs } = context;
  const { level, text } = countLabelOf(product, settings);
  const { productId, details } = product;
  const collection = collectionName(details?.collectionId ?? "", context.collections);
  const name = details?.name || productId;
  const fade = product.changes === 0 ? "none" : product.changes % 2 === 0 ? "even" : "odd";
  const isBack = isBackInStock(product, nowMs);
  const picture = settings.demo?.pictures[productId];
  return html`<li class="card" data-product-id="${productId}" data-level="${level}">
    ${picture ? pictureView(markup, picture) : nothing}
    <div class="card-head">
      <p class="card-collection" dir="auto">${collection}</p>
      ${isBack ? html`<p class="card-note">${icon(markup, "back")}<span>Back in stock</span></p>` : nothing}
    </div>
    <h3 class="card-name" dir="auto">${name}</h3>
    <p class="card-description" dir="auto">${details?.description || nothing}</p>
    <div class="card-foot">
      <p class="card-price">${details ? formatsIn(settings).price(details.price) : nothing}</p>
      <p class="count" data-fade="${fade}">${icon(markup, level)}<span class="count-text">${text}</span></p>
    </div>
    ${
      picture && holdView
        ? holdView(markup, { productId, name, available: product.available, isConnected, nowMs })
        : nothing
    }
  </li>`;
}

/** The formats of the visitor, in the time zone of the browser. */
export function formatsIn({ locale, currency }: PageSettings): Formats {
  return formatsOf(locale, currency);
}

export function countLabelOf(product: ListedProduct, settings: PageSettings): CountLabel {
  return product.isRemoved
    ? { level: "removed", text: "No longer available" }
    : countLabel(product.available, settings, formatsIn(settings).number);
}

/** Whether it was sold out until recently. */
export function isBackInStock(product: ListedProduct, nowMs: number): boolean {
  return product.available > 0 && product.restockedUntilMs > nowMs;
}

/** A collection's name, or its ID if it has none. */
export function collectionName(collectionId: string, collections: readonly NamedCollection[]): string {
  return collections.find((collection) => collection.collectionId === collectionId)?.name || collectionId;
}

/** Decoration: the name is next to it. */
function pictureView({ html }: Markup, path: string): unknown {
  return html`<svg class="card-picture" viewBox="0 0 48 48" aria-hidden="true" focusable="false"><path d="${path}" /></svg>`;
}
