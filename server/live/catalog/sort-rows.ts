import type { Bytes } from "../products/text-order.ts";

/** Up to this many rows, insertion sort is faster than the sort of a typed array. */
const INSERTION_SORT_MAX = 16;

/** A sort key as a sequence of 32-bit numbers, compared from the first to the last. */
interface RadixKey {
  readonly part: (row: number, level: number) => number;
  /** Whether rows that are equal up to and including this part have equal keys. */
  readonly isLast: (part: number, level: number) => boolean;
}

/** Parts of each text that are read in advance: 24 bytes per row during the sort, enough for most names. */
const PARTS_CACHED = 6;
const BYTES_PER_PART = 4;

/**
 * The key of a text: four bytes per part. Each byte is increased by one, so that the end of a text sorts before every
 * byte; UTF-8 has no byte above 0xf4. Texts are read in the order
 * of the rows, which is that of memory.
 */
export function textKey(rows: Uint32Array, of: (row: number) => Bytes): RadixKey {
  const ascending = rows.slice().sort();
  const cached = new Uint32Array(PARTS_CACHED * ((ascending.at(-1) ?? -1) + 1));
  for (let i = 0; i < ascending.length; i++) {
    const row = ascending[i] as number;
    const text = of(row);
    for (let level = 0; level < PARTS_CACHED; level++) {
      cached[PARTS_CACHED * row + level] = partOf(text, level);
    }
  }
  return {
    part: (row, level) =>
      level < PARTS_CACHED ? (cached[PARTS_CACHED * row + level] as number) : partOf(of(row), level),
    isLast: (part) => (part & 0xff) === 0,
  };
}

function partOf({ bytes, start, end }: Bytes, level: number): number {
  const from = start + BYTES_PER_PART * level;
  let part = 0;
  for (let at = from; at < from + BYTES_PER_PART; at++) {
    part = (part << 8) | (at < end ? 1 + (bytes[at] as number) : 0);
  }
  return part >>> 0;
}

/**
 * A radix sort that is several times faster than a comparison sort for a million rows. Part and position form one
 * 64-bit number, and the typed array sorts these numbers; rows with equal parts are then sorted by their next part.
 * Stable.
 */
export function sortRows(rows: Uint32Array, key: RadixKey): Uint32Array {
  const sorter = new Sorter(rows, key);
  sorter.sort(0, rows.length, 0);
  return sorter.sorted();
}

class Sorter {
  readonly #rows: Uint32Array;
  readonly #key: RadixKey;
  readonly #pairs: BigUint64Array;
  /** The same memory: position in `rows`, then part (little-endian, as on every platform of Node). */
  readonly #halves: Uint32Array;

  constructor(rows: Uint32Array, key: RadixKey) {
    this.#rows = rows;
    this.#key = key;
    this.#pairs = new BigUint64Array(rows.length);
    this.#halves = new Uint32Array(this.#pairs.buffer);
    for (let i = 0; i < rows.length; i++) {
      this.#halves[2 * i] = i;
    }
  }

  sort(from: number, to: number, level: number): void {
    // Skip the parts that are equal in all rows.
    while (this.#fill(from, to, level)) {
      if (from === to || this.#key.isLast(this.#halves[2 * from + 1] as number, level)) {
        return;
      }
      level += 1;
    }
    if (to - from <= INSERTION_SORT_MAX) {
      this.#insertionSort(from, to);
    } else {
      this.#pairs.subarray(from, to).sort();
    }
    const halves = this.#halves;
    let start = from;
    for (let i = from + 1; i <= to; i++) {
      const part = halves[2 * start + 1] ?? 0;
      if (i === to || halves[2 * i + 1] !== part) {
        if (i - start > 1 && !this.#key.isLast(part, level)) {
          this.sort(start, i, level + 1);
        }
        start = i;
      }
    }
  }

  /** Writes each row's part next to its position. Returns whether all parts are equal. */
  #fill(from: number, to: number, level: number): boolean {
    const [rows, halves, key] = [this.#rows, this.#halves, this.#key];
    let areEqual = true;
    for (let i = from; i < to; i++) {
      const part = key.part(rows[halves[2 * i] as number] as number, level);
      halves[2 * i + 1] = part;
      areEqual &&= part === halves[2 * from + 1];
    }
    return areEqual;
  }

  sorted(): Uint32Array {
    const sorted = new Uint32Array(this.#rows.length);
    for (let i = 0; i < sorted.length; i++) {
      sorted[i] = this.#rows[this.#halves[2 * i] as number] as number;
    }
    return sorted;
  }

  #insertionSort(from: number, to: number): void {
    const halves = this.#halves;
    for (let i = from + 1; i < to; i++) {
      const place = halves[2 * i] ?? 0;
      const part = halves[2 * i + 1] ?? 0;
      let at = i;
      for (; at > from; at--) {
        const before = halves[2 * at - 1] ?? 0;
        if (before < part || (before === part && (halves[2 * at - 2] ?? 0) < place)) {
          break;
        }
        halves[2 * at + 1] = before;
        halves[2 * at] = halves[2 * at - 2] ?? 0;
      }
      halves[2 * at + 1] = part;
      halves[2 * at] = place;
    }
  }
}
