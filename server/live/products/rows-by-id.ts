import { randomInt } from "node:crypto";
import { type Bytes, compareBytes } from "./text-order.ts";

/** Stands for a row that does not exist. */
export const NO_ROW = -1;

const INITIAL_SLOTS = 256;
/** The table is doubled when a larger share of its slots is in use. */
const LOAD_MAX = 0.75;
const FNV_PRIME = 0x01000193;

/** The IDs of the rows in the table. */
interface RowIds {
  idBytes(row: number): Bytes;
  /** The ID if it is available as a string. For products that are read often, this saves a cache miss of the processor. */
  cachedId(row: number): string | undefined;
}

/**
 * Finds rows by product ID. A hash table in a typed array (open addressing, linear probing, backward-shift deletion
 * instead of tombstones) with 8 bytes per slot. A Map would store every ID as a string.
 */
export class RowsById {
  readonly #ids: RowIds;
  /** Random, so that a client cannot choose IDs that collide. */
  readonly #seed = randomInt(2 ** 32);
  /** Two numbers per slot: row + 1, or 0 if the slot is free, and the hash of the ID. */
  #slots = new Uint32Array(2 * INITIAL_SLOTS);
  #size = 0;
  /** The ID of the current `find`. */
  #key = Buffer.allocUnsafeSlow(512);

  constructor(ids: RowIds) {
    this.#ids = ids;
  }

  /** The row with this ID, or `NO_ROW`. */
  find(productId: string): number {
    const bytesMax = 3 * productId.length;
    if (this.#key.length < bytesMax) {
      this.#key = Buffer.allocUnsafeSlow(bytesMax);
    }
    const key = { bytes: this.#key, start: 0, end: this.#key.write(productId, "utf8") };
    const hash = this.#hash(key);
    const mask = this.#mask;
    for (let slot = hash & mask; ; slot = (slot + 1) & mask) {
      const taken = this.#slots[2 * slot] as number;
      if (taken === 0) {
        return NO_ROW;
      }
      if (this.#slots[2 * slot + 1] === hash && this.#hasId(taken - 1, productId, key)) {
        return taken - 1;
      }
    }
  }

  /** Adds a row whose ID is not in the table. */
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
    // Backward shift: entries that the free slot would separate from their home slot move into it.
    for (let slot = (hole + 1) & mask; slots[2 * slot] !== 0; slot = (slot + 1) & mask) {
      const hash = slots[2 * slot + 1] as number;
      if (((slot - hash) & mask) >= ((slot - hole) & mask)) {
        slots.copyWithin(2 * hole, 2 * slot, 2 * slot + 2);
        hole = slot;
      }
    }
    slots[2 * hole] = 0;
  }

  #hasId(row: number, productId: string, key: Bytes): boolean {
    const cached = this.#ids.cachedId(row);
    return cached === undefined ? compareBytes(this.#ids.idBytes(row), key) === 0 : cached === productId;
  }

  /** The number of slots, a power of two, minus one. */
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

  /** FNV-1a, then mixed once, because the low bits select the slot. */
  #hash({ bytes, start, end }: Bytes): number {
    let hash = this.#seed;
    for (let at = start; at < end; at++) {
      hash = Math.imul(hash ^ (bytes[at] ?? 0), FNV_PRIME);
    }
    hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
    return (hash ^ (hash >>> 13)) >>> 0;
  }
}
