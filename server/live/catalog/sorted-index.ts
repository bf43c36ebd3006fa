/** Most rows of one block; it is split in two beyond. Around the square root of a million keeps both steps short. */
const BLOCK_MAX = 1_024;
/** How full blocks are made when the index is built: room for what comes. */
const BLOCK_BUILT = 896;
/** A block with fewer is joined with the next one where both fit into one with room left. */
const BLOCK_MIN = 256;
const BLOCK_JOINED_MAX = 768;

interface Block {
  readonly rows: Uint32Array;
  length: number;
}

/** Whether a row lies beyond some point of the order. */
type Beyond = (row: number) => boolean;
/** Some rows, and how many. */
export interface Rows {
  readonly size: number;
  readonly forEach: (visit: (row: number) => void) => void;
}

/** Takes a row; false ends the walk. */
type Visit = (row: number) => boolean;

/**
 * Numbers of rows in order, for catalogs of up to millions: blocks of bounded size, so that an insertion moves
 * a block's rows and not all, at some five bytes a row. The order must be total, and a row's place in it must not
 * change while the row is in the index.
 */
export class SortedIndex {
  readonly #compare: (a: number, b: number) => number;
  #blocks: Block[] = [];
  #size = 0;

  constructor(compare: (a: number, b: number) => number) {
    this.#compare = compare;
  }

  get size(): number {
    return this.#size;
  }

  /** Replaces all that is here by rows that are in order already. */
  build(sorted: Uint32Array): void {
    this.#blocks = [];
    this.#size = sorted.length;
    for (let start = 0; start < sorted.length; start += BLOCK_BUILT) {
      this.#blocks.push(blockOf(sorted.subarray(start, start + BLOCK_BUILT)));
    }
  }

  /** All rows, in order. */
  rows(): Uint32Array {
    const rows = new Uint32Array(this.#size);
    let end = 0;
    for (const block of this.#blocks) {
      rows.set(block.rows.subarray(0, block.length), end);
      end += block.length;
    }
    return rows;
  }

  insert(row: number): void {
    const at = this.#blockFor(row);
    const block = this.#blocks[at];
    if (block === undefined) {
      this.#blocks.push(blockOf(Uint32Array.of(row)));
    } else if (block.length < BLOCK_MAX) {
      insertInto(block, this.#placeIn(block, row), row);
    } else {
      this.#split(at, block, row);
    }
    this.#size += 1;
  }

  /** False where the row is not in the index. */
  delete(row: number): boolean {
    const at = this.#blockFor(row);
    const block = this.#blocks[at];
    const place = block === undefined ? 0 : this.#placeIn(block, row);
    if (block === undefined || place >= block.length || block.rows[place] !== row) {
      return false;
    }
    block.rows.copyWithin(place, place + 1, block.length);
    block.length -= 1;
    this.#size -= 1;
    if (block.length < BLOCK_MIN) {
      this.#join(at, block);
    }
    return true;
  }

  /** Visits the rows after a point in the order; all where there is none. `isAfter` must agree with the order. */
  ascending(isAfter: Beyond | undefined, visit: Visit): void {
    let [at, place] = isAfter === undefined ? [0, 0] : this.#seek((row) => isAfter(row));
    for (; at < this.#blocks.length; at++, place = 0) {
      const block = this.#blocks[at] as Block;
      for (; place < block.length; place++) {
        if (!visit(block.rows[place] as number)) {
          return;
        }
      }
    }
  }

  /** The same from the end: the rows before a point, backwards. */
  descending(isBefore: Beyond | undefined, visit: Visit): void {
    let [at, end] = isBefore === undefined ? [this.#blocks.length, 0] : this.#seek((row) => !isBefore(row));
    for (; at >= 0; at--, end = this.#blocks[at]?.length ?? 0) {
      const rows = this.#blocks[at]?.rows;
      for (let place = end - 1; place >= 0; place--) {
        if (rows !== undefined && !visit(rows[place] as number)) {
          return;
        }
      }
    }
  }

  /** The rows from a point on, up to another. */
  range(isFrom: Beyond, isBeyond: Beyond): Rows {
    const size = Math.max(0, this.#countFrom(isFrom) - this.#countFrom(isBeyond));
    return {
      size,
      forEach: (visit) => {
        let left = size;
        this.ascending(isFrom, (row) => {
          if (left > 0) {
            visit(row);
            left -= 1;
          }
          return left > 0;
        });
      },
    };
  }

  #countFrom(isFrom: Beyond): number {
    let [at, place] = this.#seek(isFrom);
    let count = 0 - place;
    for (; at < this.#blocks.length; at++) {
      count += this.#blocks[at]?.length ?? 0;
    }
    return count;
  }

  /** The block and the place in it of the first row for which the predicate holds; it must hold for all after that one. */
  #seek(holds: Beyond): [block: number, place: number] {
    const at = partition(this.#blocks.length, (n) => holds(lastOf(this.#blocks[n] as Block)));
    const block = this.#blocks[at];
    return [at, block === undefined ? 0 : partition(block.length, (n) => holds(block.rows[n] as number))];
  }

  /** The block that has the row, or should have it. */
  #blockFor(row: number): number {
    const at = partition(
      this.#blocks.length,
      (n) => this.#compare(lastOf(this.#blocks[n] as Block), row) >= 0,
    );
    return Math.min(at, Math.max(0, this.#blocks.length - 1));
  }

  #placeIn(block: Block, row: number): number {
    return partition(block.length, (n) => this.#compare(block.rows[n] as number, row) >= 0);
  }

  /** Makes two of a full block and adds a row. What always comes last, like the newest change, leaves full blocks behind. */
  #split(at: number, block: Block, row: number): void {
    const place = this.#placeIn(block, row);
    const cut = place === BLOCK_MAX ? BLOCK_MAX : BLOCK_MAX / 2;
    const next = blockOf(block.rows.subarray(cut));
    block.length = cut;
    this.#blocks.splice(at + 1, 0, next);
    if (place > cut || cut === BLOCK_MAX) {
      insertInto(next, place - cut, row);
    } else {
      insertInto(block, place, row);
    }
  }

  #join(at: number, block: Block): void {
    const next = this.#blocks[at + 1];
    if (block.length === 0) {
      this.#blocks.splice(at, 1);
    } else if (next !== undefined && block.length + next.length <= BLOCK_JOINED_MAX) {
      block.rows.set(next.rows.subarray(0, next.length), block.length);
      block.length += next.length;
      this.#blocks.splice(at + 1, 1);
    }
  }
}

function blockOf(rows: Uint32Array): Block {
  const block = { rows: new Uint32Array(BLOCK_MAX), length: rows.length };
  block.rows.set(rows);
  return block;
}

function insertInto(block: Block, place: number, row: number): void {
  block.rows.copyWithin(place + 1, place, block.length);
  block.rows[place] = row;
  block.length += 1;
}

function lastOf(block: Block): number {
  return block.rows[block.length - 1] as number;
}

/** The first of so many numbers for which the predicate holds; it must hold for all after that one. */
export function partition(count: number, holds: (n: number) => boolean): number {
  let low = 0;
  let high = count;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (holds(middle)) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}
