import type { ProductState } from "../inventory/feed.ts";
import type { WatchLimits, WatchRequest } from "./hub.ts";
import type { Mirror } from "./mirror.ts";
import type { Recency } from "./recency.ts";
import { WatchMessage } from "./watch-message.ts";

/** Changes looked at for one message; more do not fit into one. */
const CHANGES_PER_MESSAGE_MAX = 256;
const LIFE_SPREAD = 0.2;

/** One message of a watch. One without stocks and removals is a heartbeat. */
export interface WatchUpdate {
  readonly stocks: readonly ProductState[];
  /** IDs of products that are gone, or never were. */
  readonly removed: readonly string[];
  /** IDs of those stocks whose details are news. */
  readonly withDetails: ReadonlySet<string>;
  readonly snapshot: boolean;
  readonly lastOfSnapshot: boolean;
  readonly stale: boolean;
  /** Set on the last message: when to come back, ms. */
  readonly reconnectAfterMs: number | undefined;
}

interface WatchOptions {
  readonly mirror: Mirror;
  readonly recency: Recency;
  readonly request: WatchRequest;
  readonly limits: WatchLimits;
  readonly onClose: () => void;
}

/**
 * One watcher's view: a snapshot, then what changed since its last message, newest state only. It
 * is pulled: while its reader does not read, nothing is made for it.
 */
export class Watch {
  readonly #options: WatchOptions;
  /** What of the order of changes its messages have covered. */
  #seen: number;
  #wasStale = false;
  #sentAt = Number.NEGATIVE_INFINITY;
  #isDirty = false;
  #isUrgent = false;
  #isEnding = false;
  #isClosed = false;
  #lifeTimer: NodeJS.Timeout | undefined;
  #wakeUp: (() => void) | undefined;

  constructor(options: WatchOptions) {
    this.#options = options;
    this.#seen = options.recency.sequence;
  }

  /** A product of this watch has changed. */
  wake(): void {
    this.#isDirty = true;
    this.#wakeUp?.();
  }

  /** Something is to be told whatever the least interval. */
  wakeAtOnce(): void {
    this.#isUrgent = true;
    this.#wakeUp?.();
  }

  /** The next message is the last. */
  sayGoodbye(): void {
    this.#isEnding = true;
    this.#wakeUp?.();
  }

  /** Frees everything; the updates end. */
  close(): void {
    if (!this.#isClosed) {
      this.#isClosed = true;
      clearTimeout(this.#lifeTimer);
      this.#options.onClose();
      this.#wakeUp?.();
    }
  }

  /** The messages, until the watch is closed or has said goodbye. */
  async *updates(): AsyncGenerator<WatchUpdate> {
    const { limits } = this.#options;
    const life = limits.lifeMs * (1 + LIFE_SPREAD * (2 * Math.random() - 1));
    // Cleared by close(): a reader that is gone while it did not read never lets this generator end.
    this.#lifeTimer = setTimeout(() => this.sayGoodbye(), life);
    try {
      yield* this.#snapshot();
      while (!this.#isClosed) {
        await this.#untilDue();
        if (this.#isClosed) {
          return;
        }
        if (this.#isEnding) {
          yield this.#message({ reconnectAfterMs: Math.ceil(Math.random() * limits.reconnectMs) });
          return;
        }
        yield* this.#changes();
      }
    } finally {
      this.close();
    }
  }

  *#snapshot(): Generator<WatchUpdate> {
    const { mirror, request } = this.#options;
    let message = new WatchMessage();
    for (const productId of request.productIds ?? mirror.visibleIds()) {
      if (this.#isClosed) {
        return;
      }
      const state = mirror.get(productId);
      if (!message.add(productId, state, true)) {
        yield this.#message({ ...message.parts, snapshot: true });
        message = new WatchMessage();
        message.add(productId, state, true);
      }
    }
    yield this.#message({ ...message.parts, snapshot: true, lastOfSnapshot: true });
  }

  /**
   * What changed since the last message; a heartbeat where nothing did. What does not fit into one message is looked up
   * anew for the next, so that nothing is held for a reader while it does not read.
   */
  *#changes(): Generator<WatchUpdate> {
    const { mirror, recency, request } = this.#options;
    let isAll = false;
    while (!isAll && !this.#isClosed) {
      this.#isDirty = false;
      this.#isUrgent = false;
      const changes =
        request.productIds === undefined
          ? recency.after(this.#seen, CHANGES_PER_MESSAGE_MAX)
          : recency.afterOf(this.#seen, request.productIds);
      const message = new WatchMessage();
      let added = 0;
      for (const { productId, sequence, details } of changes) {
        if (!message.add(productId, mirror.get(productId), details)) {
          break;
        }
        this.#seen = sequence;
        added += 1;
      }
      isAll = added === changes.length && changes.length < CHANGES_PER_MESSAGE_MAX;
      yield this.#message(message.parts);
    }
  }

  #message(parts: Partial<WatchUpdate>): WatchUpdate {
    this.#sentAt = performance.now();
    this.#wasStale = this.#options.mirror.isStale;
    return {
      stocks: [],
      removed: [],
      withDetails: NOTHING,
      snapshot: false,
      lastOfSnapshot: false,
      stale: this.#wasStale,
      reconnectAfterMs: undefined,
      ...parts,
    };
  }

  /** Resolves when there is something to tell and the least interval is over, when a heartbeat is due, or at the end. */
  async #untilDue(): Promise<void> {
    const { limits, request, mirror } = this.#options;
    while (!this.#isClosed && !this.#isEnding) {
      const silence = performance.now() - this.#sentAt;
      const isNews = this.#isUrgent && mirror.isStale !== this.#wasStale;
      if (isNews || silence >= limits.heartbeatMs || (this.#isDirty && silence >= request.minIntervalMs)) {
        return;
      }
      const wait = (this.#isDirty ? request.minIntervalMs : limits.heartbeatMs) - silence;
      await this.#sleep(wait);
    }
  }

  /** Resolves after the time or when woken. */
  #sleep(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(wakeUp, ms);
      const self = this;
      this.#wakeUp = wakeUp;
      function wakeUp(): void {
        clearTimeout(timer);
        self.#wakeUp = undefined;
        resolve();
      }
    });
  }
}

const NOTHING: ReadonlySet<string> = new Set();
