import { type LinkState, WatchLoop } from "../live/watch-loop.ts";
import { supersedes, type WatchMessage } from "../live/watch-message.ts";
import type { Product } from "../view/product.ts";
import type { StockClient } from "./stock-client.ts";
import { type TabMessage, unionOf, type Wants } from "./tab-messages.ts";

/** Wants of several tabs that come in one breath make one watch. */
const GATHER_MS = 50;
const ROLL_CALL_MS = 60_000;
/** A tab that has not answered two roll calls is gone. */
const GONE_MS = 2.5 * ROLL_CALL_MS;
/** With no tab in sight the watch is ended after this: nobody looks at it. */
const UNSEEN_MS_MAX = 120_000;

interface LeaderOptions {
  readonly client: StockClient;
  readonly heartbeatMs: number;
  /** To the other tabs and to this one. */
  readonly tell: (message: TabMessage) => void;
}

/** The one tab that watches, for all of them. */
export class Leader {
  readonly #options: LeaderOptions;
  readonly #loop: WatchLoop<Product>;
  readonly #wants = new Map<string, Wants>();
  /** The newest of everything watched: for a tab that comes later. */
  readonly #known = new Map<string, Product>();
  #state: LinkState | undefined;
  #latest: WatchMessage<Product> | undefined;
  #gathering: ReturnType<typeof setTimeout> | undefined;
  #unseen: ReturnType<typeof setTimeout> | undefined;
  readonly #rollCalls: ReturnType<typeof setInterval>;
  readonly #lifeSigns: ReturnType<typeof setInterval>;

  constructor(options: LeaderOptions) {
    const { client, heartbeatMs, tell } = options;
    this.#options = options;
    this.#loop = new WatchLoop<Product>({
      open: (ids, signal) => client.watch(ids, signal),
      poll: (ids, signal) => client.poll(ids, signal),
      heartbeatMs,
      onMessage: (message) => this.#onMessage(message),
      onState: (state) => {
        this.#state = state;
        this.#tellState();
      },
    });
    this.#rollCalls = setInterval(() => this.#callRoll(), ROLL_CALL_MS);
    this.#lifeSigns = setInterval(() => this.#tellState(), heartbeatMs);
    tell({ kind: "roll-call" });
  }

  /** A tab says what it shows; it is told what is known of that. */
  want(tab: string, ids: readonly string[], isVisible: boolean): void {
    this.#wants.set(tab, { ids, isVisible, atMs: Date.now() });
    this.#tellState();
    const stocks = ids.flatMap((id) => this.#known.get(id) ?? []);
    if (this.#latest && stocks.length > 0) {
      this.#options.tell({
        kind: "news",
        message: { ...this.#latest, stocks, removed: [], isSnapshot: true, reconnectAfterMs: undefined },
      });
    }
    this.#gather();
  }

  forget(tab: string): void {
    this.#wants.delete(tab);
    this.#gather();
  }

  nudge(): void {
    this.#loop.nudge();
  }

  lost(): void {
    this.#loop.lost();
  }

  end(): void {
    clearTimeout(this.#gathering);
    clearTimeout(this.#unseen);
    clearInterval(this.#rollCalls);
    clearInterval(this.#lifeSigns);
    this.#loop.end();
  }

  #gather(): void {
    clearTimeout(this.#gathering);
    this.#gathering = setTimeout(() => this.#loop.watch(unionOf(this.#wants.values())), GATHER_MS);
    clearTimeout(this.#unseen);
    if (![...this.#wants.values()].some(({ isVisible }) => isVisible)) {
      this.#unseen = setTimeout(() => this.#loop.watch([]), UNSEEN_MS_MAX);
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
    this.#options.tell({ kind: "news", message });
  }

  #tellState(): void {
    if (this.#state === undefined) return;
    const isLeaderVisible = document.visibilityState === "visible";
    this.#options.tell({ kind: "state", state: this.#state, isLeaderVisible });
  }

  #callRoll(): void {
    const oldest = Date.now() - GONE_MS;
    for (const [tab, { atMs }] of this.#wants) if (atMs < oldest) this.#wants.delete(tab);
    this.#options.tell({ kind: "roll-call" });
  }
}
