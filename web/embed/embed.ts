import type { PageSettings } from "../view/settings.ts";
import { SharedStocks } from "./shared-stocks.ts";
import { stockCountClass } from "./stock-count.ts";

// <script src="https://inventory.example/embed.js" async></script>
// <stock-count product-id="sku-1">See the shop</stock-count>

/** The server replaces this name with the settings. */
declare const __STOCK_COUNT_SETTINGS__: Pick<PageSettings, "lowStockMax" | "exactCountMax" | "heartbeatMs">;
const settings = __STOCK_COUNT_SETTINGS__;

const script =
  document.currentScript instanceof HTMLScriptElement
    ? document.currentScript
    : document.querySelector<HTMLScriptElement>('script[src*="/embed.js"]');

if (script && !customElements.get("stock-count")) {
  const stocks = new SharedStocks(new URL(script.src).origin, settings.heartbeatMs);
  customElements.define("stock-count", stockCountClass(stocks, settings));
}
