import { backoffMs } from "../live/backoff.ts";
import { type PageQuery, pageAddress } from "../view/list-query.ts";
import type { LivePage } from "./live-page.ts";
import type { StockClient } from "./stock-client.ts";

const RETRY = { firstMs: 1_000, mostMs: 15_000 };
/** An empty shelf has nothing to watch; it is looked at again after this. */
const EMPTY_RETRY_MS = 10_000;

interface ListsOptions {
  readonly client: StockClient;
  readonly page: () => LivePage;
  /** Another set of products is on the shelf. */
  readonly onPut: () => void;
}

/** Asks for the lists that the page shows, the latest question alone, and again until an answer comes. */
export class Lists {
  readonly #options: ListsOptions;
  #current: AbortController | undefined;
  #again: ReturnType<typeof setTimeout> | undefined;
  #failures = 0;

  constructor(options: ListsOptions) {
    this.#options = options;
  }

  /** Shows what is asked for, and keeps what is shown until it is there. */
  async ask(query: PageQuery, isLonger = false): Promise<void> {
    const { client, page, onPut } = this.#options;
    clearTimeout(this.#again);
    this.#current?.abort();
    const current = new AbortController();
    this.#current = current;
    if (page().loading !== "failed") page().setLoading("asking", query);
    try {
      const list = await client.list(query, current.signal);
      if (current.signal.aborted) return;
      this.#failures = 0;
      page().putList(query, list, isLonger);
      onPut();
      this.lookAgainIfEmpty();
    } catch {
      if (current.signal.aborted) return;
      this.#failures += 1;
      page().setLoading("failed", query);
      this.#again = setTimeout(() => this.ask(query, isLonger), 500 + backoffMs(this.#failures, RETRY));
    }
  }

  /** Asks again what was last asked and not answered. */
  async retry(): Promise<void> {
    if (this.#options.page().loading === "failed") await this.ask(this.#options.page().query);
  }

  lookAgainIfEmpty(): void {
    clearTimeout(this.#again);
    const { client, page, onPut } = this.#options;
    if (page().shelf.total > 0) return;
    this.#again = setTimeout(async () => {
      const { query } = page();
      try {
        const list = await client.list(query, new AbortController().signal);
        if (page().loading === "no" && pageAddress(query) === pageAddress(page().query)) {
          page().putList(query, list, false);
          onPut();
        }
      } catch {
        // The status says already that the server is away.
      }
      if (page().loading === "no") this.lookAgainIfEmpty();
    }, EMPTY_RETRY_MS);
  }
}
