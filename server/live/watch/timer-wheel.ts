/** Milliseconds of a slot. What is due is told up to this much later: nobody sees 10 ms, and it spares timers. */
const SLOT_MS = 10;

/**
 * Things that are due at some time, with one timer for all of them: ten thousand watchers would
 * otherwise have as many. Within a slot they come in the order in which they were added.
 */
export class TimerWheel<Item> {
  readonly #onDue: (item: Item) => void;
  readonly #now: () => number;
  readonly #slots = new Map<number, Set<Item>>();
  #timer: NodeJS.Timeout | undefined;
  #timerSlot = Number.POSITIVE_INFINITY;

  constructor(now: () => number, onDue: (item: Item) => void) {
    this.#now = now;
    this.#onDue = onDue;
  }

  /** The slot of a time in ms, which never comes before it. */
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
      this.#arm(slot);
    }
  }

  delete(item: Item, slot: number): void {
    const items = this.#slots.get(slot);
    items?.delete(item);
    if (items?.size === 0) {
      this.#slots.delete(slot);
    }
    if (this.#slots.size === 0) {
      this.#disarm();
    }
  }

  #turn(): void {
    this.#disarm();
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
      this.#arm(next);
    }
  }

  #arm(slot: number): void {
    clearTimeout(this.#timer);
    this.#timerSlot = slot;
    this.#timer = setTimeout(() => this.#turn(), Math.max(1, slot * SLOT_MS - this.#now()));
  }

  #disarm(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#timerSlot = Number.POSITIVE_INFINITY;
  }
}
