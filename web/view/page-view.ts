import { isFiltered, isPriceRangeReversed, type PageQuery, pageAddress } from "./list-query.ts";
import type { Markup } from "./markup.ts";
import type { ListedProduct } from "./product.ts";
import { formatsIn, type ProductCardContext, productCard } from "./product-card.ts";
import { type SearchFormActions, searchFormView } from "./search-form.ts";
import { LIST_MAX, LIST_STEP } from "./settings.ts";
import { isConnected, isCurrent, type Status, statusView } from "./status.ts";

export interface PageModel extends Omit<ProductCardContext, "isConnected"> {
  readonly query: PageQuery;
  readonly products: readonly ListedProduct[];
  readonly total: number;
  readonly status: Status;
  /** When the counts were last known to be current, with the date, for a printout. Empty if that is unknown. */
  readonly printedTime: string;
  /** `loading`: another list was requested. `failed`: that request failed. */
  readonly loading: "idle" | "loading" | "failed";
  /** Number of products whose position in the list is out of date. */
  readonly movedCount: number;
}

export interface PageActions extends SearchFormActions {
  readonly onPause: () => void;
  readonly onSortAgain: () => void;
  readonly onRetry: () => void;
  /** A link that the script handles without a navigation. */
  readonly onLink: (event: Event) => void;
}

const plurals = new Intl.PluralRules("en");

/** "1 product", "2,400 products" */
function countOf({ settings }: PageModel, count: number, one: string, other: string): string {
  return `${formatsIn(settings).number(count)} ${plurals.select(count) === "one" ? one : other}`;
}

/** The content of the page's body. The server renders it without actions. */
export function pageView(markup: Markup, model: PageModel, actions?: PageActions): unknown {
  const { html, nothing } = markup;
  const { settings, printedTime } = model;
  return html`<a class="skip" href="#products">Skip to products</a>
    <header class="masthead">
      <h1 dir="auto">${settings.shopName ?? "Live stock"}</h1>
      <p class="lede">
        ${settings.shopName ? "Live stock: all" : "All"} products, with the number of units left.
        ${
          settings.demo?.canReserve
            ? html`Open this page in two windows, reserve a unit in one, and watch the count fall in the other.
              <noscript>Reserving needs JavaScript.</noscript>`
            : nothing
        }
      </p>
      <p class="print-time">
        ${printedTime === "" ? "The time of these counts is unknown" : `Counts as of ${printedTime}`}
      </p>
    </header>
    ${statusView(markup, model.status, actions?.onPause)}
    ${searchFormView(markup, model.query, model.collections, actions)}
    <main id="products" tabindex="-1" aria-busy="${model.loading === "loading" ? "true" : "false"}">
      ${listHead(markup, model, actions)} ${productList(markup, model, actions)}
    </main>
    <footer class="foot">
      <p>Counts change as customers reserve, buy and release units.</p>
    </footer>`;
}

function listHead(markup: Markup, model: PageModel, actions: PageActions | undefined): unknown {
  const { html, nothing } = markup;
  const { movedCount, total, products } = model;
  const { number } = formatsIn(model.settings);
  const of = products.length < total ? `${number(products.length)} of ` : "";
  const isFirstLoad = model.loading === "loading" && products.length === 0;
  return html`<div class="list-head">
    <h2 class="result-count">${isFirstLoad ? "Loading products" : `${of}${countOf(model, total, "product", "products")}`}</h2>
    ${
      movedCount > 0 && actions
        ? html`<button type="button" class="quiet sort-again" @click=${actions.onSortAgain}>
          ${number(movedCount)} changed: sort again
        </button>`
        : nothing
    }
  </div>`;
}

function productList(markup: Markup, model: PageModel, actions: PageActions | undefined): unknown {
  const { html, each, nothing } = markup;
  const failure = model.loading === "failed" ? failureView(markup, model, actions) : nothing;
  if (model.products.length === 0) {
    if (model.loading === "loading") return skeletonView(markup);
    return model.loading === "failed" ? failure : emptyView(markup, model, actions);
  }
  return html`${failure}
    <ul class="product-list" data-current="${isCurrent(model.status) ? "yes" : "no"}" data-loading="${model.loading}">
      ${each(
        model.products,
        (product) => product.productId,
        (product) => productCard(markup, product, { ...model, isConnected: isConnected(model.status) }),
      )}
    </ul>
    ${moreView(markup, model, actions)}`;
}

function moreView({ html, nothing }: Markup, model: PageModel, actions: PageActions | undefined): unknown {
  const { query, products, total } = model;
  const rest = total - products.length;
  if (rest <= 0) return nothing;
  if (query.shown >= LIST_MAX) {
    return html`<p class="more">${countOf(model, rest, "product is", "products are")} not shown. Search or filter to find them.</p>`;
  }
  const step = Math.min(LIST_STEP, rest, LIST_MAX - query.shown);
  const address = pageAddress({ ...query, shown: Math.min(query.shown + LIST_STEP, LIST_MAX) });
  return html`<p class="more">
    <a class="solid" href="${address}" @click=${actions?.onLink ?? nothing}>Show ${formatsIn(model.settings).number(step)} more</a>
  </p>`;
}

function emptyView({ html, nothing }: Markup, model: PageModel, actions: PageActions | undefined): unknown {
  const { query, settings } = model;
  if (isPriceRangeReversed(query)) {
    const { price } = formatsIn(settings);
    return html`<section class="message" data-message="reversed">
      <h3>No products match</h3>
      <p>No price is both at least ${price(query.minPrice ?? 0)} and at most ${price(query.maxPrice ?? 0)}.</p>
    </section>`;
  }
  return isFiltered(query)
    ? html`<section class="message" data-message="empty">
      <h3>No products match</h3>
      <p>Try different search words, a wider price range, or fewer filters.</p>
      <p><a class="solid" href="${pageAddress({ ...query, words: "", inStockOnly: false, collectionId: "", minPrice: undefined, maxPrice: undefined })}" @click=${actions?.onLink ?? nothing}>Show all products</a></p>
    </section>`
    : html`<section class="message" data-message="empty">
      <h3>No products yet</h3>
      <p>Products appear here as soon as they are added.</p>
    </section>`;
}

function failureView({ html }: Markup, model: PageModel, actions: PageActions | undefined): unknown {
  const isOffline = model.status.connection === "offline";
  return html`<section class="message" data-message="failed">
    <h3>${isOffline ? "You are offline" : "Products could not be loaded"}</h3>
    <p>${isOffline ? "Products load when you are back online." : "The shop is not responding. This page keeps trying."}${
      model.products.length > 0 ? " The previous list is shown below." : ""
    }</p>
    <p>${
      actions
        ? html`<button type="button" class="solid" @click=${actions.onRetry}>Try again</button>`
        : html`<a class="solid" href="${pageAddress(model.query)}">Try again</a>`
    }</p>
  </section>`;
}

function skeletonView({ html }: Markup): unknown {
  const cards = Array.from(
    { length: 8 },
    () => html`<li class="card skeleton"><p></p><p></p><p></p><p></p></li>`,
  );
  return html`<p class="unseen">Loading products</p>
    <ul class="product-list" aria-hidden="true">${cards}</ul>`;
}
