import { render } from "lit/html.js";
import type { LinkState } from "../live/watch-loop.ts";
import type { WatchMessage } from "../live/watch-message.ts";
import type { PageQuery } from "../view/list-query.ts";
import { type PageActions, type PageModel, pageView } from "../view/page-view.ts";
import type { NamedCollection, PageStart, Product } from "../view/product.ts";
import { labelOf } from "../view/product-label.ts";
import type { PageSettings } from "../view/settings.ts";
import { type Status, statusWord } from "../view/status.ts";
import { Announcer } from "./announcer.ts";
import { litMarkup } from "./lit-markup.ts";
import { Shelf, type ShelfChange } from "./shelf.ts";
import type { ProductList } from "./stock-client.ts";

/** Seconds of the reader's own clock face; the instant is the server's. */
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

interface LivePageOptions {
  readonly root: HTMLElement;
  readonly region: HTMLElement;
  readonly settings: PageSettings;
  readonly start: PageStart;
  readonly query: PageQuery;
  readonly actions: PageActions;
}

/** What the page shows, and the drawing of it: at most once for all that one task of the browser changes. */
export class LivePage {
  readonly shelf: Shelf;
  readonly #options: LivePageOptions;
  readonly #announcer: Announcer;
  #query: PageQuery;
  readonly #collections: readonly NamedCollection[];
  #link: LinkState | "snapshot" = "snapshot";
  #isPaused = false;
  #isStale: boolean;
  #serverTimeMs: number;
  #loading: PageModel["loading"] = "no";
  #isDrawing = false;
  #backTimer: ReturnType<typeof setTimeout> | undefined;

  constructor(options: LivePageOptions) {
    const { start, query, region } = options;
    this.#options = options;
    this.#announcer = new Announcer(region);
    this.#query = query;
    this.#collections = start.collections;
    this.#isStale = start.isStale;
    this.#serverTimeMs = start.serverTimeMs;
    this.shelf = new Shelf(query, options.settings);
    this.shelf.put(query, start.products, start.total);
    // The server wrote the same; replaced within one task, nothing moves.
    options.root.replaceChildren();
    this.#drawNow();
  }

  get query(): PageQuery {
    return this.#query;
  }

  get isPaused(): boolean {
    return this.#isPaused;
  }

  get loading(): PageModel["loading"] {
    return this.#loading;
  }

  setPaused(isPaused: boolean): void {
    this.#isPaused = isPaused;
    this.#announceStatus();
    this.#draw();
  }

  setLink(link: LinkState): void {
    if (link === this.#link) return;
    const isFirst = this.#link === "snapshot" && link === "live";
    this.#link = link;
    if (!isFirst && !this.#isPaused) this.#announceStatus();
    this.#draw();
  }

  setLoading(loading: PageModel["loading"], query = this.#query): void {
    this.#loading = loading;
    this.#query = query;
    this.#draw();
  }

  /** A list has come: in place of the one shown, or longer than it. */
  putList(query: PageQuery, list: ProductList, isLonger: boolean): void {
    const { products, total } = list;
    // Where nothing is watched, the list itself is the latest that was heard.
    if (this.#link === "snapshot" && list.serverTimeMs > 0) {
      this.#serverTimeMs = list.serverTimeMs;
      this.#isStale = list.isStale;
    }
    if (isLonger) this.shelf.extend(query, products, total);
    else this.shelf.put(query, products, total);
    this.setLoading("no", query);
  }

  apply(message: WatchMessage<Product>): void {
    const wasStale = this.#isStale;
    this.#isStale = message.isStale;
    // The age of counts that are known to be old is when they were last known to be new.
    if (!message.isStale && message.serverTimeMs > 0) this.#serverTimeMs = message.serverTimeMs;
    if (wasStale !== message.isStale) this.#announceStatus();
    const changes = this.shelf.apply(message.stocks, message.removed, message.isSnapshot, Date.now());
    if (!message.isSnapshot) for (const change of changes) this.#announceCrossing(change);
    this.#draw();
  }

  get #status(): Status {
    return {
      connection: this.#isPaused ? "paused" : this.#link,
      isStale: this.#isStale,
      asOf: this.#serverTimeMs > 0 ? clock.format(this.#serverTimeMs) : "",
    };
  }

  #announceStatus(): void {
    const { asOf, connection } = this.#status;
    const age = connection === "live" && !this.#isStale ? "" : `, counts as of ${asOf}`;
    this.#announcer.say("status", `${statusWord(this.#status)}${age}`);
  }

  /** Only for crossings of a threshold: to few, to none, and back. */
  #announceCrossing({ before, after }: ShelfChange): void {
    const { settings } = this.#options;
    const was = labelOf(before, settings).level;
    const { level, text } = labelOf(after, settings);
    const isBack = was === "none" && after.available > 0;
    if (level === was || (level === "some" && !isBack)) return;
    const name = after.details?.name || after.productId;
    this.#announcer.say(after.productId, `${name}: ${isBack ? `back in stock, ${text}` : text}`);
  }

  #draw(): void {
    if (this.#isDrawing) return;
    this.#isDrawing = true;
    queueMicrotask(() => this.#drawNow());
  }

  #drawNow(): void {
    this.#isDrawing = false;
    const { root, settings, actions } = this.#options;
    const products = this.shelf.products;
    const nowMs = Date.now();
    const model: PageModel = {
      settings,
      query: this.#query,
      products,
      total: this.shelf.total,
      collections: this.#collections,
      status: this.#status,
      nowMs,
      loading: this.#loading,
      outOfPlace: this.shelf.outOfPlace,
    };
    render(pageView(litMarkup, model, actions), root);
    const backs = products.map(({ backUntilMs }) => backUntilMs).filter((untilMs) => untilMs > nowMs);
    clearTimeout(this.#backTimer);
    if (backs.length > 0) this.#backTimer = setTimeout(() => this.#draw(), Math.min(...backs) - nowMs + 1);
  }
}
