import { type ConnectionState, WatchLoop } from "../live/watch-loop.ts";
import { supersedes, WATCHED_MAX, type WatchedStock, type WatchMessage } from "../live/watch-message.ts";
import { batchGet } from "./batch-get.ts";
import { callStream } from "./grpc-web.ts";
import { readWatchResponse, writeWatchRequest } from "./wire.ts";

/** Elements that are added within this time cause one watch. */
const DEBOUNCE_MS = 20;

export interface StockObserver {
  readonly onStock: (stock: WatchedStock, isSnapshot: boolean) => void;
  readonly onRemoved: () => void;
  readonly onState: (state: ConnectionState, isStale: boolean) => void;
}

/** One watch for all the elements of a page. */
export class SharedStocks {
  readonly #observers = new Map<string, Set<StockObserver>>();
  readonly #known = new Map<string, WatchedStock>();
  readonly #loop: WatchLoop<WatchedStock>;
  #state: ConnectionState = "reconnecting";
  #isStale = false;
  #debounce: ReturnType<typeof setTimeout> | undefined;

  constructor(baseUrl: string, heartbeatMs: number) {
    const service = `${baseUrl}/inventory.v1.StockService/`;
    this.#loop = new WatchLoop<WatchedStock>({
      async *open(ids, signal) {
        for await (const bytes of callStream(`${service}WatchStock`, writeWatchRequest(ids), signal)) {
          yield readWatchResponse(bytes);
        }
      },
      poll: (ids, signal) => batchGet(`${service}BatchGetStock`, ids, signal),
      heartbeatMs,
      onMessage: (message) => this.#onMessage(message),
      onState: (state) => {
        this.#state = state;
        this.#reportState();
      },
    });
    const retryNow = (): void => this.#loop.retryNow();
    addEventListener("online", retryNow);
    addEventListener("pageshow", retryNow);
    addEventListener("offline", () => this.#loop.onOffline());
    // An open connection would exclude the page from the back/forward cache.
    addEventListener("pagehide", () => this.#loop.watch([]));
    addEventListener("pageshow", () => this.#updateWatch());
    document.addEventListener("visibilitychange", retryNow);
  }

  /** Observes a product until the returned function is called. */
  watch(productId: string, observer: StockObserver): () => void {
    const observers = this.#observers.get(productId) ?? new Set();
    this.#observers.set(productId, observers.add(observer));
    const known = this.#known.get(productId);
    if (known) {
      observer.onStock(known, true);
      observer.onState(this.#state, this.#isStale);
    }
    this.#updateWatch();
    return () => {
      observers.delete(observer);
      if (observers.size === 0 && this.#observers.get(productId) === observers) {
        this.#observers.delete(productId);
        this.#known.delete(productId);
      }
      this.#updateWatch();
    };
  }

  #updateWatch(): void {
    clearTimeout(this.#debounce);
    this.#debounce = setTimeout(
      () => this.#loop.watch([...this.#observers.keys()].slice(0, WATCHED_MAX)),
      DEBOUNCE_MS,
    );
  }

  #onMessage(message: WatchMessage<WatchedStock>): void {
    for (const stock of message.stocks) {
      const known = this.#known.get(stock.productId);
      if (!known || supersedes(stock, known, message.isSnapshot)) this.#known.set(stock.productId, stock);
      for (const observer of this.#observers.get(stock.productId) ?? [])
        observer.onStock(stock, message.isSnapshot);
    }
    for (const productId of message.removed) {
      this.#known.delete(productId);
      for (const observer of this.#observers.get(productId) ?? []) observer.onRemoved();
    }
    if (message.stocks.length > 0 || message.isStale !== this.#isStale) {
      this.#isStale = message.isStale;
      this.#reportState();
    }
  }

  #reportState(): void {
    for (const observers of this.#observers.values()) {
      for (const observer of observers) observer.onState(this.#state, this.#isStale);
    }
  }
}
