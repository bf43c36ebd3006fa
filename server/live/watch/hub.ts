import { InventoryError } from "../../inventory/errors.ts";
import type { Mirror } from "../mirror.ts";
import { FairQueue, Flow } from "./fair-queue.ts";
import { RecencyList } from "./recency-list.ts";
import { TimerWheel } from "./timer-wheel.ts";
import { Watch, type WatchContext, type WatchMessageCounts, type WatchRequest } from "./watch.ts";
import { WATCH_LIMITS_DEFAULT, type WatchLimits } from "./watch-limits.ts";
import { ChangeMessages } from "./watch-message.ts";

/** Watches served between two reads of the clock. */
const WATCHES_PER_CLOCK_READ = 16;

/** The client of a watch, as the limits identify it. */
export interface WatchClient {
  readonly address: string;
  /** The same object for all calls of one connection. */
  readonly connection: object;
}

/**
 * Sends changes to watches. It keeps one order of changes for all of them. A change schedules the watches of its
 * product; each turn of the event loop serves some of them, and changes of one turn share a message.
 */
export class Hub {
  readonly messageCounts: Readonly<WatchMessageCounts>;
  readonly #limits: WatchLimits;
  readonly #context: WatchContext;
  readonly #watches = new Map<Watch, WatchClient>();
  readonly #watchesOfAll = new Set<Watch>();
  readonly #watchesByProduct = new Map<string, Set<Watch>>();
  readonly #connections = new Map<object, WatchedConnection>();
  readonly #byAddress = new Counters<string>();
  /** Products that changed since their watches were last scheduled. */
  readonly #changed = new Set<string>();
  /** Watches that may have a message due. A flow is a connection. */
  readonly #scheduled = new FairQueue<Watch>();
  #isTurnScheduled = false;
  #draining = false;

