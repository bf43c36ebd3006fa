import { backoffMs } from "../live/backoff.ts";
import { isPriceRangeReversed, type PageQuery, pageAddress } from "../view/list-query.ts";
import type { LivePage } from "./live-page.ts";
import type { ProductList, StockClient } from "./stock-client.ts";

const RETRY = { firstMs: 1_000, maxMs: 15_000 };
/** An empty list has no products to watch, so it is loaded again after this time. */
const EMPTY_RETRY_MS = 10_000;

const NOTHING: ProductList = { products: [], total: 0, serverTimeMs: 0, isStale: false };

interface ListsOptions {
  readonly client: StockClient;
  readonly page: () => LivePage;
  /** The page shows another set of products. */
  readonly onLoaded: () => void;
}

/** Loads the lists that the page shows. A new query cancels the previous one. Retries until it succeeds. */
export class Lists {
  readonly #options: ListsOptions;
  #current: AbortController | undefined;
  #retryTimer: ReturnType<typeof setTimeout> | undefined;
  #failures = 0;

  constructor(options: ListsOptions) {
    this.#options = options;
  }

  /** Loads a list. The page keeps the previous one until it arrives. */
  async load(query: PageQuery, isLonger = false): Promise<void> {
    const { page, onLoaded } = this.#options;
    clearTimeout(this.#retryTimer);
    this.#current?.abort();
    const current = new AbortController();
    this.#current = current;
    if (page().loading !== "failed") page().setLoading("loading", query);
    try {
      const list = await this.#list(query, current.signal);
      if (current.signal.aborted) return;
      this.#failures = 0;
      page().putList(query, list, isLonger);
      onLoaded();
      this.reloadWhileEmpty();
    } catch {
      if (current.signal.aborted) return;
      this.#failures += 1;
      page().setLoading("failed", query);
      this.#retryTimer = setTimeout(() => this.load(query, isLonger), 500 + backoffMs(this.#failures, RETRY));
    }
  }

  /** Retries at once if the last query failed. */
  async retry(): Promise<void> {
    if (this.#options.page().loading === "failed") await this.load(this.#options.page().query);
  }

  reloadWhileEmpty(): void {
    clearTimeout(this.#retryTimer);
    const { page, onLoaded } = this.#options;
    if (page().list.total > 0) return;
    this.#retryTimer = setTimeout(async () => {
      const { query } = page();
      try {
        const list = await this.#list(query, new AbortController().signal);
        if (page().loading === "idle" && pageAddress(query) === pageAddress(page().query)) {
          page().putList(query, list, false);
          onLoaded();
        }
      } catch {
        // The page's status shows already that the server is unavailable.
      }
      if (page().loading === "idle") this.reloadWhileEmpty();
    }, EMPTY_RETRY_MS);
  }

  /** The server refuses a reversed price range, so it is not sent. */
  async #list(query: PageQuery, signal: AbortSignal): Promise<ProductList> {
    return isPriceRangeReversed(query) ? NOTHING : await this.#options.client.list(query, signal);
  }
}
