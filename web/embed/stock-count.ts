import type { ConnectionState } from "../live/watch-loop.ts";
import { supersedes, type WatchedStock } from "../live/watch-message.ts";
import { countLabel, type StockLevel } from "../view/count-label.ts";
import type { PageSettings } from "../view/settings.ts";
import type { SharedStocks } from "./shared-stocks.ts";

/** The detail of the `stock-change` event. */
export interface StockChangeDetail {
  readonly productId: string;
  readonly available: number;
  /** The previous count; absent for the first. */
  readonly previous: number | undefined;
}

const STYLE = `:host{display:inline-flex;font-variant-numeric:tabular-nums}
:host([hidden]){display:none}
[part=count]{display:inline-flex;align-items:baseline;gap:.4em;min-width:var(--stock-count-width,6.5em);color:var(--stock-count-color,inherit);transition:opacity .2s}
[part=mark]{font-weight:700}
:host(:state(low)) [part=count]{color:var(--stock-count-low-color,inherit);font-weight:var(--stock-count-low-weight,600)}
:host(:state(sold-out)) [part=count]{color:var(--stock-count-sold-out-color,inherit)}
:host(:state(stale)) [part=count]{opacity:var(--stock-count-stale-opacity,.7)}`;
/** Shown with the text, because colour alone is not accessible. */
const MARKS: Readonly<Record<StockLevel, string>> = { some: "✓", low: "!", none: "×", removed: "×" };

/**
 * Creates the class of `<stock-count product-id="…">`. Its content is shown while there is no count, or the product is
 * unknown. States: `live`, `stale` (neither while polling), `low`, `sold-out`. Parts: `count`, `mark`, `text`.
 */
export function stockCountClass(
  stocks: SharedStocks,
  settings: Pick<PageSettings, "lowStockMax" | "exactCountMax">,
): CustomElementConstructor {
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(STYLE);

  return class StockCount extends HTMLElement {
    static readonly observedAttributes = ["product-id"];
    readonly #states = this.attachInternals().states;
    readonly #slot = document.createElement("slot");
    readonly #count = part("count");
    readonly #mark = part("mark");
    readonly #text = part("text");
    #shown: WatchedStock | undefined;
    #stop: (() => void) | undefined;

    constructor() {
      super();
      const shadow = this.attachShadow({ mode: "open" });
      shadow.adoptedStyleSheets = [sheet];
      this.#mark.setAttribute("aria-hidden", "true");
      this.#count.append(this.#mark, this.#text);
      shadow.append(this.#slot);
    }

    connectedCallback(): void {
      this.#watch();
    }

    disconnectedCallback(): void {
      this.#stop?.();
      this.#stop = undefined;
    }

    attributeChangedCallback(): void {
      this.#clear();
      if (this.isConnected) this.#watch();
    }

    #watch(): void {
      this.#stop?.();
      const productId = this.getAttribute("product-id");
      this.#stop = productId
        ? stocks.watch(productId, {
            onStock: (stock, isSnapshot) => this.#show(stock, isSnapshot),
            onRemoved: () => this.#clear(),
            onState: (state, isStale) => this.#showState(state, isStale),
          })
        : undefined;
    }

    #show(stock: WatchedStock, isSnapshot: boolean): void {
      const shown = this.#shown;
      if (shown && !supersedes(stock, shown, isSnapshot)) return;
      this.#shown = stock;
      const { level, text } = countLabel(stock.available, settings);
      this.#mark.textContent = MARKS[level];
      this.#text.textContent = text;
      if (!shown) this.#slot.replaceWith(this.#count);
      this.#set("low", level === "low");
      this.#set("sold-out", level === "none");
      if (shown?.available === stock.available) return;
      const detail: StockChangeDetail = {
        productId: stock.productId,
        available: stock.available,
        previous: shown?.available,
      };
      this.dispatchEvent(new CustomEvent("stock-change", { detail, bubbles: true, composed: true }));
    }

    #clear(): void {
      this.#shown = undefined;
      this.#count.replaceWith(this.#slot);
      for (const state of ["low", "sold-out", "live", "stale"]) this.#set(state, false);
    }

    #showState(state: ConnectionState, isStale: boolean): void {
      const isCurrent = !isStale && (state === "live" || state === "polling");
      this.#set("live", isCurrent && state === "live" && this.#shown !== undefined);
      this.#set("stale", !isCurrent && this.#shown !== undefined);
    }

    #set(state: string, isOn: boolean): void {
      if (isOn) this.#states.add(state);
      else this.#states.delete(state);
    }
  };
}

function part(name: string): HTMLElement {
  const element = document.createElement("span");
  element.setAttribute("part", name);
  return element;
}
