import type { Mirror } from "../mirror.ts";
import type { RecencyList } from "./recency-list.ts";
import type { TimerWheel } from "./timer-wheel.ts";
import type { WatchLimits } from "./watch-limits.ts";
import { type ChangeMessages, WatchMessage, type WatchUpdate, watchUpdate } from "./watch-message.ts";

/** What to watch. */
export interface WatchRequest {
  /** Absent: every product. */
  readonly productIds: ReadonlySet<string> | undefined;
  readonly minIntervalMs: number;
}

/** How many messages were told, by kind. */
export interface WatchCounts {
  snapshot: number;
  change: number;
  heartbeat: number;
  goodbye: number;
}

const LIFE_SPREAD = 0.2;
/** Messages for one watcher until the others have their turn: a long snapshot, read fast. */
const MESSAGES_PER_TURN_MAX = 4;
/** Of a watch that nothing is due for. */
const NO_SLOT = -1;

/** Who is told what a watch has to tell. Nothing is made for a reader while it does not read. */
export interface WatchReader {
  /** Whether it takes a message now. When it does so again after it did not, it calls `Watch.resume`. */
  readonly isReady: boolean;
  take(update: WatchUpdate): void;
  /** Nothing more comes: the goodbye has been told, or the watch was closed. */
  end(): void;
}

/** What all watches of a hub share. */
export interface WatchContext {
  readonly mirror: Mirror;
  readonly recency: RecencyList;
  readonly messages: ChangeMessages;
  readonly limits: WatchLimits;
  readonly wheel: TimerWheel<Watch>;
  readonly told: WatchCounts;
  /** How often a watch had its turn and its reader took nothing. */
  readerWaits: number;
  now(): number;
  /** Lets a watch tell what is due: in this turn, … */
  tellNow(watch: Watch): void;
  /** … or when it is this one's turn. */
  queue(watch: Watch): void;
  onClose(watch: Watch): void;
}

/**
 * One watcher's view: a snapshot, then what changed since its last message, newest state only. It remembers
 * its place in the order of changes and no change, so that a watcher costs the same however slowly it reads.
 */
export class Watch {
  readonly request: WatchRequest;
  readonly #ground: WatchContext;
  #reader: WatchReader | undefined;
  /** What the snapshot has still to tell. */
  #untold: Iterator<string> | undefined;
  /** A product that did not fit into the last message of the snapshot. */
  #held: string | undefined;
  /** What of the order of changes its messages have covered. */
  #seen: number;
  #sentAt = Number.NEGATIVE_INFINITY;
  #endsAt = Number.POSITIVE_INFINITY;
  /** Where it is in the wheel; never later than when something is due. */
  #slot = NO_SLOT;
  #wasStale = false;
  #isDirty = false;
  /** Whether the last message of changes was too short for all. */
  #isCut = false;
  #isEnding = false;
  #isClosed = false;

  constructor(ground: WatchContext, request: WatchRequest) {
    this.#ground = ground;
    this.request = request;
    this.#seen = ground.recency.sequence;
  }

  /** Begins to tell, with the snapshot, in the same turn. */
  start(reader: WatchReader): void {
    if (this.#isClosed) {
      reader.end();
      return;
    }
    const { limits, mirror } = this.#ground;
    this.#reader = reader;
    this.#endsAt = this.#ground.now() + limits.lifeMs * (1 + LIFE_SPREAD * (2 * Math.random() - 1));
    this.#untold = (this.request.productIds ?? mirror.visibleIds())[Symbol.iterator]();
    this.#ground.tellNow(this);
  }

  /** A product of this watch has changed. */
  wake(): void {
    if (!this.#isDirty) {
      this.#isDirty = true;
      this.#ground.queue(this);
    }
  }

  /** The reader takes messages again. */
  resume(): void {
    this.#ground.queue(this);
  }

  /** The slot of the wheel has come in which it is. */
  onSlot(): void {
    this.#slot = NO_SLOT;
    this.#ground.queue(this);
  }

