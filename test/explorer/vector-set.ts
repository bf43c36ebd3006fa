/** A set of vectors of integers, all of one length, numbered from 0 in the order in which they were added. */
export class VectorSet {
  readonly #length: number;
  #vectors: Int32Array;
  /** Open addressing: 0 for a free slot, otherwise a vector's number + 1. */
  #slots = new Int32Array(1 << 16);
  size = 0;

  constructor(length: number) {
    this.#length = length;
    this.#vectors = new Int32Array(length << 15);
  }

  /** The number of the vector, negative if it is new: -1 - number. */
  add(vector: Int32Array): number {
    const mask = this.#slots.length - 1;
    let slot = hash(vector) & mask;
    for (let entry = this.#slots[slot]; entry !== 0; entry = this.#slots[slot]) {
      if (this.#equals((entry as number) - 1, vector)) {
        return (entry as number) - 1;
      }
      slot = (slot + 1) & mask;
    }
    if ((this.size + 1) * this.#length > this.#vectors.length) {
      const larger = new Int32Array(this.#vectors.length * 2);
      larger.set(this.#vectors);
      this.#vectors = larger;
    }
    this.#vectors.set(vector, this.size * this.#length);
    this.size += 1;
    this.#slots[slot] = this.size;
    if (this.size * 2 > this.#slots.length) {
      this.#rehash();
    }
    return -this.size;
  }

  /** Copies the vector of this number into `target`. */
  read(number: number, target: Int32Array): void {
    target.set(this.#vectors.subarray(number * this.#length, (number + 1) * this.#length));
  }

  #equals(number: number, vector: Int32Array): boolean {
    const from = number * this.#length;
    for (let n = 0; n < this.#length; n += 1) {
      if (this.#vectors[from + n] !== vector[n]) {
        return false;
      }
    }
    return true;
  }

  #rehash(): void {
    this.#slots = new Int32Array(this.#slots.length * 2);
    const mask = this.#slots.length - 1;
    const vector = new Int32Array(this.#length);
    for (let number = 0; number < this.size; number += 1) {
      this.read(number, vector);
      let slot = hash(vector) & mask;
      while (this.#slots[slot] !== 0) {
        slot = (slot + 1) & mask;
      }
      this.#slots[slot] = number + 1;
    }
  }
}

function hash(vector: Int32Array): number {
  let h = 0x811c9dc5;
  for (const value of vector) {
    h = Math.imul(h ^ value, 0x85ebca6b);
    h ^= h >>> 13;
  }
  h = Math.imul(h, 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}
