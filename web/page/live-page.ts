import { render } from "lit/html.js";
import type { ConnectionState } from "../live/watch-loop.ts";
import type { WatchMessage } from "../live/watch-message.ts";
import { ageText, type Formats } from "../view/formats.ts";
import type { PageQuery } from "../view/list-query.ts";
import { type PageActions, type PageModel, pageView } from "../view/page-view.ts";
import type { NamedCollection, PageStart, Product } from "../view/product.ts";
import { countLabelOf, formatsIn } from "../view/product-card.ts";
import type { PageSettings } from "../view/settings.ts";
import { isCurrent, type Status, statusWord } from "../view/status.ts";
import { Announcer } from "./announcer.ts";
import { litMarkup } from "./lit-markup.ts";
import { type ListChange, LiveList } from "./live-list.ts";
import type { ProductList } from "./stock-client.ts";

/** How often the age of the counts is updated while no message arrives. */
const AGE_INTERVAL_MS = 30_000;

interface LivePageOptions {
  readonly root: HTMLElement;
  readonly region: HTMLElement;
  readonly settings: PageSettings;
  readonly start: PageStart;
  readonly query: PageQuery;
  readonly actions: PageActions;
  readonly holdView: PageModel["holdView"];
}

/** The state of the page. Renders at most once per task of the browser. */
export class LivePage {
  readonly list: LiveList;
  readonly #options: LivePageOptions;
  readonly #announcer: Announcer;
  #query: PageQuery;
  readonly #collections: readonly NamedCollection[];
  #connection: ConnectionState | "snapshot" = "snapshot";
  #isPaused = false;
  #isStale: boolean;
  #serverTimeMs: number;
  #loading: PageModel["loading"];
  #isDrawing = false;
  #restockTimer: ReturnType<typeof setTimeout> | undefined;

  constructor(options: LivePageOptions) {
    const { start, query, region } = options;
    this.#options = options;
    this.#announcer = new Announcer(region);
    this.#query = query;
    this.#collections = start.collections;
    this.#isStale = start.isStale;
    this.#serverTimeMs = start.serverTimeMs;
    this.#loading = start.isLoaded ? "idle" : "failed";
    this.list = new LiveList(query, options.settings);
    this.list.put(query, start.products, start.total);
    // The server rendered the same content. Replaced within one task, it causes no layout shift.
    options.root.replaceChildren();
    this.#drawNow();
    setInterval(() => {
      if (!isCurrent(this.#status)) this.draw();
    }, AGE_INTERVAL_MS);
    addEventListener("beforeprint", () => this.#drawNow());
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
    this.draw();
  }

  setConnection(link: ConnectionState): void {
    if (link === this.#connection) return;
    const isFirst = this.#connection === "snapshot" && link === "live";
    this.#connection = link;
    if (!isFirst && !this.#isPaused) this.#announceStatus();
    this.draw();
  }

  setLoading(loading: PageModel["loading"], query = this.#query): void {
    this.#loading = loading;
    this.#query = query;
    this.draw();
  }

  /** Shows a list that was loaded. `isLonger`: it extends the one shown. */
  putList(query: PageQuery, list: ProductList, isLonger: boolean): void {
    const { products, total } = list;
    // Without a watch, the list is the latest information from the server.
    if (this.#connection === "snapshot" && list.serverTimeMs > 0) {
      this.#isStale = list.isStale;
      if (!list.isStale) this.#serverTimeMs = list.serverTimeMs;
    }
    if (isLonger) this.list.extend(query, products, total);
    else this.list.put(query, products, total);
    this.setLoading("idle", query);
  }

  apply(message: WatchMessage<Product>): void {
    const wasStale = this.#isStale;
    this.#isStale = message.isStale;
    // The age of stale counts is the time at which they were last known to be current.
    if (!message.isStale && message.serverTimeMs > 0) this.#serverTimeMs = message.serverTimeMs;
    if (wasStale !== message.isStale) this.#announceStatus();
    const changes = this.list.apply(message.stocks, message.removed, message.isSnapshot, Date.now());
    if (!message.isSnapshot) for (const change of changes) this.#announceLevel(change);
    this.draw();
  }

  get #formats(): Formats {
    return formatsIn(this.#options.settings);
  }

  get #status(): Status {
    return {
      connection: this.#isPaused ? "paused" : this.#connection,
      isStale: this.#isStale,
      asOf: this.#serverTimeMs > 0 ? this.#formats.time(this.#serverTimeMs, Date.now()) : "",
      age: this.#serverTimeMs > 0 ? ageText(this.#serverTimeMs, Date.now()) : "",
    };
  }

  #announceStatus(): void {
    const { asOf, connection } = this.#status;
    const isLive = connection === "live" && !this.#isStale;
    const age = isLive || asOf === "" ? "" : `, counts as of ${asOf}`;
    this.#announcer.announce("status", `${statusWord(this.#status)}${age}`);
  }

  /** Announces a change between the levels: low, sold out, back in stock. */
  #announceLevel({ before, after }: ListChange): void {
    const { settings } = this.#options;
    const was = countLabelOf(before, settings).level;
    const { level, text } = countLabelOf(after, settings);
    const isBack = was === "none" && after.available > 0;
    if (level === was || (level === "some" && !isBack)) return;
    const name = after.details?.name || after.productId;
    this.#announcer.announce(after.productId, `${name}: ${isBack ? `back in stock, ${text}` : text}`);
  }

  /** Announces what became of a reservation of this visitor. */
  announceHold(productId: string, text: string): void {
    const product = this.list.products.find((listed) => listed.productId === productId);
    this.#announcer.announce(`hold ${productId}`, `${product?.details?.name || productId}: ${text}`);
  }

  draw(): void {
    if (this.#isDrawing) return;
    this.#isDrawing = true;
    queueMicrotask(() => this.#drawNow());
  }

  #drawNow(): void {
    this.#isDrawing = false;
    const { root, settings, actions, holdView } = this.#options;
    const products = this.list.products;
    const nowMs = Date.now();
    const model: PageModel = {
      settings,
      query: this.#query,
      products,
      total: this.list.total,
      collections: this.#collections,
      status: this.#status,
      printedTime: this.#serverTimeMs > 0 ? this.#formats.fullTime(this.#serverTimeMs) : "",
      holdView,
      nowMs,
      loading: this.#loading,
      movedCount: this.list.movedCount,
    };
    const focused = document.activeElement?.closest(".hold")?.parentElement;
    render(pageView(litMarkup, model, actions), root);
    // The button that had the focus may have been replaced.
    if (focused && !focused.contains(document.activeElement)) {
      focused.querySelector<HTMLElement>(".hold button:enabled")?.focus();
    }
    const deadlines = products
      .map(({ restockedUntilMs }) => restockedUntilMs)
      .filter((untilMs) => untilMs > nowMs);
    clearTimeout(this.#restockTimer);
    if (deadlines.length > 0)
      this.#restockTimer = setTimeout(() => this.draw(), Math.min(...deadlines) - nowMs + 1);
  }
}
