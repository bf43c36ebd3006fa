const BITS = 11;
const BUCKETS = 1 << BITS;
const MASK = BUCKETS - 1;
/** Digits of a 64-bit key. */
const DIGITS = 6;

/**
 * Sorts rows by a non-negative number, stable: a radix sort, least significant digit first, of the IEEE 754 bits, whose order
 * is that of the numbers. Digits that are equal in all rows are skipped. For a million rows it takes about a tenth of a second.
 */
export function sortByNumber(rows: Uint32Array, numberOf: (row: number) => number): Uint32Array {
  const size = rows.length;
  const numbers = new Float64Array(size);
  for (let at = 0; at < size; at++) {
    // -0 and 0 have different bits.
    numbers[at] = numberOf(rows[at] as number) + 0;
  }
  // Little-endian, as on every platform of Node: the low half comes first.
  const halves = new Uint32Array(numbers.buffer);
  const counts = countDigits(halves);
  let order = new Uint32Array(size);
  let next = new Uint32Array(size);
  for (let at = 0; at < size; at++) {
    order[at] = at;
  }
  for (let digit = 0; digit < DIGITS; digit++) {
    const starts = counts.subarray(digit * BUCKETS, (digit + 1) * BUCKETS);
    if (size === 0 || starts[digitOf(halves, 0, digit)] === size) {
      continue;
    }
    let start = 0;
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      const count = starts[bucket] as number;
      starts[bucket] = start;
      start += count;
    }
    for (let at = 0; at < size; at++) {
      const place = order[at] as number;
      const bucket = digitOf(halves, place, digit);
      const to = starts[bucket] as number;
      starts[bucket] = to + 1;
      next[to] = place;
    }
    [order, next] = [next, order];
  }
  for (let at = 0; at < size; at++) {
    next[at] = rows[order[at] as number] as number;
  }
  return next;
}

/** How often each digit has each value, digit by digit. */
function countDigits(halves: Uint32Array): Uint32Array {
  const counts = new Uint32Array(DIGITS * BUCKETS);
  for (let at = 0; 2 * at < halves.length; at++) {
    for (let digit = 0; digit < DIGITS; digit++) {
      const index = digit * BUCKETS + digitOf(halves, at, digit);
      counts[index] = (counts[index] as number) + 1;
    }
  }
  return counts;
}

/** Digit 0 is the least significant. Digit 2 has bits of both halves. */
function digitOf(halves: Uint32Array, at: number, digit: number): number {
  const low = halves[2 * at] as number;
  const high = halves[2 * at + 1] as number;
  switch (digit) {
    case 0:
      return low & MASK;
    case 1:
      return (low >>> 11) & MASK;
    case 2:
      return (low >>> 22) | ((high & 1) << 10);
    case 3:
      return (high >>> 1) & MASK;
    case 4:
      return (high >>> 12) & MASK;
    default:
      return high >>> 23;
  }
}
