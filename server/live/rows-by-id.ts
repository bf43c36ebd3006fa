import { randomInt } from "node:crypto";
import { type Bytes, compareBytes } from "./text-order.ts";

/** In place of a row that is not there. */
export const NO_ROW = -1;

const SLOTS_AT_FIRST = 256;
/** Beyond this share of slots taken the table is doubled. */
const LOAD_MAX = 0.75;
const FNV_PRIME = 0x01000193;

/**
 * Finds rows by product ID. A hash table in typed arrays (open addressing, linear probing; deletion moves later
 * entries back, so there are no tombstones): 8 bytes a slot, where a Map would keep every ID as a string of its own.
 */
export class RowsById {
  readonly #idOf: (row: number) => Bytes;
  /** So that nobody can choose IDs that collide. */
  readonly #seed = randomInt(2 ** 32);
  /** Row + 1; 0 is a free slot. */
  #slots = new Uint32Array(SLOTS_AT_FIRST);
  #hashes = new Uint32Array(SLOTS_AT_FIRST);
  #size = 0;
  #wanted = Buffer.allocUnsafeSlow(512);

  /** `idOf` gives a row's ID; it is asked for rows that are here alone. */
  constructor(idOf: (row: number) => Bytes) {
    this.#idOf = idOf;
  }

  /** The row with this ID, or `NO_ROW`. */
  find(productId: string): number {
    const most = 3 * productId.length;
    if (this.#wanted.length < most) {
      this.#wanted = Buffer.allocUnsafeSlow(most);
    }
    const wanted = { bytes: this.#wanted, start: 0, end: this.#wanted.write(productId, "utf8") };
    const hash = this.#hash(wanted);
    const mask = this.#slots.length - 1;
    for (let slot = hash & mask; ; slot = (slot + 1) & mask) {
      const taken = this.#slots[slot] ?? 0;
      if (taken === 0) {
        return NO_ROW;
      }
      if (this.#hashes[slot] === hash && compareBytes(this.#idOf(taken - 1), wanted) === 0) {
        return taken - 1;
      }
    }
  }

  /** Adds a row whose ID is not here yet. */
  add(row: number): void {
    if (this.#size >= this.#slots.length * LOAD_MAX) {
      this.#double();
    }
    this.#place(row + 1, this.#hash(this.#idOf(row)));
    this.#size += 1;
  }

  remove(row: number): void {
    const mask = this.#slots.length - 1;
    let hole = this.#hash(this.#idOf(row)) & mask;
    while (this.#slots[hole] !== row + 1) {
      if (this.#slots[hole] === 0) {
        return;
      }
      hole = (hole + 1) & mask;
    }
    this.#size -= 1;
    // Whatever could not take its own slot for lack of room, and would now be beyond a free one, moves back.
    for (let slot = (hole + 1) & mask; this.#slots[slot] !== 0; slot = (slot + 1) & mask) {
      const hash = this.#hashes[slot] ?? 0;
      if (((slot - hash) & mask) >= ((slot - hole) & mask)) {
        this.#slots[hole] = this.#slots[slot] ?? 0;
        this.#hashes[hole] = hash;
        hole = slot;
      }
    }
    this.#slots[hole] = 0;
  }

  #place(taken: number, hash: number): void {
    const mask = this.#slots.length - 1;
    let slot = hash & mask;
    while (this.#slots[slot] !== 0) {
      slot = (slot + 1) & mask;
    }
    this.#slots[slot] = taken;
    this.#hashes[slot] = hash;
  }

  #double(): void {
    const [slots, hashes] = [this.#slots, this.#hashes];
    this.#slots = new Uint32Array(slots.length * 2);
    this.#hashes = new Uint32Array(slots.length * 2);
    for (const [slot, taken] of slots.entries()) {
      if (taken !== 0) {
        this.#place(taken, hashes[slot] ?? 0);
      }
    }
  }

  /** FNV-1a, then mixed once so that the low bits depend on all. */
  #hash({ bytes, start, end }: Bytes): number {
    let hash = this.#seed;
    for (let at = start; at < end; at++) {
      hash = Math.imul(hash ^ (bytes[at] ?? 0), FNV_PRIME);
    }
    hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
    return (hash ^ (hash >>> 13)) >>> 0;
  }
}
