import type { LinkState } from "../live/watch-loop.ts";
import type { WatchMessage } from "../live/watch-message.ts";
import type { Product } from "../view/product.ts";
import { Leader } from "./leader.ts";
import type { StockClient } from "./stock-client.ts";
import { TabChannel, type TabMessage } from "./tab-messages.ts";

const LOCK = "inventory-watch";
/** In heartbeats: a leader that says nothing for this long is suspended, and replaced. */
const SILENT_BEATS_MAX = 3;

interface SharedWatchOptions {
  readonly client: StockClient;
  readonly heartbeatMs: number;
  readonly onNews: (message: WatchMessage<Product>) => void;
  readonly onState: (state: LinkState) => void;
}

/**
 * One watch for all tabs of this origin. The tab that holds the lock leads: it alone is connected, and tells the others.
 * When it goes, the browser gives the lock to the next. A visible tab takes the lock from a leader that is suspended, or
 * hidden (and so slowed down by the browser) while its connection is lost.
 */
export class SharedWatch {
  readonly #options: SharedWatchOptions;
  readonly #tab = Math.random().toString(36).slice(2);
  readonly #channel: TabChannel;
  #leader: Leader | undefined;
  #ids: readonly string[] = [];
  #silence: ReturnType<typeof setTimeout> | undefined;
  #release = (): void => {};
  #isClosed = false;

  constructor(options: SharedWatchOptions) {
    this.#options = options;
    this.#channel = new TabChannel((message) => this.#onMessage(message));
    this.#queue();
  }

  /** What this tab shows now. */
  want(ids: readonly string[]): void {
    this.#ids = ids;
    this.#sayWants();
    if (this.#silence === undefined) this.#listenForLeader();
  }

  /** Something may have changed for the better: try at once. */
  nudge(): void {
    if (this.#isClosed) return;
    this.#sayWants();
    this.#leader?.nudge();
    this.#listenForLeader();
  }

  /** The browser says that the network is gone. */
  lost(): void {
    this.#leader?.lost();
  }

  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#silence);
    this.#channel.post({ kind: "bye", tab: this.#tab });
    this.#release();
    this.#channel.close();
  }

  get #isVisible(): boolean {
    return document.visibilityState === "visible";
  }

  /** Waits for its turn to lead. Without locks (a page without HTTPS has none) every tab leads itself. */
  #queue(steal = false): void {
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
          this.#release = () => {
            this.#stopLeading();
            resolve();
          };
        });
      })
      .catch(() => {
        // Another tab took the lock.
        this.#stopLeading();
        this.#queue();
      });
  }

  #lead(): void {
    if (this.#leader) return;
    clearTimeout(this.#silence);
    const { client, heartbeatMs } = this.#options;
    this.#leader = new Leader({
      client,
      heartbeatMs,
      tell: (message) => {
        this.#channel.post(message);
        this.#onTold(message);
      },
    });
    this.#sayWants();
  }

  #stopLeading(): void {
    this.#leader?.end();
    this.#leader = undefined;
    if (!this.#isClosed) this.#listenForLeader();
  }

  #sayWants(): void {
    const wants = { tab: this.#tab, ids: this.#ids, isVisible: this.#isVisible };
    if (this.#leader) this.#leader.want(wants.tab, wants.ids, wants.isVisible);
    else this.#channel.post({ kind: "wants", ...wants });
  }

  #onMessage(message: TabMessage): void {
    if (message.kind === "wants") this.#leader?.want(message.tab, message.ids, message.isVisible);
    else if (message.kind === "bye") this.#leader?.forget(message.tab);
    else if (this.#leader === undefined) {
      this.#listenForLeader();
      if (message.kind === "roll-call") this.#sayWants();
      this.#onTold(message);
    }
  }

  /** Of the leader, be it this tab or another. */
  #onTold(message: TabMessage): void {
    if (message.kind === "news") this.#options.onNews(message.message);
    if (message.kind === "state") {
      this.#options.onState(message.state);
      const isSlow = !message.isLeaderVisible && message.state !== "live" && message.state !== "polling";
      if (this.#leader === undefined && isSlow && this.#isVisible) this.#queue(true);
    }
  }

  #listenForLeader(): void {
    clearTimeout(this.#silence);
    if (this.#leader || this.#ids.length === 0) return;
    const patienceMs = SILENT_BEATS_MAX * this.#options.heartbeatMs;
    this.#silence = setTimeout(() => {
      if (this.#isVisible) this.#queue(true);
    }, patienceMs);
  }
}
