/** Maximum rows of a block; a full one is split. About the square root of a million, so both steps of a search are short. */
const BLOCK_MAX = 1_024;
/** Rows per block when the index is built, which leaves room for insertions. */
const BLOCK_FILL = 896;
/** A block with fewer rows is merged with the next one if the result has at most `BLOCK_MERGED_MAX`. */
const BLOCK_MIN = 256;
const BLOCK_MERGED_MAX = 768;

const INITIAL_LASTS = 16;

interface Block {
  readonly rows: Uint32Array;
  length: number;
}

/** Divides the order at a point: false for all rows before it, true for all rows after it. */
type IsAfter = (row: number) => boolean;

/** A set of rows of known size. */
export interface Rows {
  readonly size: number;
  readonly forEach: (visit: (row: number) => void) => void;
}

/** Visits a row; returns false to stop. */
type Visit = (row: number) => boolean;

/**
 * Row numbers in order, for catalogs of up to millions of products. Blocks have a bounded size, so an insertion moves
 * the rows of one block; the index takes about five bytes per row. The order must be total, and a row's position in it
 * must not change while the row is in the index.
 */
export class SortedIndex {
  readonly #compare: (a: number, b: number) => number;
  #blocks: Block[] = [];
  /** The last row of each block, in one place: a search visits several of them. */
  #lasts = new Uint32Array(INITIAL_LASTS);
  #size = 0;

  constructor(compare: (a: number, b: number) => number) {
    this.#compare = compare;
  }

  get size(): number {
    return this.#size;
  }

  /** Replaces all rows with rows that are in order already. */
  build(sorted: Uint32Array): void {
    this.#blocks = [];
    this.#size = sorted.length;
    for (let start = 0; start < sorted.length; start += BLOCK_FILL) {
      this.#blocks.push(blockOf(sorted.subarray(start, start + BLOCK_FILL)));
    }
    this.#noteLasts(0);
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
      this.#noteLasts(at);
    } else if (block.length < BLOCK_MAX) {
      insertInto(block, this.#indexIn(block, row), row);
      this.#lasts[at] = lastOf(block);
    } else {
      this.#split(at, block, row);
      this.#noteLasts(at);
    }
    this.#size += 1;
  }

  /** Returns false if the row is not in the index. */
  delete(row: number): boolean {
    const at = this.#blockFor(row);
    const block = this.#blocks[at];
    // Reading the block takes less time than comparing rows, each of which has its key elsewhere in memory.
    const place = block === undefined ? -1 : block.rows.indexOf(row);
    if (block === undefined || place === -1 || place >= block.length) {
      return false;
    }
    block.rows.copyWithin(place, place + 1, block.length);
    block.length -= 1;
    this.#size -= 1;
    if (block.length < BLOCK_MIN) {
      this.#merge(at, block);
      this.#noteLasts(at);
    } else {
      this.#lasts[at] = lastOf(block);
    }
    return true;
  }

  /** Visits the rows after a point, or all rows without one. */
  ascending(isAfter: IsAfter | undefined, visit: Visit): void {
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

  /** Visits the rows before a point, or all rows without one, in reverse. `isBefore` is the negation of an `IsAfter`. */
  descending(isBefore: IsAfter | undefined, visit: Visit): void {
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

  /** The rows from one point to another. */
  range(isFrom: IsAfter, isBeyond: IsAfter): Rows {
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

  #countFrom(isFrom: IsAfter): number {
    let [at, place] = this.#seek(isFrom);
    let count = 0 - place;
    for (; at < this.#blocks.length; at++) {
      count += this.#blocks[at]?.length ?? 0;
    }
    return count;
  }

  /** The block, and the place in it, of the first row after a point. */
  #seek(holds: IsAfter): [block: number, place: number] {
    const at = partition(this.#blocks.length, (n) => holds(this.#lasts[n] as number));
    const block = this.#blocks[at];
    return [at, block === undefined ? 0 : partition(block.length, (n) => holds(block.rows[n] as number))];
  }

  /** The block that has the row, or into which it belongs. Of all places the end is the most frequent: new times. */
  #blockFor(row: number): number {
    const last = Math.max(0, this.#blocks.length - 1);
    const [lasts, compare] = [this.#lasts, this.#compare];
    if (this.#blocks.length === 0 || compare(lasts[last] as number, row) < 0) {
      return last;
    }
    return partition(last, (n) => compare(lasts[n] as number, row) >= 0);
  }

  #indexIn(block: Block, row: number): number {
    const { rows, length } = block;
    const compare = this.#compare;
    if (length === 0 || compare(rows[length - 1] as number, row) < 0) {
      return length;
    }
    return partition(length - 1, (n) => compare(rows[n] as number, row) >= 0);
  }

  /** Updates the last rows of the blocks from one on, after blocks were added or removed. */
  #noteLasts(from: number): void {
    const blocks = this.#blocks;
    if (this.#lasts.length < blocks.length) {
      const lasts = new Uint32Array(2 * blocks.length);
      lasts.set(this.#lasts);
      this.#lasts = lasts;
    }
    for (let at = from; at < blocks.length; at++) {
      this.#lasts[at] = lastOf(blocks[at] as Block);
    }
  }

  /** Splits a full block and adds a row. A row at the end starts a new block, so that ascending insertions fill blocks. */
  #split(at: number, block: Block, row: number): void {
    const place = this.#indexIn(block, row);
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

  #merge(at: number, block: Block): void {
    const next = this.#blocks[at + 1];
    if (block.length === 0) {
      this.#blocks.splice(at, 1);
    } else if (next !== undefined && block.length + next.length <= BLOCK_MERGED_MAX) {
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

/** Binary search: the first number below `count` for which `holds` is true, else `count`. It must be monotonic. */
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
