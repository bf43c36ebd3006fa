import { type Bytes, LOWER_CASE } from "../products/text-order.ts";

/** After each word come two of these, so that words of one and two bytes are found at an end, too. */
const SPACE = 0x20;
const KEYS = 1 << 21;
/** A step of 128 and more takes two bytes. */
const LONG_STEP = 0x80;
const NONE = -1;

/**
 * A byte as 7 bits: ASCII in lower case as it is, and the bytes of other letters on top of the control characters, which
 * lets strange words find too much, never too little.
 */
const CODES: Uint8Array = LOWER_CASE.map((byte) => (byte < 0x80 ? byte : byte & 0x1f));

/** Whether what a segment finds for the word has it for certain: it is at most three bytes of plain ASCII. */
export function isExact(word: Uint8Array): boolean {
  return word.length <= 3 && word.every((byte) => byte > SPACE && byte < 0x80);
}

/**
 * Which of some numbered texts have which trigrams. The numbers of each trigram lie one after the other as steps of one or two
 * bytes.
 */
export class TrigramSegment {
  readonly #keys: Uint32Array;
  /** Where the steps of each key begin, and at last where they end. */
  readonly #starts: Uint32Array;
  readonly #steps: Uint8Array;

  constructor(keys: Uint32Array, starts: Uint32Array, steps: Uint8Array) {
    this.#keys = keys;
    this.#starts = starts;
    this.#steps = steps;
  }

  /** Sets the bit of each text that may have the word. `bits` and `spare` have one for each text; all of `bits` are clear. */
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

  /** Whatever begins with one byte or two. */
  #findShort(word: Uint8Array, bits: Uint32Array): void {
    const from = (codeOf(word, 0) << 14) | (word.length === 2 ? codeOf(word, 1) << 7 : 0);
    const to = from + (word.length === 2 ? 1 << 7 : 1 << 14);
    for (let at = this.#seek(from); at < this.#keys.length && (this.#keys[at] ?? 0) < to; at++) {
      this.#mark(at, bits);
    }
  }

  #mark(at: number, bits: Uint32Array): void {
    const steps = this.#steps;
    const end = this.#starts[at + 1] ?? 0;
    let place = NONE;
    for (let next = this.#starts[at] ?? 0; next < end; next++) {
      const low = steps[next] as number;
      if (low < LONG_STEP) {
        place += low;
      } else {
        next += 1;
        place += (low & 0x7f) | ((steps[next] as number) << 7);
      }
      bits[place >>> 5] = (bits[place >>> 5] as number) | (1 << (place & 31));
    }
  }

  /** The first key that is not less. */
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

/** Writes one segment after the other, of up to 32,767 texts each. */
export class TrigramWriter {
  /** The trigrams of all texts of the segment, each once for a text that has it. */
  #found = new Uint32Array(1 << 16);
  #foundCount = 0;
  /** Where the trigrams of each text end. */
  readonly #ends: number[] = [];
  /** By key: 1 + the last text that had it. */
  readonly #last = new Uint16Array(KEYS);
  /** By key: at first how many bytes its steps take, then where the next one goes. */
  readonly #next = new Uint32Array(KEYS);
  readonly #keys: number[] = [];

  /** Adds the trigrams of a part of the current text: of each word in it, and of its end. White space is in none. */
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

  /** The current text is complete; the next one begins. */
  endText(): void {
    this.#ends.push(this.#foundCount);
  }

  /** The segment of all texts so far. The writer is then empty again. */
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
    const steps = new Uint8Array(end);
    this.#writeSteps(steps);
    for (const key of keys) {
      this.#next[key] = 0;
      this.#last[key] = 0;
    }
    this.#foundCount = 0;
    this.#ends.length = 0;
    this.#keys.length = 0;
    return new TrigramSegment(keys, starts, steps);
  }

  /** Counts the bytes that the trigram will take, unless the text has it already. */
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
    this.#next[key] = bytes + (number - last < LONG_STEP ? 1 : 2);
    this.#last[key] = number;
    this.#found[this.#foundCount++] = key;
  }

  #writeSteps(steps: Uint8Array): void {
    const [found, last, next] = [this.#found, this.#last, this.#next];
    let at = 0;
    for (let text = 0; text < this.#ends.length; text++) {
      const end = this.#ends[text] as number;
      for (; at < end; at++) {
        const key = found[at] as number;
        const step = text + 1 - (last[key] as number);
        last[key] = text + 1;
        const to = next[key] as number;
        if (step < LONG_STEP) {
          steps[to] = step;
          next[key] = to + 1;
        } else {
          steps[to] = (step & 0x7f) | LONG_STEP;
          steps[to + 1] = step >>> 7;
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
