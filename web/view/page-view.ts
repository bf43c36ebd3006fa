import { type FinderActions, finderView } from "./finder.ts";
import { isFiltered, type PageQuery, pageAddress } from "./list-query.ts";
import type { Markup } from "./markup.ts";
import type { NamedCollection, ShelfProduct } from "./product.ts";
import { productLabel } from "./product-label.ts";
import { LIST_MAX, LIST_STEP, type PageSettings } from "./settings.ts";
import { isCurrent, type Status, statusView } from "./status.ts";

/** Everything that the page shows. */
export interface PageModel {
  readonly settings: PageSettings;
  readonly query: PageQuery;
  readonly products: readonly ShelfProduct[];
  readonly total: number;
  readonly collections: readonly NamedCollection[];
  readonly status: Status;
  readonly nowMs: number;
  /** `asking`: a list other than the one shown is on its way. `failed`: it did not come. */
  readonly loading: "no" | "asking" | "failed";
  /** How many products have changed so that the order, or the filter, no longer holds. */
  readonly outOfPlace: number;
}

export interface PageActions extends FinderActions {
  readonly onPause: () => void;
  readonly onSortAgain: () => void;
  readonly onRetry: () => void;
  /** A link that the script answers by itself. */
  readonly onLink: (event: Event) => void;
}

const numbers = new Intl.NumberFormat("en");
const plurals = new Intl.PluralRules("en");

/** "1 product", "2,400 products" */
export function countOf(count: number, one: string, other: string): string {
  return `${numbers.format(count)} ${plurals.select(count) === "one" ? one : other}`;
}

/** The whole page inside of its body. Without actions it is what the server writes. */
export function pageView(markup: Markup, model: PageModel, actions?: PageActions): unknown {
  const { html } = markup;
  return html`<a class="skip" href="#products">Skip to the products</a>
    <header class="masthead">
      <h1>What is left</h1>
      <p class="lede">Every product with its count, as it sells.</p>
    </header>
    ${statusView(markup, model.status, actions?.onPause)}
    ${finderView(markup, model.query, model.collections, actions)}
    <main id="products" tabindex="-1" aria-busy="${model.loading === "asking" ? "true" : "false"}">
      ${shelfHead(markup, model, actions)} ${shelf(markup, model, actions)}
    </main>
    <footer class="foot">
      <p>Counts change while others buy. What is in your basket is yours only once it is reserved.</p>
    </footer>`;
}

function shelfHead(markup: Markup, model: PageModel, actions: PageActions | undefined): unknown {
  const { html, nothing } = markup;
  const { outOfPlace, total, products } = model;
  const of = products.length < total ? `${numbers.format(products.length)} of ` : "";
  const isLooking = model.loading === "asking" && products.length === 0;
  return html`<div class="shelf-head">
    <h2 class="tally">${isLooking ? "Looking for products" : `${of}${countOf(total, "product", "products")}`}</h2>
    ${
      outOfPlace > 0 && actions
        ? html`<button type="button" class="quiet sort-again" @click=${actions.onSortAgain}>
          ${numbers.format(outOfPlace)} changed: sort again
        </button>`
        : nothing
    }
  </div>`;
}

function shelf(markup: Markup, model: PageModel, actions: PageActions | undefined): unknown {
  const { html, each, nothing } = markup;
  const failure = model.loading === "failed" ? failureView(markup, model, actions) : nothing;
  if (model.products.length === 0) {
    if (model.loading === "asking") return skeletonView(markup);
    return model.loading === "failed" ? failure : emptyView(markup, model, actions);
  }
  return html`${failure}
    <ul class="shelf" data-current="${isCurrent(model.status) ? "yes" : "no"}" data-loading="${model.loading}">
      ${each(
        model.products,
        (product) => product.productId,
        (product) => productLabel(markup, product, model),
      )}
    </ul>
    ${moreView(markup, model, actions)}`;
}

function moreView({ html, nothing }: Markup, model: PageModel, actions: PageActions | undefined): unknown {
  const { query, products, total } = model;
  const rest = total - products.length;
  if (rest <= 0) return nothing;
  if (query.shown >= LIST_MAX) {
    return html`<p class="more">${countOf(rest, "product is", "products are")} not shown. Search or filter to find them.</p>`;
  }
  const step = Math.min(LIST_STEP, rest, LIST_MAX - query.shown);
  const address = pageAddress({ ...query, shown: Math.min(query.shown + LIST_STEP, LIST_MAX) });
  return html`<p class="more">
    <a class="solid" href="${address}" @click=${actions?.onLink ?? nothing}>Show ${numbers.format(step)} more</a>
  </p>`;
}

function emptyView({ html, nothing }: Markup, model: PageModel, actions: PageActions | undefined): unknown {
  return isFiltered(model.query)
    ? html`<section class="message" data-message="empty">
      <h3>Nothing on the shelf matches</h3>
      <p>Try other words, a wider price range, or take the filters away.</p>
      <p><a class="solid" href="${pageAddress({ ...model.query, words: "", inStockOnly: false, collectionId: "", minPrice: undefined, maxPrice: undefined })}" @click=${actions?.onLink ?? nothing}>Show all products</a></p>
    </section>`
    : html`<section class="message" data-message="empty">
      <h3>The shelf is still empty</h3>
      <p>Products appear here as soon as a seller has declared them.</p>
    </section>`;
}

function failureView({ html, nothing }: Markup, model: PageModel, actions: PageActions | undefined): unknown {
  const isOffline = model.status.connection === "offline";
  return html`<section class="message" data-message="failed">
    <h3>${isOffline ? "You are offline" : "The list could not be loaded"}</h3>
    <p>${isOffline ? "The list comes as soon as you are back." : "The shop did not answer. This page keeps trying."}${
      model.products.length > 0 ? " Below is the list from before." : ""
    }</p>
    <p><button type="button" class="solid" @click=${actions?.onRetry ?? nothing}>Try again</button></p>
  </section>`;
}

function skeletonView({ html }: Markup): unknown {
  const labels = Array.from(
    { length: 8 },
    () => html`<li class="label skeleton"><p></p><p></p><p></p><p></p></li>`,
  );
  return html`<p class="unseen">Loading products</p>
    <ul class="shelf" aria-hidden="true">${labels}</ul>`;
}
