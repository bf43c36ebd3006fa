import type { ProductState } from "../../inventory/feed.ts";
import type { Mirror } from "../mirror.ts";
import type { RecencyList } from "./recency-list.ts";

/** About how many bytes one message may have: with what node buffers, a reader that stops holds less than 32 KB. */
const MESSAGE_BYTES_MAX = 12 * 1024;
/** What a product costs in a message besides its texts, at most. */
const PRODUCT_BYTES = 64;
/** Bytes of UTF-8 for each UTF-16 unit, at most. */
const BYTES_PER_UNIT_MAX = 3;
/** Changes looked at for one message; more do not fit into one. */
const CHANGES_PER_MESSAGE_MAX = 256;

/** One message of a watch. One without stocks and removals is a heartbeat. Watchers may share it. */
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

const NOTHING: ReadonlySet<string> = new Set();

export function watchUpdate(mirror: Mirror, parts: Partial<WatchUpdate>): WatchUpdate {
  return {
    stocks: [],
    removed: [],
    withDetails: NOTHING,
    snapshot: false,
    lastOfSnapshot: false,
    stale: mirror.isStale,
    reconnectAfterMs: undefined,
    ...parts,
  };
}

/** The products of one message of a watch, as many as fit. */
export class WatchMessage {
  readonly #stocks: ProductState[] = [];
  readonly #removed: string[] = [];
  #withDetails: Set<string> | undefined;
  #bytes = 0;

  get parts() {
    return { stocks: this.#stocks, removed: this.#removed, withDetails: this.#withDetails ?? NOTHING };
  }

  /** Adds a product, one that is gone where there is no state. False where it does not fit; the first one always does. */
  add(productId: string, state: ProductState | undefined, details: boolean): boolean {
    const bytes = bytesOf(productId, state, details);
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

/** What is told to a watcher of what changed after its place. */
interface ChangeMessage {
  readonly update: WatchUpdate;
  /** The watcher's place when it has been told. */
  readonly seen: number;
  /** Whether that is everything. */
  readonly isAll: boolean;
}

/**
 * Messages of what changed. Watchers who need the same one at the same moment get the same object, so that
 * it is made once and encoded once. `forget` ends the moment: nothing made before is told after it.
 */
export class ChangeMessages {
  readonly #mirror: Mirror;
  readonly #recency: RecencyList;
  /** By the place of watchers of every product. */
  readonly #ofAll = new Map<number, ChangeMessage>();
  /** Of one product alone, by its ID. */
  readonly #ofOne = new Map<string, ChangeMessage>();
  readonly #ofOneWithDetails = new Map<string, ChangeMessage>();
  #ofNone: ChangeMessage | undefined;

  constructor(mirror: Mirror, recency: RecencyList) {
    this.#mirror = mirror;
    this.#recency = recency;
  }

  /**
   * What changed after a place, a heartbeat where nothing did. What does not fit into one message is looked up
   * anew for the next, so that nothing is held for a reader while it does not read.
   */
  after(seen: number, productIds: ReadonlySet<string> | undefined): ChangeMessage {
    if (productIds !== undefined) {
      return this.#ofSome(seen, productIds);
    }
    let made = this.#ofAll.get(seen);
    if (made === undefined) {
      made = this.#make(seen, this.#recency.after(seen, CHANGES_PER_MESSAGE_MAX));
      this.#ofAll.set(seen, made);
    }
    return made;
  }

  forget(): void {
    this.#ofAll.clear();
    this.#ofOne.clear();
    this.#ofOneWithDetails.clear();
    this.#ofNone = undefined;
  }

  #ofSome(seen: number, productIds: ReadonlySet<string>): ChangeMessage {
    const changes = this.#recency.afterOf(seen, productIds);
    const [first] = changes;
    if (first === undefined) {
      this.#ofNone ??= this.#make(seen, changes);
      return this.#ofNone;
    }
    if (changes.length > 1) {
      return this.#make(seen, changes);
    }
    const shared = first.details ? this.#ofOneWithDetails : this.#ofOne;
    let made = shared.get(first.productId);
    if (made === undefined) {
      made = this.#make(seen, changes);
      shared.set(first.productId, made);
    }
    return made;
  }

  #make(seen: number, changes: ReturnType<RecencyList["after"]>): ChangeMessage {
    const message = new WatchMessage();
    let added = 0;
    let place = seen;
    for (const { productId, sequence, details } of changes) {
      if (!message.add(productId, this.#mirror.get(productId), details)) {
        break;
      }
      place = sequence;
      added += 1;
    }
    const isAll = added === changes.length && changes.length < CHANGES_PER_MESSAGE_MAX;
    return {
      update: watchUpdate(this.#mirror, message.parts),
      seen: isAll ? this.#recency.sequence : place,
      isAll,
    };
  }
}

function bytesOf(productId: string, state: ProductState | undefined, details: boolean): number {
  const texts =
    details && state?.details
      ? state.details.name.length + state.details.description.length + state.details.collectionId.length
      : 0;
  return PRODUCT_BYTES + BYTES_PER_UNIT_MAX * (productId.length + texts);
}
