/**
 * The natural order of names, independent of locale: by code point without case and accents, except that a run of ASCII
 * digits is compared as a number (2 before 10), then by the exact text.
 */
export function compareNames(a: string, b: string): number {
  return compareNatural(bytesOf(foldText(a)), bytesOf(foldText(b))) || compareText(a, b);
}

/** Folds a text for searching and sorting: lower case, without accents. */
export function foldText(text: string): string {
  return text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** Maps each byte, 0 to 255: ASCII letters to lower case, all others to themselves. */
export const LOWER_CASE: Uint8Array = Uint8Array.from({ length: 256 }, (_, byte) =>
  byte >= 0x41 && byte <= 0x5a ? byte + 0x20 : byte,
);

/** A range of UTF-8 bytes. */
export interface Bytes {
  readonly bytes: Uint8Array;
  readonly start: number;
  readonly end: number;
}

/** Compares by code point. */
export function compareBytes(a: Bytes, b: Bytes): number {
  const length = Math.min(a.end - a.start, b.end - b.start);
  for (let i = 0; i < length; i++) {
    const difference = (a.bytes[a.start + i] as number) - (b.bytes[b.start + i] as number);
    if (difference !== 0) {
      return difference;
    }
  }
  return a.end - a.start - (b.end - b.start);
}

/**
 * The natural order of folded texts, and of ASCII as if it were folded: by code point, ignoring the case of ASCII letters,
 * and a run of ASCII digits as a number, whatever its length. Texts that differ in case or in leading zeros only are
 * equal. It is the order of the keys of `NaturalKeyWriter`.
 */
export function compareNatural(a: Bytes, b: Bytes): number {
  let i = a.start;
  let j = b.start;
  while (i < a.end && j < b.end) {
    const left = LOWER_CASE[a.bytes[i] as number] as number;
    const right = LOWER_CASE[b.bytes[j] as number] as number;
    if (isDigit(left) && isDigit(right)) {
      const endOfA = endOfDigits(a, i);
      const endOfB = endOfDigits(b, j);
      i = skipZeros(a, i, endOfA);
      j = skipZeros(b, j, endOfB);
      if (endOfA - i !== endOfB - j) {
        return endOfA - i - (endOfB - j);
      }
      for (; i < endOfA; i++, j++) {
        if (a.bytes[i] !== b.bytes[j]) {
          return (a.bytes[i] as number) - (b.bytes[j] as number);
        }
      }
    } else {
      if (left !== right) {
        return left - right;
      }
      i += 1;
      j += 1;
    }
  }
  return a.end - i - (b.end - j);
}

const ZERO = 0x30;
const NINE = 0x39;
/** Digits that one byte of a run's length stands for. */
const LENGTH_STEP = NINE - ZERO;

/**
 * Writes keys whose bytes are in the natural order of their texts. A run of digits becomes its length and its digits
 * without leading zeros. The length is written in digits too, so that a number keeps its place between other characters:
 * a 9 for each nine digits, then the rest.
 *
 * @example "Lamp 007" → "lamp 17", "Lamp 10" → "lamp 210", "1234567890" → "911234567890"
 */
export class NaturalKeyWriter {
  #bytes = new Uint8Array(1_024);
  readonly #key = { bytes: this.#bytes, start: 0, end: 0 };

  /** The key of a folded text, or of ASCII as if it were folded. Valid until the next call. */
  write(text: Bytes): Bytes {
    const { bytes, start, end } = text;
    // At most one byte more for each digit.
    if (this.#bytes.length < 2 * (end - start)) {
      this.#bytes = new Uint8Array(2 * (end - start));
    }
    const key = this.#bytes;
    let length = 0;
    for (let at = start; at < end; ) {
      const byte = LOWER_CASE[bytes[at] as number] as number;
      if (!isDigit(byte)) {
        key[length++] = byte;
        at += 1;
        continue;
      }
      const endOfRun = endOfDigits(text, at);
      at = skipZeros(text, at, endOfRun);
      let digits = endOfRun - at;
      for (; digits >= LENGTH_STEP; digits -= LENGTH_STEP) {
        key[length++] = NINE;
      }
      key[length++] = ZERO + digits;
      for (; at < endOfRun; at++) {
        key[length++] = bytes[at] as number;
      }
    }
    this.#key.bytes = key;
    this.#key.end = length;
    return this.#key;
  }
}

function isDigit(byte: number): boolean {
  return byte >= ZERO && byte <= NINE;
}

function endOfDigits({ bytes, end }: Bytes, from: number): number {
  let at = from;
  while (at < end && isDigit(bytes[at] as number)) {
    at += 1;
  }
  return at;
}

function skipZeros({ bytes }: Bytes, from: number, end: number): number {
  let at = from;
  while (at < end && bytes[at] === ZERO) {
    at += 1;
  }
  return at;
}

export function bytesOf(text: string): Bytes {
  const bytes = Buffer.from(text);
  return { bytes, start: 0, end: bytes.length };
}