  /** `now` is monotonic, in milliseconds. */
  constructor(mirror: Mirror, limits: Partial<WatchLimits> = {}, now = () => performance.now()) {
    this.#limits = { ...WATCH_LIMITS_DEFAULT, ...limits };
    const recency = new RecencyList();
    const messageCounts = { snapshot: 0, change: 0, heartbeat: 0, reconnect: 0 };
    this.messageCounts = messageCounts;
    this.#context = {
      messageCounts,
      readerWaits: 0,
      mirror,
      recency,
      now,
      limits: this.#limits,
      messages: new ChangeMessages(mirror, recency),
      wheel: new TimerWheel<Watch>(now, (watch) => watch.onTimer()),
      notifyWatches: () => this.#notifyWatches(),
      schedule: (watch) => this.#schedule(watch),
      onClose: (watch) => this.#remove(watch),
    };
    mirror.on("change", (changes) => {
      if (!mirror.isLoaded) {
        // There are no watches yet, so the order in which the catalog is loaded is not needed.
        return;
      }
      for (const { before, after } of changes) {
        const details =
          before === undefined || before.deleted !== after.deleted || before.details !== after.details;
        recency.touch(after.productId, details);
        this.#changed.add(after.productId);
      }
      this.#scheduleTurnAfterResponses();
    });
    mirror.on("stale", () => {
      for (const watch of this.#watches.keys()) {
        this.#schedule(watch);
      }
    });
  }

  /** Number of open watches. */
  get size(): number {
    return this.#watches.size;
  }

  /** Maximum number of open watches. */
  get watchesMax(): number {
    return this.#limits.watchesMax;
  }

  /** How often a watch had its turn and its reader was not ready. */
  get readerWaits(): number {
    return this.#context.readerWaits;
  }

  /** Opens a watch; the caller closes it. `OVERLOADED` beyond a limit, `STORE_UNAVAILABLE` while the server drains. */
  open(request: WatchRequest, client: WatchClient): Watch {
    const { watchesMax, watchesPerConnectionMax, watchesPerAddressMax } = this.#limits;
    if (this.#draining) {
      throw new InventoryError("STORE_UNAVAILABLE", "The server is shutting down; connect again");
    }
    checkLimit(this.#watches.size, watchesMax, "on this server");
    const connection = this.#connections.get(client.connection) ?? { watches: 0, flow: new Flow<Watch>() };
    checkLimit(connection.watches, watchesPerConnectionMax, "on one connection");
    checkLimit(this.#byAddress.get(client.address), watchesPerAddressMax, "from one address");
    // Changes before now are part of its snapshot.
    this.#notifyWatches();
    const watch = new Watch(this.#context, request, connection.flow);
    this.#watches.set(watch, client);
    connection.watches += 1;
    this.#connections.set(client.connection, connection);
    this.#byAddress.add(client.address, 1);
    if (request.productIds === undefined) {
      this.#watchesOfAll.add(watch);
    }
    for (const productId of request.productIds ?? []) {
      const watches = this.#watchesByProduct.get(productId) ?? new Set();
      this.#watchesByProduct.set(productId, watches.add(watch));
    }
    return watch;
  }

  /** Ends every watch with a request to reconnect, and refuses new ones. */
  drain(): void {
    this.#draining = true;
    for (const watch of this.#watches.keys()) {
      watch.endWithReconnect();
    }
  }

  #schedule(watch: Watch): void {
    this.#scheduled.push(watch);
    this.#scheduleTurn();
  }

  #scheduleTurn(): void {
    if (!this.#isTurnScheduled) {
      this.#isTurnScheduled = true;
      setImmediate(() => this.#runTurn());
    }
  }

  /**
   * For a change, an iteration of the event loop later: Node writes the trailers of a gRPC response an iteration after its message.
   * Without this, the response to the call that made the change would wait for the first turn.
   */
  #scheduleTurnAfterResponses(): void {
    if (!this.#isTurnScheduled) {
      this.#isTurnScheduled = true;
      setImmediate(() => setImmediate(() => this.#runTurn()));
    }
  }

  #runTurn(): void {
    this.#isTurnScheduled = false;
    this.#notifyWatches();
    const { turnMsMax } = this.#limits;
    const startedAt = performance.now();
    const now = this.#context.now();
    this.#context.messages.refresh(now);
    let served = 0;
    for (let watch = this.#scheduled.shift(); watch !== undefined; watch = this.#scheduled.shift()) {
      watch.send(now);
      served += 1;
      if (served % WATCHES_PER_CLOCK_READ === 0 && performance.now() - startedAt >= turnMsMax) {
        break;
      }
    }
    if (!this.#scheduled.isEmpty) {
      this.#scheduleTurn();
    }
  }

  #notifyWatches(): void {
    if (this.#changed.size === 0) {
      return;
    }
    for (const productId of this.#changed) {
      for (const watch of this.#watchesByProduct.get(productId) ?? []) {
        watch.onChange();
      }
    }
    for (const watch of this.#watchesOfAll) {
      watch.onChange();
    }
    this.#changed.clear();
  }

  #remove(watch: Watch): void {
    const client = this.#watches.get(watch);
    if (client === undefined) {
      return;
    }
    this.#watches.delete(watch);
    this.#watchesOfAll.delete(watch);
    const connection = this.#connections.get(client.connection);
    if (connection !== undefined) {
      connection.watches -= 1;
      if (connection.watches === 0) {
        this.#connections.delete(client.connection);
      }
    }
    this.#byAddress.add(client.address, -1);
    for (const productId of watch.request.productIds ?? []) {
      const watches = this.#watchesByProduct.get(productId);
      watches?.delete(watch);
      if (watches?.size === 0) {
        this.#watchesByProduct.delete(productId);
      }
    }
  }
}

/** A connection that has open watches. */
interface WatchedConnection {
  watches: number;
  readonly flow: Flow<Watch>;
}

function checkLimit(open: number, max: number, where: string): void {
  if (open >= max) {
    throw new InventoryError(
      "OVERLOADED",
      `${open} watches are open ${where}; the maximum is ${max}. Try again later`,
    );
  }
}

/** Counters by key. Keys whose count is 0 are not stored. */
class Counters<Key> {
  readonly #counts = new Map<Key, number>();

  get(key: Key): number {
    return this.#counts.get(key) ?? 0;
  }

  add(key: Key, difference: number): void {
    const count = this.get(key) + difference;
    if (count === 0) {
      this.#counts.delete(key);
    } else {
      this.#counts.set(key, count);
    }
  }
}
