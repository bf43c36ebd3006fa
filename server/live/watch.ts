import type { ProductState } from "../inventory/feed.ts";
import type { WatchLimits, WatchRequest } from "./hub.ts";
import type { Mirror } from "./mirror.ts";
import type { Recency, RecentChange } from "./recency.ts";

/** About how many bytes one message may have: with what node buffers, a reader that stops holds less than 32 KB. */
const MESSAGE_BYTES_MAX = 12 * 1024;
/** What a product costs in a message besides its texts, at most. */
const PRODUCT_BYTES = 64;
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
      this.#options.onClose();
      this.#wakeUp?.();
    }
  }

  /** The messages, until the watch is closed or has said goodbye. */
  async *updates(): AsyncGenerator<WatchUpdate> {
    const { limits } = this.#options;
    const life = limits.lifeMs * (1 + LIFE_SPREAD * (2 * Math.random() - 1));
    const lifeTimer = setTimeout(() => this.sayGoodbye(), life);
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
      clearTimeout(lifeTimer);
      this.close();
    }
  }

  *#snapshot(): Generator<WatchUpdate> {
    const { mirror, request } = this.#options;
    const { productIds } = request;
    const removed =
      productIds === undefined ? [] : [...productIds].filter((id) => mirror.get(id) === undefined);
    const states = productIds === undefined ? mirror.visible() : statesOf(mirror, productIds);
    let stocks: ProductState[] = [];
    let bytes = 0;
    for (const state of states) {
      const size = sizeOf(state, true);
      if (stocks.length > 0 && bytes + size > MESSAGE_BYTES_MAX) {
        yield this.#message({ stocks, withDetails: idsOf(stocks), snapshot: true });
        stocks = [];
        bytes = 0;
      }
      stocks.push(state);
      bytes += size;
    }
    yield this.#message({
      stocks,
      removed,
      withDetails: idsOf(stocks),
      snapshot: true,
      lastOfSnapshot: true,
    });
  }

  /** What changed since the last message; a heartbeat where nothing did. */
  *#changes(): Generator<WatchUpdate> {
    const { mirror, recency, request } = this.#options;
    this.#isDirty = false;
    this.#isUrgent = false;
    const changes =
      request.productIds === undefined
        ? recency.since(this.#seen)
        : recency.sinceOf(this.#seen, request.productIds);
    this.#seen = recency.sequence;
    for (const part of parts(changes, mirror)) {
      yield this.#message(part);
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

function* statesOf(mirror: Mirror, productIds: Iterable<string>): Generator<ProductState> {
  for (const productId of productIds) {
    const state = mirror.get(productId);
    if (state !== undefined) {
      yield state;
    }
  }
}

/** Cuts changes into messages of bounded size; one empty message where there are none. */
function* parts(changes: readonly RecentChange[], mirror: Mirror): Generator<Partial<WatchUpdate>> {
  let part = { stocks: [] as ProductState[], removed: [] as string[], withDetails: new Set<string>() };
  let bytes = 0;
  for (const { productId, details } of changes) {
    const state = mirror.get(productId);
    const size = state === undefined ? Buffer.byteLength(productId) : sizeOf(state, details);
    if (bytes > 0 && bytes + size > MESSAGE_BYTES_MAX) {
      yield part;
      part = { stocks: [], removed: [], withDetails: new Set() };
      bytes = 0;
    }
    bytes += size;
    if (state === undefined) {
      part.removed.push(productId);
    } else {
      part.stocks.push(state);
      if (details) {
        part.withDetails.add(productId);
      }
    }
  }
  yield part;
}

function sizeOf(state: ProductState, details: boolean): number {
  const { productId } = state;
  const texts = details && state.details ? state.details.name.length + state.details.description.length : 0;
  // Up to three bytes of UTF-8 for each UTF-16 unit.
  return PRODUCT_BYTES + 3 * (productId.length + texts);
}

function idsOf(stocks: readonly ProductState[]): ReadonlySet<string> {
  return new Set(stocks.map((stock) => stock.productId));
}
