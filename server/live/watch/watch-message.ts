import type { ProductState } from "../../inventory/feed.ts";
import type { Mirror } from "../mirror.ts";
import type { Staleness } from "../staleness.ts";
import type { RecencyList, RecentChange } from "./recency-list.ts";

/** Approximate size of one message. With Node's own buffers, a reader that stops reading holds less than 32 KB. */
const MESSAGE_BYTES_MAX = 12 * 1024;
/** Upper bound of a product's bytes in a message, without its texts. */
const PRODUCT_BYTES = 64;
/** Upper bound of the UTF-8 bytes of one UTF-16 unit. */
const BYTES_PER_UNIT_MAX = 3;
/** Changes considered for one message. More do not fit. */
const CHANGES_PER_MESSAGE_MAX = 256;

/** How long watches share a message of changes, ms. Its `serverTime` is late by no more than this. */
const SHARED_MS_MAX = 50;

/** One message of a watch. Without stocks and removals it is a heartbeat. Watches may share it. */
export interface WatchUpdate {
  readonly stocks: readonly ProductState[];
  /** IDs of products that were deleted or do not exist. */
  readonly removed: readonly string[];
  /** IDs of those stocks whose details are new to the client. */
  readonly withDetails: ReadonlySet<string>;
  readonly snapshot: boolean;
  readonly lastOfSnapshot: boolean;
  readonly stale: boolean;
  /** Set on the last message: the delay before the client reconnects, ms. */
  readonly reconnectAfterMs: number | undefined;
}

const NO_IDS: ReadonlySet<string> = new Set();

export function watchUpdate(stale: boolean, parts: Partial<WatchUpdate>): WatchUpdate {
  return {
    stocks: [],
    removed: [],
    withDetails: NO_IDS,
    snapshot: false,
    lastOfSnapshot: false,
    stale,
    reconnectAfterMs: undefined,
    ...parts,
  };
}

/** Collects the products of one message, as many as fit. */
export class WatchMessage {
  readonly #stocks: ProductState[] = [];
  readonly #removed: string[] = [];
  #withDetails: Set<string> | undefined;
  #bytes = 0;

  get parts() {
    return { stocks: this.#stocks, removed: this.#removed, withDetails: this.#withDetails ?? NO_IDS };
  }

  /**
   * Adds a product; without a state it is a removal. Returns false if the message has no room for it. The first
   * product always fits.
   */
  add(productId: string, state: ProductState | undefined, details: boolean): boolean {
    const bytes = sizeOf(productId, state, details);
    if (this.#bytes > 0 && this.#bytes + bytes > MESSAGE_BYTES_MAX) {
      return false;
    }
    this.#bytes += bytes;
    if (state === undefined) {
      this.#removed.push(productId);
    } else {
      this.#stocks.push(state);
      if (details) {
        this.#withDetails ??= new Set();
        this.#withDetails.add(productId);
      }
    }
    return true;
  }
}

/** The message of what changed after a position. */
interface ChangeMessage {
  readonly update: WatchUpdate;
  /** The position after this message. */
  readonly position: number;
  /** Whether it has every change up to now. */
  readonly isComplete: boolean;
}

/** Messages with a single product or none, which many watches share. */
class SmallMessages {
  /** By product ID. */
  readonly ofOneProduct = new Map<string, ChangeMessage>();
  readonly ofOneProductWithDetails = new Map<string, ChangeMessage>();
  heartbeat: ChangeMessage | undefined;

  clear(): void {
    this.ofOneProduct.clear();
    this.ofOneProductWithDetails.clear();
    this.heartbeat = undefined;
  }
}

/**
 * Messages of changes. Watches that need the same message get the same object, so that it is built and encoded once,
 * also if it takes several turns to serve them all.
 */
export class ChangeMessages {
  readonly #mirror: Mirror;
  readonly #recency: RecencyList;
  /** For watches of every product, by their position. */
  readonly #ofAllProducts = new Map<number, ChangeMessage>();
  /** With a single product or none, for watches whose products are all current, and for those with stale ones. */
  readonly #ofCurrent = new SmallMessages();
  readonly #ofStale = new SmallMessages();
  /** The messages are valid for this position in the order of changes and this staleness. */
  #sequence = 0;
  #staleness: Staleness;
  /** No message was built before, ms. */
  #validFrom = Number.NEGATIVE_INFINITY;

  constructor(mirror: Mirror, recency: RecencyList) {
    this.#mirror = mirror;
    this.#recency = recency;
    this.#staleness = mirror.staleness();
  }

  /**
   * What changed after a position; a heartbeat if nothing did. Changes that do not fit are looked up again for the
   * next message, so that nothing is buffered for a slow reader.
   */
  after(position: number, productIds: Iterable<string> | undefined): ChangeMessage {
    if (productIds !== undefined) {
      return this.#among(position, productIds);
    }
    let message = this.#ofAllProducts.get(position);
    if (message === undefined) {
      const changes = this.#recency.after(position, CHANGES_PER_MESSAGE_MAX);
      message = this.#build(position, changes, this.#staleness.isAny);
      this.#ofAllProducts.set(position, message);
    }
    return message;
  }

  /** Whether any of the products of a watch may be out of date. It does not change within a turn. */
  isStale(productIds: Iterable<string> | undefined): boolean {
    return this.#staleness.isAmong(productIds);
  }

  /** Call at the start of a turn. Drops the messages if anything changed since they were built, or if they are too old. */
  refresh(now: number): void {
    const { sequence } = this.#recency;
    const staleness = this.#mirror.staleness();
    const isSame = sequence === this.#sequence && staleness === this.#staleness;
    if (isSame && now - this.#validFrom < SHARED_MS_MAX) {
      return;
    }
    this.#sequence = sequence;
    this.#staleness = staleness;
    this.#validFrom = now;
    this.#ofAllProducts.clear();
    this.#ofCurrent.clear();
    this.#ofStale.clear();
  }

  #among(position: number, productIds: Iterable<string>): ChangeMessage {
    const changes = this.#recency.afterAmong(position, productIds);
    const isStale = this.#staleness.isAmong(productIds);
    const small = isStale ? this.#ofStale : this.#ofCurrent;
    const [first] = changes;
    if (first === undefined) {
      small.heartbeat ??= this.#build(position, changes, isStale);
      return small.heartbeat;
    }
    if (changes.length > 1) {
      return this.#build(position, changes, isStale);
    }
    const shared = first.details ? small.ofOneProductWithDetails : small.ofOneProduct;
    let message = shared.get(first.productId);
    if (message === undefined) {
      message = this.#build(position, changes, isStale);
      shared.set(first.productId, message);
    }
    return message;
  }

  #build(position: number, changes: readonly RecentChange[], isStale: boolean): ChangeMessage {
    const message = new WatchMessage();
    let added = 0;
    let reached = position;
    for (const { productId, sequence, details } of changes) {
      if (!message.add(productId, this.#mirror.get(productId), details)) {
        break;
      }
      reached = sequence;
      added += 1;
    }
    const isComplete = added === changes.length && changes.length < CHANGES_PER_MESSAGE_MAX;
    return {
      update: watchUpdate(isStale, message.parts),
      position: isComplete ? this.#recency.sequence : reached,
      isComplete,
    };
  }
}

function sizeOf(productId: string, state: ProductState | undefined, details: boolean): number {
  const texts =
    details && state?.details
      ? state.details.name.length + state.details.description.length + state.details.collectionId.length
      : 0;
  return PRODUCT_BYTES + BYTES_PER_UNIT_MAX * (productId.length + texts);
}
