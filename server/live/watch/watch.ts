import type { Mirror } from "../mirror.ts";
import type { FairItem, Flow } from "./fair-queue.ts";
import type { RecencyList } from "./recency-list.ts";
import type { TimerWheel } from "./timer-wheel.ts";
import type { WatchLimits } from "./watch-limits.ts";
import { type ChangeMessages, WatchMessage, type WatchUpdate, watchUpdate } from "./watch-message.ts";

export interface WatchRequest {
  /** Distinct. Absent: every product. An array, since a set of one ID takes four times its memory. */
  readonly productIds: readonly string[] | undefined;
  readonly minIntervalMs: number;
}

/** Number of messages sent, by kind. */
export interface WatchMessageCounts {
  snapshot: number;
  change: number;
  heartbeat: number;
  /** The last message of a watch, which asks the client to reconnect. */
  reconnect: number;
}

/** Lifetimes vary by this share in both directions, so that watches do not end at the same time. */
const LIFETIME_SPREAD = 0.2;
/** Messages of one watch in one turn. Without it a long snapshot with a fast reader would block the others. */
const MESSAGES_PER_TURN_MAX = 4;
/** The watch is not in the timer wheel. */
const NO_SLOT = -1;

/** The receiver of a watch's messages. No message is built while it is not ready, so a slow reader needs no buffer. */
export interface WatchSink {
  /** Whether it accepts a message now. When this becomes true again, the sink calls `Watch.resume`. */
  readonly isReady: boolean;
  write(update: WatchUpdate): void;
  /** No message follows: the last one was sent, or the watch was closed. */
  end(): void;
}

/** What all watches of a hub share. */
export interface WatchContext {
  readonly mirror: Mirror;
  readonly recency: RecencyList;
  readonly messages: ChangeMessages;
  readonly limits: WatchLimits;
  readonly wheel: TimerWheel<Watch>;
  readonly messageCounts: WatchMessageCounts;
  /** How often a watch had its turn and its reader was not ready. */
  readerWaits: number;
  /** Monotonic, ms. */
  now(): number;
  /** Notifies the watches of all changes up to now. */
  notifyWatches(): void;
  /** Sends what is due when the watch has its turn. */
  schedule(watch: Watch): void;
  onClose(watch: Watch): void;
}

/**
 * One watch: a snapshot, then the newest state of what changed since the last message. It stores a position in the
 * order of changes and no changes, so its memory does not depend on how fast its reader is.
 */
export class Watch implements FairItem<Watch> {
  readonly request: WatchRequest;
  /** The scheduled watches of its connection. */
  readonly flow: Flow<Watch>;
  isQueued = false;
  next: Watch | undefined;
  readonly #context: WatchContext;
  #sink: WatchSink | undefined;
  /** IDs that the snapshot has not sent yet. */
  #snapshotIds: Iterator<string> | undefined;
  /** An ID that did not fit into the last message of the snapshot. */
  #carriedId: string | undefined;
  /** The position in the order of changes up to which messages were sent. */
  #position: number;
  #sentAt = Number.NEGATIVE_INFINITY;
  #endsAt = Number.POSITIVE_INFINITY;
  /** The slot in the timer wheel. Never later than the next message is due, or the watch is to be closed. */
  #slot = NO_SLOT;
  #isStarted = false;
  #wasStale = false;
  #hasChanges = false;
  /** Whether the last message of changes had no room for all of them. */
  #isTruncated = false;
  #isClosed = false;

  constructor(context: WatchContext, request: WatchRequest, flow: Flow<Watch>) {
    this.#context = context;
    this.request = request;
    this.flow = flow;
    this.#position = context.recency.sequence;
  }

  /**
   * Sends the snapshot, its first message in the current turn of the event loop; or, if this server has acknowledged
   * changes that the mirror does not have yet, as soon as it has them (`Mirror.caughtUp`).
   */
  start(sink: WatchSink): void {
    if (this.#isClosed) {
      sink.end();
      return;
    }
    this.#sink = sink;
    const caughtUp = this.#context.mirror.caughtUp(this.request.productIds);
    if (caughtUp === undefined) {
      this.#startSnapshot();
    } else {
      void caughtUp.then(() => this.#startSnapshot());
    }
  }

  #startSnapshot(): void {
    if (this.#isClosed) {
      return;
    }
    const { limits, messages, mirror, recency } = this.#context;
    const now = this.#context.now();
    // The snapshot has all changes up to now. Without this, they would be sent again after it.
    this.#context.notifyWatches();
    this.#hasChanges = false;
    this.#position = recency.sequence;
    const spread = 1 + LIFETIME_SPREAD * (2 * Math.random() - 1);
    // Earlier if the server drains already.
    this.#endsAt = Math.min(this.#endsAt, now + limits.lifetimeMs * spread);
    this.#snapshotIds = (this.request.productIds ?? mirror.visibleIds())[Symbol.iterator]();
    this.#isStarted = true;
    messages.refresh(now);
    this.send(now);
  }

