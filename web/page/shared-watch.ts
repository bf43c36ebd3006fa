import type { ConnectionState } from "../live/watch-loop.ts";
import type { WatchMessage } from "../live/watch-message.ts";
import type { Product } from "../view/product.ts";
import { Leader } from "./leader.ts";
import type { StockClient } from "./stock-client.ts";
import { TabChannel, type TabMessage } from "./tab-messages.ts";

const LOCK = "inventory-watch";
/** In heartbeats: a leader that sends nothing for this long is suspended, and is replaced. */
const LEADER_TIMEOUT_BEATS = 3;

interface SharedWatchOptions {
  readonly client: StockClient;
  readonly heartbeatMs: number;
  readonly onUpdate: (message: WatchMessage<Product>) => void;
  readonly onState: (state: ConnectionState) => void;
}

/**
 * One watch for all tabs of this origin. The tab that holds the Web Lock is the leader: it has the connection and
 * broadcasts what it receives. When it closes, the browser grants the lock to the next tab. A visible tab steals the
 * lock from a leader that is suspended, or that is hidden (and so throttled by the browser) and disconnected.
 */
export class SharedWatch {
  readonly #options: SharedWatchOptions;
  readonly #tab = Math.random().toString(36).slice(2);
  readonly #channel: TabChannel;
  #leader: Leader | undefined;
  #ids: readonly string[] = [];
  #leaderTimeout: ReturnType<typeof setTimeout> | undefined;
  #releaseLock = (): void => {};
  #isClosed = false;

  constructor(options: SharedWatchOptions) {
    this.#options = options;
    this.#channel = new TabChannel((message) => this.#onMessage(message));
    this.#requestLock();
  }

  /** Sets the products that this tab shows. */
  subscribe(ids: readonly string[]): void {
    this.#ids = ids;
    this.#sendSubscription();
    if (this.#leaderTimeout === undefined) this.#awaitLeader();
  }

  /** Retries at once: the network or the tab may be available again. */
  retryNow(): void {
    if (this.#isClosed) return;
    this.#sendSubscription();
    this.#leader?.retryNow();
    this.#awaitLeader();
  }

  /** The browser reports that the network is unavailable. */
  onOffline(): void {
    this.#leader?.onOffline();
  }

  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#leaderTimeout);
    this.#channel.post({ kind: "unsubscribe", tab: this.#tab });
    this.#releaseLock();
    this.#channel.close();
  }

  get #isVisible(): boolean {
    return document.visibilityState === "visible";
  }

  /** Becomes the leader when the lock is granted. Without Web Locks (they need HTTPS) every tab is its own leader. */
  #requestLock(steal = false): void {
    if (this.#isClosed) return;
    const { locks } = navigator;
    if (locks === undefined) {
      this.#lead();
      return;
    }
    locks
      .request(LOCK, { steal }, () => {
        if (this.#isClosed) return undefined;
        this.#lead();
        return new Promise<void>((resolve) => {
          this.#releaseLock = () => {
            this.#stopLeading();
            resolve();
          };
        });
      })
      .catch(() => {
        // Another tab stole the lock.
        this.#stopLeading();
        this.#requestLock();
      });
  }

  #lead(): void {
    if (this.#leader) return;
    clearTimeout(this.#leaderTimeout);
    const { client, heartbeatMs } = this.#options;
    this.#leader = new Leader({
      client,
      heartbeatMs,
      broadcast: (message) => {
        this.#channel.post(message);
        this.#onLeaderMessage(message);
      },
    });
    this.#sendSubscription();
  }

  #stopLeading(): void {
    this.#leader?.end();
    this.#leader = undefined;
    if (!this.#isClosed) this.#awaitLeader();
  }

  #sendSubscription(): void {
    const subscription = { tab: this.#tab, ids: this.#ids, isVisible: this.#isVisible };
    if (this.#leader) this.#leader.subscribe(subscription.tab, subscription.ids, subscription.isVisible);
    else this.#channel.post({ kind: "subscribe", ...subscription });
  }

  #onMessage(message: TabMessage): void {
    if (message.kind === "subscribe") this.#leader?.subscribe(message.tab, message.ids, message.isVisible);
    else if (message.kind === "unsubscribe") this.#leader?.unsubscribe(message.tab);
    else if (this.#leader === undefined) {
      this.#awaitLeader();
      if (message.kind === "resubscribe") this.#sendSubscription();
      this.#onLeaderMessage(message);
    }
  }

  /** Handles a message of the leader, which may be this tab. */
  #onLeaderMessage(message: TabMessage): void {
    if (message.kind === "update") this.#options.onUpdate(message.message);
    if (message.kind === "state") {
      this.#options.onState(message.state);
      const isThrottled = !message.isLeaderVisible && message.state !== "live" && message.state !== "polling";
      if (this.#leader === undefined && isThrottled && this.#isVisible) this.#requestLock(true);
    }
  }

  /** Takes the lock if the leader sends nothing in time. */
  #awaitLeader(): void {
    clearTimeout(this.#leaderTimeout);
    if (this.#leader || this.#ids.length === 0) return;
    const timeoutMs = LEADER_TIMEOUT_BEATS * this.#options.heartbeatMs;
    this.#leaderTimeout = setTimeout(() => {
      if (this.#isVisible) this.#requestLock(true);
    }, timeoutMs);
  }
}
