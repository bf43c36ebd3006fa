import { InventoryError } from "../inventory/errors.ts";
import type { Mirror } from "./mirror.ts";
import { Recency } from "./recency.ts";
import { Watch } from "./watch.ts";

/** Everything that watchers could take too much of. */
export interface WatchLimits {
  /** Watches of this server. 10,000: at some 50 KB each, half a gigabyte. */
  readonly watchesMax: number;
  /** Watches of one connection. 100: an edge carries many shoppers on one, and has several. */
  readonly watchesPerConnectionMax: number;
  /** Watches of one client address. 1,000: a mobile network has many shoppers behind one. */
  readonly watchesPerAddressMax: number;
  /** Milliseconds after the last message until a heartbeat. 10,000: proxies cut silent streams from 30 s on. */
  readonly heartbeatMs: number;
  /** Milliseconds that a watch lives, ± 20%: so that watchers spread over the servers again. 600,000. */
  readonly lifeMs: number;
  /** Milliseconds over which watchers are asked to come back at the end of their life or of the server. 2,000. */
  readonly reconnectMs: number;
}

export const WATCH_LIMITS_DEFAULT: WatchLimits = Object.freeze({
  watchesMax: 10_000,
  watchesPerConnectionMax: 100,
  watchesPerAddressMax: 1_000,
  heartbeatMs: 10_000,
  lifeMs: 600_000,
  reconnectMs: 2_000,
});

/** Who watches, as far as limits go. */
export interface Watcher {
  readonly address: string;
  /** The same object for all calls of one connection. */
  readonly connection: object;
}

/** What to watch. */
export interface WatchRequest {
  /** Absent: every product. */
  readonly productIds: ReadonlySet<string> | undefined;
  readonly minIntervalMs: number;
}

/**
 * Tells watchers what changed. It keeps the order of latest changes for all, and wakes those whom a
 * change concerns; each watch then reads the newest states by itself.
 */
export class Hub {
  readonly #mirror: Mirror;
  readonly #limits: WatchLimits;
  readonly #recency = new Recency();
  readonly #watches = new Set<Watch>();
  readonly #watchesOfAll = new Set<Watch>();
  readonly #watchesByProduct = new Map<string, Set<Watch>>();
  readonly #byConnection = new Counts<object>();
  readonly #byAddress = new Counts<string>();
  #draining = false;

  constructor(mirror: Mirror, limits: Partial<WatchLimits> = {}) {
    this.#mirror = mirror;
    this.#limits = { ...WATCH_LIMITS_DEFAULT, ...limits };
    mirror.on("change", (changes) => {
      for (const { before, after } of changes) {
        const details =
          before === undefined || before.deleted !== after.deleted || before.details !== after.details;
        this.#recency.touch(after.productId, details);
      }
      for (const { after } of changes) {
        for (const watch of this.#watchesByProduct.get(after.productId) ?? []) {
          watch.wake();
        }
      }
      for (const watch of this.#watchesOfAll) {
        watch.wake();
      }
    });
    mirror.on("stale", () => {
      for (const watch of this.#watches) {
        watch.wakeAtOnce();
      }
    });
  }

  /** How many watches are open. */
  get size(): number {
    return this.#watches.size;
  }

  /** Opens a watch; close it when its reader is gone. `OVERLOADED` beyond a limit or while the server drains. */
  open(request: WatchRequest, watcher: Watcher): Watch {
    const { watchesMax, watchesPerConnectionMax, watchesPerAddressMax } = this.#limits;
    if (this.#draining) {
      throw new InventoryError("STORE_UNAVAILABLE", "The server is shutting down; connect again");
    }
    refuseAt(this.#watches.size, watchesMax, "on this server");
    refuseAt(this.#byConnection.of(watcher.connection), watchesPerConnectionMax, "on one connection");
    refuseAt(this.#byAddress.of(watcher.address), watchesPerAddressMax, "from one address");
    const watch = new Watch({
      mirror: this.#mirror,
      recency: this.#recency,
      request,
      limits: this.#limits,
      onClose: () => this.#forget(watch, request, watcher),
    });
    this.#watches.add(watch);
    this.#byConnection.add(watcher.connection, 1);
    this.#byAddress.add(watcher.address, 1);
    if (request.productIds === undefined) {
      this.#watchesOfAll.add(watch);
    }
    for (const productId of request.productIds ?? []) {
      const watches = this.#watchesByProduct.get(productId) ?? new Set();
      this.#watchesByProduct.set(productId, watches.add(watch));
    }
    return watch;
  }

  /** Says goodbye to every watcher, and takes no more. */
  drain(): void {
    this.#draining = true;
    for (const watch of this.#watches) {
      watch.sayGoodbye();
    }
  }

  #forget(watch: Watch, request: WatchRequest, watcher: Watcher): void {
    this.#watches.delete(watch);
    this.#watchesOfAll.delete(watch);
    this.#byConnection.add(watcher.connection, -1);
    this.#byAddress.add(watcher.address, -1);
    for (const productId of request.productIds ?? []) {
      const watches = this.#watchesByProduct.get(productId);
      watches?.delete(watch);
      if (watches?.size === 0) {
        this.#watchesByProduct.delete(productId);
      }
    }
  }
}

function refuseAt(open: number, most: number, where: string): void {
  if (open >= most) {
    throw new InventoryError(
      "OVERLOADED",
      `${open} watches are open ${where}, and the most is ${most}; try again later`,
    );
  }
}

/** Counts by key; a key with nothing to count is not kept. */
class Counts<Key> {
  readonly #counts = new Map<Key, number>();

  of(key: Key): number {
    return this.#counts.get(key) ?? 0;
  }

  add(key: Key, difference: number): void {
    const count = this.of(key) + difference;
    if (count === 0) {
      this.#counts.delete(key);
    } else {
      this.#counts.set(key, count);
    }
  }
}