  /** A product of this watch has changed. */
  onChange(): void {
    if (!this.#hasChanges) {
      this.#hasChanges = true;
      this.#context.schedule(this);
    }
  }

  /** The sink is ready again. */
  resume(): void {
    this.#context.schedule(this);
  }

  /** Its slot in the timer wheel is due. */
  onTimer(): void {
    this.#slot = NO_SLOT;
    this.#context.schedule(this);
  }

  /** The next message asks the client to reconnect, and is the last. */
  endWithReconnect(): void {
    this.#endsAt = Math.min(this.#endsAt, this.#context.now());
    this.#context.schedule(this);
  }

  /** Releases everything and ends the sink. */
  close(): void {
    if (this.#isClosed) {
      return;
    }
    this.#isClosed = true;
    this.#snapshotIds = undefined;
    if (this.#slot !== NO_SLOT) {
      this.#context.wheel.delete(this, this.#slot);
      this.#slot = NO_SLOT;
    }
    this.#context.onClose(this);
    this.#sink?.end();
  }

  /** Sends what is due at `now`, as far as the sink accepts it. */
  send(now: number): void {
    const sink = this.#sink;
    if (sink === undefined || !this.#isStarted) {
      return;
    }
    for (let sent = 0; !this.#isClosed; sent += 1) {
      if (!this.#isDue(now)) {
        this.#setTimer(Math.min(this.#endsAt, this.#sentAt + this.#intervalMs()));
        return;
      }
      if (!sink.isReady) {
        this.#context.readerWaits += sent === 0 ? 1 : 0;
        this.#waitForReader(now);
        return;
      }
      if (sent === MESSAGES_PER_TURN_MAX) {
        this.#context.schedule(this);
        return;
      }
      const update = this.#next(now);
      this.#sentAt = now;
      this.#wasStale = update.stale;
      this.#context.messageCounts[kindOf(update)] += 1;
      sink.write(update);
      if (update.reconnectAfterMs !== undefined) {
        this.close();
      }
    }
  }

  /** Without a limit, a client that never reads would keep its watch open forever. */
  #waitForReader(now: number): void {
    const closesAt = this.#endsAt + this.#context.limits.readerGraceMs;
    if (now >= closesAt) {
      this.close();
    } else {
      this.#setTimer(closesAt);
    }
  }

  #isDue(now: number): boolean {
    return (
      this.#isIncomplete ||
      now >= this.#endsAt ||
      now - this.#sentAt >= this.#intervalMs() ||
      this.#isStale !== this.#wasStale
    );
  }

  /** Whether any of its products may be out of date. */
  get #isStale(): boolean {
    return this.#context.messages.isStale(this.request.productIds);
  }

  /** Whether the last message was one of several that belong together. */
  get #isIncomplete(): boolean {
    return this.#snapshotIds !== undefined || this.#isTruncated;
  }

  #next(now: number): WatchUpdate {
    const { limits } = this.#context;
    if (this.#snapshotIds !== undefined) {
      return this.#nextOfSnapshot(this.#snapshotIds);
    }
    if (!this.#isTruncated && now >= this.#endsAt) {
      return watchUpdate(this.#isStale, {
        reconnectAfterMs: Math.ceil(Math.random() * limits.reconnectSpreadMs),
      });
    }
    return this.#changes();
  }

  #nextOfSnapshot(ids: Iterator<string>): WatchUpdate {
    const { mirror } = this.#context;
    const message = new WatchMessage();
    for (;;) {
      const productId = this.#carriedId ?? ids.next().value;
      if (productId === undefined) {
        this.#snapshotIds = undefined;
        return watchUpdate(this.#isStale, { ...message.parts, snapshot: true, lastOfSnapshot: true });
      }
      this.#carriedId = undefined;
      if (!message.add(productId, mirror.get(productId), true)) {
        this.#carriedId = productId;
        return watchUpdate(this.#isStale, { ...message.parts, snapshot: true });
      }
    }
  }

  #changes(): WatchUpdate {
    const { update, position, isComplete } = this.#context.messages.after(
      this.#position,
      this.request.productIds,
    );
    this.#hasChanges = false;
    this.#position = position;
    this.#isTruncated = !isComplete;
    return update;
  }

  /** Time from the last message to the next: the minimum interval if there are changes, else the heartbeat. */
  #intervalMs(): number {
    return this.#hasChanges ? this.request.minIntervalMs : this.#context.limits.heartbeatMs;
  }

  /** Enters the timer wheel no later than `dueAt`. A slot that is too early does no harm. */
  #setTimer(dueAt: number): void {
    const { wheel } = this.#context;
    const slot = wheel.slotOf(dueAt);
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

function kindOf({ snapshot, stocks, removed, reconnectAfterMs }: WatchUpdate): keyof WatchMessageCounts {
  if (reconnectAfterMs !== undefined) {
    return "reconnect";
  }
  return snapshot ? "snapshot" : stocks.length + removed.length > 0 ? "change" : "heartbeat";
}
