import { icon } from "./icons.ts";
import { filterCount, isPriceRangeReversed, type PageQuery, SORTS } from "./list-query.ts";
import type { Markup } from "./markup.ts";
import type { NamedCollection } from "./product.ts";

export interface SearchFormActions {
  /** A field was edited; more keystrokes may follow. */
  readonly onTyped: (event: Event) => void;
  /** A field was changed or the form submitted. */
  readonly onChosen: (event: Event) => void;
}

/** Search, filters and order. A form that works without a script. */
export function searchFormView(
  markup: Markup,
  query: PageQuery,
  collections: readonly NamedCollection[],
  actions: SearchFormActions | undefined,
): unknown {
  const { html, nothing } = markup;
  const isReversed = isPriceRangeReversed(query);
  const price = (name: string, label: string, value: number | undefined) => html`<label class="field price">
    <span>${label}</span>
    <input type="number" name="${name}" min="0" step="any" inputmode="decimal" placeholder="Any" value="${value ?? ""}" aria-invalid="${isReversed ? "true" : "false"}" aria-describedby="price-range" />
  </label>`;
  const filters = filterCount(query);
  return html`<search>
    <form
      class="search-form"
      method="get"
      action="/"
      autocomplete="off"
      @input=${actions?.onTyped ?? nothing}
      @change=${actions?.onChosen ?? nothing}
      @submit=${actions?.onChosen ?? nothing}
    >
      <label class="field words">
        <span>Search</span>
        <span class="with-icon"
          >${icon(markup, "search")}<input type="search" name="q" maxlength="100" placeholder="Name or product ID" value="${query.words}"
        /></span>
      </label>
      <details class="filters">
        <summary>${filters === 0 ? "Filters" : `Filters: ${filters}`}</summary>
        <div class="filters-fields">
          <label class="field collection">
            <span>Collection</span>
            <select name="collection">
              <option value="" ?selected=${query.collectionId === ""}>All</option>
              ${collections.map(
                ({ collectionId, name }) =>
                  html`<option value="${collectionId}" dir="auto" ?selected=${collectionId === query.collectionId}>${name}</option>`,
              )}
            </select>
          </label>
          ${price("min", "Price from", query.minPrice)} ${price("max", "Price to", query.maxPrice)}
          <label class="check">
            <input type="checkbox" name="stock" value="in" ?checked=${query.inStockOnly} /><span>In stock only</span>
          </label>
        </div>
      </details>
      <label class="field sort">
        <span>Sort by</span>
        <select name="sort">
          ${Object.entries(SORTS).map(
            ([sort, { label }]) =>
              html`<option value="${sort}" ?selected=${sort === query.sort}>${label}</option>`,
          )}
        </select>
      </label>
      <p class="problem" id="price-range" role="alert">${isReversed ? "“Price from” is above “Price to”" : nothing}</p>
      <button type="submit" class="solid apply" ?hidden=${actions !== undefined}>Show</button>
    </form>
  </search>`;
}
