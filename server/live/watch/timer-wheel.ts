/** Length of a slot, ms. Items are due up to this much late, which saves timers. */
const SLOT_MS = 10;

/**
 * Items that are due at some time, with one timer for all of them instead of one per watch. Within a slot, items are
 * due in the order in which they were added.
 */
export class TimerWheel<Item> {
  readonly #onDue: (item: Item) => void;
  readonly #now: () => number;
  readonly #slots = new Map<number, Set<Item>>();
  #timer: NodeJS.Timeout | undefined;
  #timerSlot = Number.POSITIVE_INFINITY;

  /** `now` is monotonic, in milliseconds. */
  constructor(now: () => number, onDue: (item: Item) => void) {
    this.#now = now;
    this.#onDue = onDue;
  }

  /** The slot of a time in milliseconds. It is never due before that time. */
  slotOf(timeMs: number): number {
    return Math.ceil(timeMs / SLOT_MS);
  }

  add(item: Item, slot: number): void {
    const items = this.#slots.get(slot);
    if (items === undefined) {
      this.#slots.set(slot, new Set([item]));
    } else {
      items.add(item);
    }
    if (slot < this.#timerSlot) {
      this.#setTimer(slot);
    }
  }

  delete(item: Item, slot: number): void {
    const items = this.#slots.get(slot);
    items?.delete(item);
    if (items?.size === 0) {
      this.#slots.delete(slot);
    }
    if (this.#slots.size === 0) {
      this.#clearTimer();
    }
  }

  #advance(): void {
    this.#clearTimer();
    const current = Math.floor(this.#now() / SLOT_MS);
    for (const [slot, items] of this.#slots) {
      if (slot <= current) {
        this.#slots.delete(slot);
        for (const item of items) {
          this.#onDue(item);
        }
      }
    }
    let next = Number.POSITIVE_INFINITY;
    for (const slot of this.#slots.keys()) {
      next = Math.min(next, slot);
    }
    if (next < this.#timerSlot) {
      this.#setTimer(next);
    }
  }

  #setTimer(slot: number): void {
    clearTimeout(this.#timer);
    this.#timerSlot = slot;
    this.#timer = setTimeout(() => this.#advance(), Math.max(1, slot * SLOT_MS - this.#now()));
  }

  #clearTimer(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#timerSlot = Number.POSITIVE_INFINITY;
  }
}
