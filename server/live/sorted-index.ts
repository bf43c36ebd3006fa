/** Most items of one block; it is split in two beyond. Around the square root of a million keeps both steps short. */
const BLOCK_MAX = 1_024;

/**
 * Items in order, for catalogs of up to millions: blocks of bounded size, so that an insertion moves
 * a block's items and not all. The order must be total and must not change while an item is in the
 * index.
 */
export class SortedIndex<Item> {
  readonly #compare: (a: Item, b: Item) => number;
  #blocks: Item[][] = [];
  #size = 0;

  constructor(compare: (a: Item, b: Item) => number) {
    this.#compare = compare;
  }

  get size(): number {
    return this.#size;
  }

  insert(item: Item): void {
    const at = this.#blockFor(item);
    const block = this.#blocks[at];
    if (block === undefined) {
      this.#blocks.push([item]);
    } else {
      block.splice(this.#placeIn(block, item), 0, item);
      if (block.length > BLOCK_MAX) {
        this.#blocks.splice(at + 1, 0, block.splice(BLOCK_MAX / 2));
      }
    }
    this.#size += 1;
  }

  /** Removes the item itself. False where it is not in the index. */
  delete(item: Item): boolean {
    const at = this.#blockFor(item);
    const block = this.#blocks[at];
    const place = block === undefined ? -1 : this.#placeIn(block, item);
    if (block === undefined || block[place] !== item) {
      return false;
    }
    block.splice(place, 1);
    if (block.length === 0) {
      this.#blocks.splice(at, 1);
    }
    this.#size -= 1;
    return true;
  }

  /** The items after a point in the order, the point itself left out; all where there is none. `isAfter` must agree with the order. */
  *ascending(isAfter: (item: Item) => boolean = () => true): Generator<Item> {
    const from = this.#partition((block) => isAfter(lastOf(block)));
    for (let at = from; at < this.#blocks.length; at++) {
      for (const item of this.#blocks[at] ?? []) {
        if (at > from || isAfter(item)) {
          yield item;
        }
      }
    }
  }

  /** The same from the end: the items before a point, backwards. */
  *descending(isBefore: (item: Item) => boolean = () => true): Generator<Item> {
    const end = this.#partition((block) => !isBefore(firstOf(block)));
    for (let at = end - 1; at >= 0; at--) {
      const block = this.#blocks[at] ?? [];
      for (let place = block.length - 1; place >= 0; place--) {
        const item = block[place];
        if (item !== undefined && (at < end - 1 || isBefore(item))) {
          yield item;
        }
      }
    }
  }

  /** The block that has the item, or should have it. */
  #blockFor(item: Item): number {
    const at = this.#partition((block) => this.#compare(lastOf(block), item) >= 0);
    return Math.min(at, Math.max(0, this.#blocks.length - 1));
  }

  /** The first block for which the predicate holds; it must hold for all blocks after that one. */
  #partition(holds: (block: readonly Item[]) => boolean): number {
    let low = 0;
    let high = this.#blocks.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (holds(this.#blocks[middle] ?? [])) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    return low;
  }

  #placeIn(block: readonly Item[], item: Item): number {
    let low = 0;
    let high = block.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#compare(block[middle] as Item, item) < 0) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }
}

function firstOf<Item>(block: readonly Item[]): Item {
  return block[0] as Item;
}

function lastOf<Item>(block: readonly Item[]): Item {
  return block[block.length - 1] as Item;
}
