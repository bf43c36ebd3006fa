/** Rows per 32-bit word of a set. */
export const BITS_PER_WORD = 32;

/** A set of rows as a bitmap. */
export class RowSet {
  #words: Uint32Array;

  /** `rows`: initial capacity. The set grows as needed. */
  constructor(rows = 0) {
    this.#words = new Uint32Array(Math.ceil(rows / BITS_PER_WORD));
  }

  get size(): number {
    let size = 0;
    for (let at = 0; at < this.#words.length; at++) {
      size += bitsOf(this.#words[at] as number);
    }
    return size;
  }

  has(row: number): boolean {
    return (((this.#words[row >>> 5] ?? 0) >>> (row & 31)) & 1) === 1;
  }

  set(row: number, isIn: boolean): void {
    const at = row >>> 5;
    if (at >= this.#words.length) {
      if (!isIn) {
        return;
      }
      this.#grow(Math.ceil((at + 1) * 1.5));
    }
    const bit = 1 << (row & 31);
    this.#words[at] = isIn ? (this.#words[at] ?? 0) | bit : (this.#words[at] ?? 0) & ~bit;
  }

  /** Replaces the rows from `start`, a multiple of 32, with those whose bits are set. */
  replace(start: number, bits: Uint32Array): void {
    const at = start / BITS_PER_WORD;
    if (this.#words.length < at + bits.length) {
      this.#grow(at + bits.length);
    }
    this.#words.set(bits, at);
  }

  /** Removes the rows from `from` up to `to`, both multiples of 32. */
  clear(from: number, to: number): void {
    this.#words.fill(0, from / BITS_PER_WORD, to / BITS_PER_WORD);
  }

  copy(): RowSet {
    const copy = new RowSet();
    copy.#words = this.#words.slice();
    return copy;
  }

  /** Removes the rows that are not in `other`. */
  intersect(other: RowSet): void {
    for (let at = 0; at < this.#words.length; at++) {
      this.#words[at] = (this.#words[at] as number) & (other.#words[at] ?? 0);
    }
  }

  /** Removes the rows that are in `other`, from `from` up to `to`, both multiples of 32. */
  subtract(other: RowSet, from: number, to: number): void {
    const end = Math.min(to / BITS_PER_WORD, other.#words.length, this.#words.length);
    for (let at = from / BITS_PER_WORD; at < end; at++) {
      this.#words[at] = (this.#words[at] as number) & ~(other.#words[at] as number);
    }
  }

  /** Visits the rows in ascending order. A row may be removed while it is visited. */
  forEach(visit: (row: number) => void): void {
    const words = this.#words;
    for (let at = 0; at < words.length; at++) {
      let word = words[at] as number;
      while (word !== 0) {
        visit(at * BITS_PER_WORD + 31 - Math.clz32(word & -word));
        word &= word - 1;
      }
    }
  }

  #grow(length: number): void {
    const words = new Uint32Array(length);
    words.set(this.#words);
    this.#words = words;
  }
}

function bitsOf(word: number): number {
  let bits = word - ((word >>> 1) & 0x55555555);
  bits = (bits & 0x33333333) + ((bits >>> 2) & 0x33333333);
  return Math.imul((bits + (bits >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}
