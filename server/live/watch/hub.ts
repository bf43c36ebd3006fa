import { InventoryError } from "../../inventory/errors.ts";
import type { Mirror } from "../mirror.ts";
import { RecencyList } from "./recency-list.ts";
import { TimerWheel } from "./timer-wheel.ts";
import { Watch, type WatchContext, type WatchCounts, type WatchRequest } from "./watch.ts";
import { WATCH_LIMITS_DEFAULT, type WatchLimits } from "./watch-limits.ts";
import { ChangeMessages } from "./watch-message.ts";

/** Milliseconds of telling watchers until other work has its turn: calls of Orders wait no longer than this. */
const SLICE_MS = 4;
/** Watchers who are told until the clock is looked at. */
const WATCHES_PER_LOOK = 16;

/** Who watches, as far as limits go. */
export interface Watcher {
  readonly address: string;
  /** The same object for all calls of one connection. */
  readonly connection: object;
}

/**
 * Tells watchers what changed. It keeps the order of latest changes for all, and lets those whom a
 * change concerns tell it, some in each turn of the event loop; changes of one turn are told together.
 */
export class Hub {
  readonly told: Readonly<WatchCounts>;
  readonly #limits: WatchLimits;
  readonly #ground: WatchContext;
  readonly #watches = new Map<Watch, Watcher>();
  readonly #watchesOfAll = new Set<Watch>();
  readonly #watchesByProduct = new Map<string, Set<Watch>>();
  readonly #byConnection = new Counts<object>();
  readonly #byAddress = new Counts<string>();
  /** Products whose watches do not know of their change yet. */
  readonly #changed = new Set<string>();
  /** Watches that may have something to tell, in the order of their turns. */
  readonly #due = new Set<Watch>();
  #isAwaitingTurn = false;
  #draining = false;

  /** `now` is in milliseconds and never goes back. */
  constructor(mirror: Mirror, limits: Partial<WatchLimits> = {}, now = () => performance.now()) {
    this.#limits = { ...WATCH_LIMITS_DEFAULT, ...limits };
    const recency = new RecencyList();
    const told = { snapshot: 0, change: 0, heartbeat: 0, goodbye: 0 };
    this.told = told;
    this.#ground = {
      told,
      readerWaits: 0,
      mirror,
      recency,
      now,
      limits: this.#limits,
      messages: new ChangeMessages(mirror, recency),
      wheel: new TimerWheel<Watch>(now, (watch) => watch.onSlot()),
      tellNow: (watch) => this.#tell(watch),
      queue: (watch) => this.#queue(watch),
      onClose: (watch) => this.#forget(watch),
    };
    mirror.on("change", (changes) => {
      if (!mirror.isLoaded) {
        // Nobody watches yet; the order of a whole catalog's arrival is memory for nothing.
        return;
      }
      for (const { before, after } of changes) {
        const details =
          before === undefined || before.deleted !== after.deleted || before.details !== after.details;
        recency.touch(after.productId, details);
        this.#changed.add(after.productId);
      }
      this.#awaitTurn();
    });
    mirror.on("stale", () => {
      for (const watch of this.#watches.keys()) {
        this.#queue(watch);
      }
    });
  }

  /** How many watches are open. */
  get size(): number {
    return this.#watches.size;
  }

  /** How many may be. */
  get watchesMax(): number {
    return this.#limits.watchesMax;
  }

  /** How often a watch had its turn and its reader took nothing. */
  get readerWaits(): number {
    return this.#ground.readerWaits;
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
    // What changed before is not news for it.
    this.#wakeWatches();
    const watch = new Watch(this.#ground, request);
    this.#watches.set(watch, watcher);
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
    for (const watch of this.#watches.keys()) {
      watch.sayGoodbye();
    }
  }

  #queue(watch: Watch): void {
    this.#due.add(watch);
    this.#awaitTurn();
  }

  #awaitTurn(): void {
    if (!this.#isAwaitingTurn) {
      this.#isAwaitingTurn = true;
      setImmediate(() => this.#takeTurn());
    }
  }

  #takeTurn(): void {
    this.#isAwaitingTurn = false;
    this.#wakeWatches();
    const beganAt = performance.now();
    const now = this.#ground.now();
    let told = 0;
    for (const watch of this.#due) {
      this.#due.delete(watch);
      watch.tell(now);
      told += 1;
      if (told % WATCHES_PER_LOOK === 0 && performance.now() - beganAt > SLICE_MS) {
        break;
      }
    }
    this.#ground.messages.forget();
    if (this.#due.size > 0) {
      this.#awaitTurn();
    }
  }

  #tell(watch: Watch): void {
    watch.tell(this.#ground.now());
    this.#ground.messages.forget();
  }

  #wakeWatches(): void {
    if (this.#changed.size === 0) {
      return;
    }
    for (const productId of this.#changed) {
      for (const watch of this.#watchesByProduct.get(productId) ?? []) {
        watch.wake();
      }
    }
    for (const watch of this.#watchesOfAll) {
      watch.wake();
    }
    this.#changed.clear();
  }

  #forget(watch: Watch): void {
    const watcher = this.#watches.get(watch);
    if (watcher === undefined) {
      return;
    }
    this.#watches.delete(watch);
    this.#watchesOfAll.delete(watch);
    this.#due.delete(watch);
    this.#byConnection.add(watcher.connection, -1);
    this.#byAddress.add(watcher.address, -1);
    for (const productId of watch.request.productIds ?? []) {
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
