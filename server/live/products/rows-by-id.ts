import { randomInt } from "node:crypto";
import { type Bytes, compareBytes } from "./text-order.ts";

/** In place of a row that is not there. */
export const NO_ROW = -1;

const SLOTS_AT_FIRST = 256;
/** Beyond this share of slots taken the table is doubled. */
const LOAD_MAX = 0.75;
const FNV_PRIME = 0x01000193;

/** The IDs of rows; it is asked for rows that are in the table alone. */
interface RowIds {
  idBytes(row: number): Bytes;
  /** The ID where it is a string already: for what is read often, one walk less into memory that no cache of the processor holds. */
  idAtHand(row: number): string | undefined;
}

/**
 * Finds rows by product ID. A hash table in typed arrays (open addressing, linear probing; deletion moves later
 * entries back, so there are no tombstones): 8 bytes a slot, where a Map would keep every ID as a string of its own.
 */
export class RowsById {
  readonly #ids: RowIds;
  /** So that nobody can choose IDs that collide. */
  readonly #seed = randomInt(2 ** 32);
  /** Two numbers a slot, side by side for the processor's caches: row + 1, or 0 where it is free, and the hash of the ID. */
  #slots = new Uint32Array(2 * SLOTS_AT_FIRST);
  #size = 0;
  #wanted = Buffer.allocUnsafeSlow(512);

  constructor(ids: RowIds) {
    this.#ids = ids;
  }

  /** The row with this ID, or `NO_ROW`. */
  find(productId: string): number {
    const most = 3 * productId.length;
    if (this.#wanted.length < most) {
      this.#wanted = Buffer.allocUnsafeSlow(most);
    }
    const wanted = { bytes: this.#wanted, start: 0, end: this.#wanted.write(productId, "utf8") };
    const hash = this.#hash(wanted);
    const mask = this.#mask;
    for (let slot = hash & mask; ; slot = (slot + 1) & mask) {
      const taken = this.#slots[2 * slot] as number;
      if (taken === 0) {
        return NO_ROW;
      }
      if (this.#slots[2 * slot + 1] === hash && this.#isOf(taken - 1, productId, wanted)) {
        return taken - 1;
      }
    }
  }

  /** Adds a row whose ID is not here yet. */
  add(row: number): void {
    if (this.#size > this.#mask * LOAD_MAX) {
      this.#double();
    }
    this.#place(row + 1, this.#hash(this.#ids.idBytes(row)));
    this.#size += 1;
  }

  remove(row: number): void {
    const [slots, mask] = [this.#slots, this.#mask];
    let hole = this.#hash(this.#ids.idBytes(row)) & mask;
    while (slots[2 * hole] !== row + 1) {
      if (slots[2 * hole] === 0) {
        return;
      }
      hole = (hole + 1) & mask;
    }
    this.#size -= 1;
    // Whatever could not take its own slot for lack of room, and would now be beyond a free one, moves back.
    for (let slot = (hole + 1) & mask; slots[2 * slot] !== 0; slot = (slot + 1) & mask) {
      const hash = slots[2 * slot + 1] as number;
      if (((slot - hash) & mask) >= ((slot - hole) & mask)) {
        slots.copyWithin(2 * hole, 2 * slot, 2 * slot + 2);
        hole = slot;
      }
    }
    slots[2 * hole] = 0;
  }

  #isOf(row: number, productId: string, wanted: Bytes): boolean {
    const known = this.#ids.idAtHand(row);
    return known === undefined ? compareBytes(this.#ids.idBytes(row), wanted) === 0 : known === productId;
  }

  /** The number of slots is a power of two; this is one less. */
  get #mask(): number {
    return this.#slots.length / 2 - 1;
  }

  #place(taken: number, hash: number): void {
    const [slots, mask] = [this.#slots, this.#mask];
    let slot = hash & mask;
    while (slots[2 * slot] !== 0) {
      slot = (slot + 1) & mask;
    }
    slots[2 * slot] = taken;
    slots[2 * slot + 1] = hash;
  }

  #double(): void {
    const slots = this.#slots;
    this.#slots = new Uint32Array(slots.length * 2);
    for (let at = 0; at < slots.length; at += 2) {
      if (slots[at] !== 0) {
        this.#place(slots[at] as number, slots[at + 1] as number);
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
