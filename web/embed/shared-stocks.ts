import { type LinkState, WatchLoop } from "../live/watch-loop.ts";
import { supersedes, type WatchedStock, type WatchMessage } from "../live/watch-message.ts";
import { batchGet } from "./batch-get.ts";
import { callStream } from "./grpc-web.ts";
import { readWatchResponse, writeWatchRequest } from "./wire.ts";

/** Elements that come with one piece of a page make one watch. */
const GATHER_MS = 20;
const WATCHED_MAX = 1_000;

/** What an element wants to hear of its product. */
export interface StockReader {
  readonly onStock: (stock: WatchedStock, isSnapshot: boolean) => void;
  readonly onGone: () => void;
  readonly onState: (state: LinkState, isStale: boolean) => void;
}

/** One watch for all the elements of a page. */
export class SharedStocks {
  readonly #readers = new Map<string, Set<StockReader>>();
  readonly #known = new Map<string, WatchedStock>();
  readonly #loop: WatchLoop<WatchedStock>;
  #state: LinkState = "reconnecting";
  #isStale = false;
  #gathering: ReturnType<typeof setTimeout> | undefined;

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
        this.#tellState();
      },
    });
    const nudge = (): void => this.#loop.nudge();
    addEventListener("online", nudge);
    addEventListener("pageshow", nudge);
    addEventListener("offline", () => this.#loop.lost());
    // An open connection would keep the page from being kept for the way back.
    addEventListener("pagehide", () => this.#loop.watch([]));
    addEventListener("pageshow", () => this.#gather());
    document.addEventListener("visibilitychange", nudge);
  }

  /** Tells of a product until the function that it returns is called. */
  watch(productId: string, reader: StockReader): () => void {
    const readers = this.#readers.get(productId) ?? new Set();
    this.#readers.set(productId, readers.add(reader));
    const known = this.#known.get(productId);
    if (known) {
      reader.onStock(known, true);
      reader.onState(this.#state, this.#isStale);
    }
    this.#gather();
    return () => {
      readers.delete(reader);
      if (readers.size === 0 && this.#readers.get(productId) === readers) {
        this.#readers.delete(productId);
        this.#known.delete(productId);
      }
      this.#gather();
    };
  }

  #gather(): void {
    clearTimeout(this.#gathering);
    this.#gathering = setTimeout(
      () => this.#loop.watch([...this.#readers.keys()].slice(0, WATCHED_MAX)),
      GATHER_MS,
    );
  }

  #onMessage(message: WatchMessage<WatchedStock>): void {
    for (const stock of message.stocks) {
      const known = this.#known.get(stock.productId);
      if (!known || supersedes(stock, known, message.isSnapshot)) this.#known.set(stock.productId, stock);
      for (const reader of this.#readers.get(stock.productId) ?? [])
        reader.onStock(stock, message.isSnapshot);
    }
    for (const productId of message.removed) {
      this.#known.delete(productId);
      for (const reader of this.#readers.get(productId) ?? []) reader.onGone();
    }
    if (message.stocks.length > 0 || message.isStale !== this.#isStale) {
      this.#isStale = message.isStale;
      this.#tellState();
    }
  }

  #tellState(): void {
    for (const readers of this.#readers.values()) {
      for (const reader of readers) reader.onState(this.#state, this.#isStale);
    }
  }
}
