import { type ConnectionState, WatchLoop } from "../live/watch-loop.ts";
import { supersedes, type WatchMessage } from "../live/watch-message.ts";
import type { Product } from "../view/product.ts";
import type { StockClient } from "./stock-client.ts";
import { type TabMessage, type TabSubscription, unionOf } from "./tab-messages.ts";

/** Subscriptions that arrive within this time cause one watch. */
const DEBOUNCE_MS = 50;
const RESUBSCRIBE_MS = 60_000;
/** A tab that missed two requests to resubscribe is closed. */
const TAB_TIMEOUT_MS = 2.5 * RESUBSCRIBE_MS;
/** The watch ends when no tab has been visible for this long. */
const HIDDEN_MS_MAX = 120_000;

interface LeaderOptions {
  readonly client: StockClient;
  readonly heartbeatMs: number;
  /** Sends a message to all tabs, including this one. */
  readonly broadcast: (message: TabMessage) => void;
}

/** Holds the watch of all tabs. One tab at a time has a leader. */
export class Leader {
  readonly #options: LeaderOptions;
  readonly #loop: WatchLoop<Product>;
  readonly #subscriptions = new Map<string, TabSubscription>();
  /** The newest state of every watched product, for tabs that subscribe later. */
  readonly #known = new Map<string, Product>();
  #state: ConnectionState | undefined;
  #latest: WatchMessage<Product> | undefined;
  #debounce: ReturnType<typeof setTimeout> | undefined;
  #hiddenTimer: ReturnType<typeof setTimeout> | undefined;
  readonly #resubscribeTimer: ReturnType<typeof setInterval>;
  readonly #stateTimer: ReturnType<typeof setInterval>;

  constructor(options: LeaderOptions) {
    const { client, heartbeatMs, broadcast } = options;
    this.#options = options;
    this.#loop = new WatchLoop<Product>({
      open: (ids, signal) => client.watch(ids, signal),
      poll: (ids, signal) => client.poll(ids, signal),
      heartbeatMs,
      onMessage: (message) => this.#onMessage(message),
      onState: (state) => {
        this.#state = state;
        this.#broadcastState();
      },
    });
    this.#resubscribeTimer = setInterval(() => this.#requestSubscriptions(), RESUBSCRIBE_MS);
    this.#stateTimer = setInterval(() => this.#broadcastState(), heartbeatMs);
    broadcast({ kind: "resubscribe" });
  }

  /** Sets the subscription of a tab, and broadcasts what is known of its products. */
  subscribe(tab: string, ids: readonly string[], isVisible: boolean): void {
    this.#subscriptions.set(tab, { ids, isVisible, atMs: Date.now() });
    this.#broadcastState();
    const stocks = ids.flatMap((id) => this.#known.get(id) ?? []);
    if (this.#latest && stocks.length > 0) {
      this.#options.broadcast({
        kind: "update",
        message: { ...this.#latest, stocks, removed: [], isSnapshot: true, reconnectAfterMs: undefined },
      });
    }
    this.#updateWatch();
  }

  unsubscribe(tab: string): void {
    this.#subscriptions.delete(tab);
    this.#updateWatch();
  }

  retryNow(): void {
    this.#loop.retryNow();
  }

  onOffline(): void {
    this.#loop.onOffline();
  }

  end(): void {
    clearTimeout(this.#debounce);
    clearTimeout(this.#hiddenTimer);
    clearInterval(this.#resubscribeTimer);
    clearInterval(this.#stateTimer);
    this.#loop.end();
  }

  #updateWatch(): void {
    clearTimeout(this.#debounce);
    this.#debounce = setTimeout(() => this.#loop.watch(unionOf(this.#subscriptions.values())), DEBOUNCE_MS);
    clearTimeout(this.#hiddenTimer);
    if (![...this.#subscriptions.values()].some(({ isVisible }) => isVisible)) {
      this.#hiddenTimer = setTimeout(() => this.#loop.watch([]), HIDDEN_MS_MAX);
    }
  }

  #onMessage(message: WatchMessage<Product>): void {
    this.#latest = message;
    for (const stock of message.stocks) {
      const known = this.#known.get(stock.productId);
      if (known === undefined || supersedes(stock, known, message.isSnapshot)) {
        this.#known.set(stock.productId, { ...stock, details: stock.details ?? known?.details });
      }
    }
    for (const productId of message.removed) this.#known.delete(productId);
    this.#options.broadcast({ kind: "update", message });
  }

  #broadcastState(): void {
    if (this.#state === undefined) return;
    const isLeaderVisible = document.visibilityState === "visible";
    this.#options.broadcast({ kind: "state", state: this.#state, isLeaderVisible });
  }

  #requestSubscriptions(): void {
    const oldest = Date.now() - TAB_TIMEOUT_MS;
    for (const [tab, { atMs }] of this.#subscriptions) if (atMs < oldest) this.#subscriptions.delete(tab);
    this.#options.broadcast({ kind: "resubscribe" });
  }
}
