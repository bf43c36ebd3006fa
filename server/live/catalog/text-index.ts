import { type Bytes, bytesOf } from "../products/text-order.ts";
import { BITS, RowSet } from "./row-set.ts";
import { isExact, type TrigramSegment, TrigramWriter } from "./trigrams.ts";

/** Rows of one segment: building one takes some 20 ms, and is the longest that a change can hold up the server. */
const SEGMENT_ROWS = 1 << 14;
const SEGMENT_WORDS = SEGMENT_ROWS / BITS;
/** Rows of a segment whose texts changed since it was built are looked at one by one; with more it is built anew. */
const LOOSE_MAX = 2_048;
/** Words whose rows are kept at hand, an eighth of a byte a product each. */
const WORDS_CACHED_MAX = 64;

/** The texts that are searched, by row. */
export interface SearchedTexts {
  /** Every row is below this. */
  readonly rows: number;
  isVisible(row: number): boolean;
  /** UTF-8, folded but for the case of ASCII letters. */
  searchableName(row: number): Bytes;
  searchableId(row: number): Bytes;
  /** Whether one of the two has a folded word in it. */
  hasWord(row: number, word: Uint8Array): boolean;
}

interface Found {
  readonly word: Uint8Array;
  readonly rows: RowSet;
}

/**
 * Finds the rows whose name or ID has a word in it, anywhere. Rows are indexed by trigrams in segments that never
 * change; a row whose text changed is loose until its segment is built anew. Small catalogs have loose rows only.
 */
export class TextIndex {
  readonly #texts: SearchedTexts;
  readonly #segments: (TrigramSegment | undefined)[] = [];
  /** Of each segment, how many rows are loose. */
  readonly #looseCounts: number[] = [];
  readonly #loose = new RowSet();
  #writer: TrigramWriter | undefined;
  /** Least recently used first. */
  readonly #cache = new Map<string, Found>();
  readonly #bits = new Uint32Array(SEGMENT_WORDS);
  readonly #spareBits = new Uint32Array(SEGMENT_WORDS);

  constructor(texts: SearchedTexts) {
    this.#texts = texts;
  }

  /** The row has appeared, or its text is another one. */
  update(row: number): void {
    for (const { word, rows } of this.#cache.values()) {
      rows.set(row, this.#texts.hasWord(row, word));
    }
    const segment = this.#loosen(row);
    if ((this.#looseCounts[segment] ?? 0) > LOOSE_MAX && this.#isFull(segment)) {
      this.#build(segment);
    }
  }

  /** The row is about to vanish. */
  remove(row: number): void {
    for (const { rows } of this.#cache.values()) {
      rows.set(row, false);
    }
    this.#loosen(row);
  }

  /** The visible rows that have all of the words, one at least. Words are folded, and without white space. */
  find(words: readonly string[]): RowSet {
    const [first, ...others] = words.map((word) => this.#find(word));
    if (first === undefined || others.length === 0) {
      return first ?? new RowSet();
    }
    const found = first.copy();
    for (const other of others) {
      found.keepIn(other);
    }
    return found;
  }

  /** What the row's segment says of it counts no more. Returns the segment. */
  #loosen(row: number): number {
    const segment = Math.floor(row / SEGMENT_ROWS);
    if (!this.#loose.has(row)) {
      this.#loose.set(row, true);
      this.#looseCounts[segment] = (this.#looseCounts[segment] ?? 0) + 1;
    }
    return segment;
  }

  #find(text: string): RowSet {
    const found = this.#cache.get(text) ?? this.#search(bytesOf(text).bytes);
    this.#cache.delete(text);
    this.#cache.set(text, found);
    if (this.#cache.size > WORDS_CACHED_MAX) {
      for (const oldest of this.#cache.keys()) {
        this.#cache.delete(oldest);
        break;
      }
    }
    return found.rows;
  }

  #search(word: Uint8Array): Found {
    const texts = this.#texts;
    const rows = new RowSet(texts.rows);
    const exact = isExact(word);
    for (const [number, segment] of this.#segments.entries()) {
      if (segment !== undefined) {
        const start = number * SEGMENT_ROWS;
        this.#bits.fill(0);
        segment.find(word, this.#bits, this.#spareBits);
        rows.setAll(start, this.#bits);
        rows.dropIn(this.#loose, start, start + SEGMENT_ROWS);
      }
    }
    if (!exact) {
      rows.forEach((row) => {
        if (!texts.hasWord(row, word)) {
          rows.set(row, false);
        }
      });
    }
    this.#loose.forEach((row) => {
      if (texts.isVisible(row) && texts.hasWord(row, word)) {
        rows.set(row, true);
      }
    });
    return { rows, word };
  }

  /** Whether no row will be added behind those of the segment. */
  #isFull(segment: number): boolean {
    return this.#texts.rows >= (segment + 1) * SEGMENT_ROWS;
  }

  #build(segment: number): void {
    const texts = this.#texts;
    const start = segment * SEGMENT_ROWS;
    this.#writer ??= new TrigramWriter();
    for (let row = start; row < start + SEGMENT_ROWS; row++) {
      if (texts.isVisible(row)) {
        this.#writer.add(texts.searchableName(row));
        this.#writer.add(texts.searchableId(row));
      }
      this.#writer.endText();
    }
    this.#segments[segment] = this.#writer.finish();
    this.#loose.clear(start, start + SEGMENT_ROWS);
    this.#looseCounts[segment] = 0;
  }
}
