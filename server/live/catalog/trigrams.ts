import { type Bytes, LOWER_CASE } from "../products/text-order.ts";

/** Appended twice to each word, so that searches of one and two bytes match at the end of a word too. */
const SPACE = 0x20;
const KEYS = 1 << 21;
/** A delta of 128 or more takes two bytes. */
const LONG_DELTA = 0x80;
/** Before the first text of a posting list. */
const START = -1;

/**
 * Each byte as 7 bits: ASCII in lower case unchanged, the bytes of other letters mapped onto the control characters.
 * Searches beyond ASCII may therefore return false positives, never false negatives.
 */
const CODES: Uint8Array = LOWER_CASE.map((byte) => (byte < 0x80 ? byte : byte & 0x1f));

/** Whether a segment returns no false positives for the word: it is at most three bytes of printable ASCII. */
export function isExact(word: Uint8Array): boolean {
  return word.length <= 3 && word.every((byte) => byte > SPACE && byte < 0x80);
}

/** An inverted index from trigrams to numbered texts. Each posting list is a sequence of deltas of one or two bytes. */
export class TrigramSegment {
  readonly #keys: Uint32Array;
  /** The start of each key's deltas, and at the end their length. */
  readonly #starts: Uint32Array;
  readonly #deltas: Uint8Array;

  constructor(keys: Uint32Array, starts: Uint32Array, deltas: Uint8Array) {
    this.#keys = keys;
    this.#starts = starts;
    this.#deltas = deltas;
  }

  /**
   * Sets the bit of each text that may contain the word. `bits` and `spare` have one bit per text; those of `bits` are
   * clear.
   */
  find(word: Uint8Array, bits: Uint32Array, spare: Uint32Array): void {
    if (word.length < 3) {
      this.#findShort(word, bits);
      return;
    }
    for (let n = 0; n + 2 < word.length; n++) {
      const key = (codeOf(word, n) << 14) | (codeOf(word, n + 1) << 7) | codeOf(word, n + 2);
      const at = this.#seek(key);
      if (this.#keys[at] !== key) {
        bits.fill(0);
        return;
      }
      if (n === 0) {
        this.#mark(at, bits);
      } else {
        spare.fill(0);
        this.#mark(at, spare);
        for (let i = 0; i < bits.length; i++) {
          bits[i] = (bits[i] as number) & (spare[i] as number);
        }
      }
    }
  }

  /** For one or two bytes: all trigrams that start with them. */
  #findShort(word: Uint8Array, bits: Uint32Array): void {
    const from = (codeOf(word, 0) << 14) | (word.length === 2 ? codeOf(word, 1) << 7 : 0);
    const to = from + (word.length === 2 ? 1 << 7 : 1 << 14);
    for (let at = this.#seek(from); at < this.#keys.length && (this.#keys[at] ?? 0) < to; at++) {
      this.#mark(at, bits);
    }
  }

  #mark(at: number, bits: Uint32Array): void {
    const deltas = this.#deltas;
    const end = this.#starts[at + 1] ?? 0;
    let text = START;
    for (let next = this.#starts[at] ?? 0; next < end; next++) {
      const low = deltas[next] as number;
      if (low < LONG_DELTA) {
        text += low;
      } else {
        next += 1;
        text += (low & 0x7f) | ((deltas[next] as number) << 7);
      }
      bits[text >>> 5] = (bits[text >>> 5] as number) | (1 << (text & 31));
    }
  }

  /** The index of the first key that is not less. */
  #seek(key: number): number {
    let low = 0;
    let high = this.#keys.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#keys[middle] ?? 0) < key) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }
}

/** Builds segments, one after the other, of up to 32,767 texts each. */
export class TrigramWriter {
  /** The distinct trigrams of each text of the segment, one text after the other. */
  #found = new Uint32Array(1 << 16);
  #foundCount = 0;
  /** The end of each text's trigrams in `#found`. */
  readonly #ends: number[] = [];
  /** By key: 1 + the last text that contains it. */
  readonly #last = new Uint16Array(KEYS);
  /** By key: first the number of bytes of its deltas, then the position of the next one. */
  readonly #next = new Uint32Array(KEYS);
  readonly #keys: number[] = [];

  /** Adds the trigrams of each word in a part of the current text. No trigram spans white space. */
  add({ bytes, start, end }: Bytes): void {
    this.#reserve(3 * (end - start));
    let key = 0;
    let length = 0;
    for (let at = start; at <= end; at++) {
      const byte = at < end ? (bytes[at] as number) : SPACE;
      if (!isSpace(byte)) {
        key = pushed(key, CODES[byte] as number);
        length += 1;
        if (length >= 3) {
          this.#add(key);
        }
      } else if (length > 0) {
        if (length >= 2) {
          this.#add(pushed(key, SPACE));
        }
        this.#add(pushed(pushed(key, SPACE), SPACE));
        length = 0;
        key = 0;
      }
    }
  }

  /** Ends the current text. */
  endText(): void {
    this.#ends.push(this.#foundCount);
  }

  /** Returns the segment and resets the writer. */
  finish(): TrigramSegment {
    const keys = Uint32Array.from(this.#keys).sort();
    const starts = new Uint32Array(keys.length + 1);
    let end = 0;
    for (const [n, key] of keys.entries()) {
      starts[n] = end;
      end += this.#next[key] ?? 0;
      this.#next[key] = starts[n] ?? 0;
      this.#last[key] = 0;
    }
    starts[keys.length] = end;
    const deltas = new Uint8Array(end);
    this.#writeDeltas(deltas);
    for (const key of keys) {
      this.#next[key] = 0;
      this.#last[key] = 0;
    }
    this.#foundCount = 0;
    this.#ends.length = 0;
    this.#keys.length = 0;
    return new TrigramSegment(keys, starts, deltas);
  }

  /** Adds a trigram to the current text, unless the text has it already, and counts the bytes of its delta. */
  #add(key: number): void {
    const number = this.#ends.length + 1;
    const last = this.#last[key] as number;
    if (last === number) {
      return;
    }
    const bytes = this.#next[key] as number;
    if (bytes === 0) {
      this.#keys.push(key);
    }
    this.#next[key] = bytes + (number - last < LONG_DELTA ? 1 : 2);
    this.#last[key] = number;
    this.#found[this.#foundCount++] = key;
  }

  #writeDeltas(deltas: Uint8Array): void {
    const [found, last, next] = [this.#found, this.#last, this.#next];
    let at = 0;
    for (let text = 0; text < this.#ends.length; text++) {
      const end = this.#ends[text] as number;
      for (; at < end; at++) {
        const key = found[at] as number;
        const delta = text + 1 - (last[key] as number);
        last[key] = text + 1;
        const to = next[key] as number;
        if (delta < LONG_DELTA) {
          deltas[to] = delta;
          next[key] = to + 1;
        } else {
          deltas[to] = (delta & 0x7f) | LONG_DELTA;
          deltas[to + 1] = delta >>> 7;
          next[key] = to + 2;
        }
      }
    }
  }

  #reserve(more: number): void {
    if (this.#foundCount + more > this.#found.length) {
      const found = new Uint32Array((this.#foundCount + more) * 2);
      found.set(this.#found);
      this.#found = found;
    }
  }
}

function pushed(key: number, code: number): number {
  return ((key << 7) | code) & (KEYS - 1);
}

function codeOf(word: Uint8Array, at: number): number {
  return CODES[word[at] ?? 0] ?? 0;
}

function isSpace(byte: number): boolean {
  return byte === SPACE || (byte >= 0x09 && byte <= 0x0d);
}
