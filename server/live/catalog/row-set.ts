/** Rows in one word of a set. */
export const BITS = 32;

/** A set of rows, one bit each. */
export class RowSet {
  #words: Uint32Array;

  /** Room for so many rows; it grows when it must. */
  constructor(rows = 0) {
    this.#words = new Uint32Array(Math.ceil(rows / BITS));
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

  /** Replaces the rows from `start` on, a multiple of 32, by those whose bits are set. */
  setAll(start: number, bits: Uint32Array): void {
    const at = start / BITS;
    if (this.#words.length < at + bits.length) {
      this.#grow(at + bits.length);
    }
    this.#words.set(bits, at);
  }

  /** Takes rows out, from a multiple of 32 to another. */
  clear(from: number, to: number): void {
    this.#words.fill(0, from / BITS, to / BITS);
  }

  copy(): RowSet {
    const copy = new RowSet();
    copy.#words = this.#words.slice();
    return copy;
  }

  /** Takes out what is not in the other. */
  keepIn(other: RowSet): void {
    for (let at = 0; at < this.#words.length; at++) {
      this.#words[at] = (this.#words[at] as number) & (other.#words[at] ?? 0);
    }
  }

  /** Takes out what is in the other, from a multiple of 32 to another. */
  dropIn(other: RowSet, from: number, to: number): void {
    const end = Math.min(to / BITS, other.#words.length, this.#words.length);
    for (let at = from / BITS; at < end; at++) {
      this.#words[at] = (this.#words[at] as number) & ~(other.#words[at] as number);
    }
  }

  /** Visits the rows, lowest first. A row may be taken out while it is visited. */
  forEach(visit: (row: number) => void): void {
    const words = this.#words;
    for (let at = 0; at < words.length; at++) {
      let word = words[at] as number;
      while (word !== 0) {
        visit(at * BITS + 31 - Math.clz32(word & -word));
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
