/** An item of a `LinkedQueue`, which sets the field. An item is in one such queue at a time. */
export interface Linked<Item> {
  /** The item behind it. */
  next: Item | undefined;
}

/** A first-in, first-out queue that allocates nothing for an item. */
export class LinkedQueue<Item extends Linked<Item>> {
  #first: Item | undefined;
  #last: Item | undefined;
  #length = 0;

  get first(): Item | undefined {
    return this.#first;
  }

  get length(): number {
    return this.#length;
  }

  push(item: Item): void {
    if (this.#last === undefined) {
      this.#first = item;
    } else {
      this.#last.next = item;
    }
    this.#last = item;
    this.#length += 1;
  }

  shift(): Item | undefined {
    const item = this.#first;
    if (item === undefined) {
      return undefined;
    }
    this.#first = item.next;
    item.next = undefined;
    if (this.#first === undefined) {
      this.#last = undefined;
    }
    this.#length -= 1;
    return item;
  }
}