  /** The next message is the last. */
  sayGoodbye(): void {
    this.#isEnding = true;
    this.#ground.queue(this);
  }

  /** Frees everything; the reader is told that this is the end. */
  close(): void {
    if (this.#isClosed) {
      return;
    }
    this.#isClosed = true;
    this.#untold = undefined;
    if (this.#slot !== NO_SLOT) {
      this.#ground.wheel.delete(this, this.#slot);
      this.#slot = NO_SLOT;
    }
    this.#ground.onClose(this);
    this.#reader?.end();
  }

  /** Tells the reader what is due now, as far as it takes it. */
  tell(now: number): void {
    const reader = this.#reader;
    for (let told = 0; told < MESSAGES_PER_TURN_MAX; told += 1) {
      if (reader === undefined || this.#isClosed) {
        return;
      }
      if (!reader.isReady) {
        this.#ground.readerWaits += told === 0 ? 1 : 0;
        return;
      }
      const update = this.#next(now);
      if (update === undefined) {
        this.#sleep();
        return;
      }
      this.#sentAt = now;
      this.#wasStale = update.stale;
      this.#ground.told[kindOf(update)] += 1;
      reader.take(update);
      if (update.reconnectAfterMs !== undefined) {
        this.close();
      }
    }
    this.#ground.queue(this);
  }

  #next(now: number): WatchUpdate | undefined {
    const { mirror, limits } = this.#ground;
    if (this.#untold !== undefined) {
      return this.#nextOfSnapshot(this.#untold);
    }
    if (this.#isCut) {
      return this.#changes();
    }
    if (this.#isEnding || now >= this.#endsAt) {
      return watchUpdate(mirror, { reconnectAfterMs: Math.ceil(Math.random() * limits.reconnectMs) });
    }
    const silence = now - this.#sentAt;
    const isDue = silence >= this.#silenceMsMax() || mirror.isStale !== this.#wasStale;
    return isDue ? this.#changes() : undefined;
  }

  #nextOfSnapshot(untold: Iterator<string>): WatchUpdate {
    const { mirror } = this.#ground;
    const message = new WatchMessage();
    for (;;) {
      const productId = this.#held ?? untold.next().value;
      if (productId === undefined) {
        this.#untold = undefined;
        return watchUpdate(mirror, { ...message.parts, snapshot: true, lastOfSnapshot: true });
      }
      this.#held = undefined;
      if (!message.add(productId, mirror.get(productId), true)) {
        this.#held = productId;
        return watchUpdate(mirror, { ...message.parts, snapshot: true });
      }
    }
  }

  #changes(): WatchUpdate {
    const { update, seen, isAll } = this.#ground.messages.after(this.#seen, this.request.productIds);
    this.#isDirty = false;
    this.#seen = seen;
    this.#isCut = !isAll;
    return update;
  }

  /** From the last message to the next: the least interval where there is something to tell, else the heartbeat. */
  #silenceMsMax(): number {
    return this.#isDirty ? this.request.minIntervalMs : this.#ground.limits.heartbeatMs;
  }

  /** Sees to it that the wheel knows this watch before something is due. A slot that is too early does no harm. */
  #sleep(): void {
    const { wheel } = this.#ground;
    const slot = wheel.slotOf(Math.min(this.#endsAt, this.#sentAt + this.#silenceMsMax()));
    if (this.#slot !== NO_SLOT) {
      if (this.#slot <= slot) {
        return;
      }
      wheel.delete(this, this.#slot);
    }
    this.#slot = slot;
    wheel.add(this, slot);
  }
}

function kindOf({ snapshot, stocks, removed, reconnectAfterMs }: WatchUpdate): keyof WatchCounts {
  if (reconnectAfterMs !== undefined) {
    return "goodbye";
  }
  return snapshot ? "snapshot" : stocks.length + removed.length > 0 ? "change" : "heartbeat";
}
