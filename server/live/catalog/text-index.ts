import { BITS_PER_WORD, RowSet } from "../products/row-set.ts";
import { type Bytes, bytesOf } from "../products/text-order.ts";
import { isExact, type TrigramSegment, TrigramWriter } from "./trigrams.ts";

/** Rows per segment. Building one takes about 20 ms, the longest that a change blocks the event loop. */
const SEGMENT_ROWS = 1 << 14;
const SEGMENT_WORDS = SEGMENT_ROWS / BITS_PER_WORD;
/** Maximum number of unindexed rows of a segment. They are compared one by one; with more, the segment is rebuilt. */
const UNINDEXED_MAX = 2_048;
/** Maximum number of words whose result is cached. Each takes one bit per product. */
const WORDS_CACHED_MAX = 64;

/** The indexed texts, by row. */
export interface SearchedTexts {
  /** Every row in use is below this. */
  readonly rows: number;
  isVisible(row: number): boolean;
  /** UTF-8, folded, except that ASCII letters keep their case. */
  searchableName(row: number): Bytes;
  searchableId(row: number): Bytes;
  /** Whether one of the two contains a folded word. */
  hasWord(row: number, word: Uint8Array): boolean;
}

interface SearchResult {
  readonly word: Uint8Array;
  readonly rows: RowSet;
}

/**
 * Finds the rows whose name or ID contains a word. Trigram segments are immutable: a row whose text changed is
 * unindexed until its segment is rebuilt. Small catalogs have no segment, only unindexed rows.
 */
export class TextIndex {
  readonly #texts: SearchedTexts;
  readonly #segments: (TrigramSegment | undefined)[] = [];
  /** Number of unindexed rows by segment. */
  readonly #unindexedCounts: number[] = [];
  readonly #unindexed = new RowSet();
  #writer: TrigramWriter | undefined;
  /** Least recently used first. */
  readonly #cache = new Map<string, SearchResult>();
  readonly #bits = new Uint32Array(SEGMENT_WORDS);
  readonly #spareBits = new Uint32Array(SEGMENT_WORDS);

  constructor(texts: SearchedTexts) {
    this.#texts = texts;
  }

  /** The row became visible, or its text changed. */
  update(row: number): void {
    for (const { word, rows } of this.#cache.values()) {
      rows.set(row, this.#texts.hasWord(row, word));
    }
    const segment = this.#markUnindexed(row);
    if ((this.#unindexedCounts[segment] ?? 0) > UNINDEXED_MAX && this.#isFull(segment)) {
      this.#build(segment);
    }
  }

  /** The row is about to become invisible. */
  remove(row: number): void {
    for (const { rows } of this.#cache.values()) {
      rows.set(row, false);
    }
    this.#markUnindexed(row);
  }

  /** The visible rows that contain all of the words. At least one word; words are folded and have no white space. */
  find(words: readonly string[]): RowSet {
    const [first, ...others] = words.map((word) => this.#find(word));
    if (first === undefined || others.length === 0) {
      return first ?? new RowSet();
    }
    const found = first.copy();
    for (const other of others) {
      found.intersect(other);
    }
    return found;
  }

  /** Ignores the row's segment for this row from now on. Returns the segment. */
  #markUnindexed(row: number): number {
    const segment = Math.floor(row / SEGMENT_ROWS);
    if (!this.#unindexed.has(row)) {
      this.#unindexed.set(row, true);
      this.#unindexedCounts[segment] = (this.#unindexedCounts[segment] ?? 0) + 1;
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

  #search(word: Uint8Array): SearchResult {
    const texts = this.#texts;
    const rows = new RowSet(texts.rows);
    const exact = isExact(word);
    for (const [number, segment] of this.#segments.entries()) {
      if (segment !== undefined) {
        const start = number * SEGMENT_ROWS;
        this.#bits.fill(0);
        segment.find(word, this.#bits, this.#spareBits);
        rows.replace(start, this.#bits);
        rows.subtract(this.#unindexed, start, start + SEGMENT_ROWS);
      }
    }
    if (!exact) {
      rows.forEach((row) => {
        if (!texts.hasWord(row, word)) {
          rows.set(row, false);
        }
      });
    }
    this.#unindexed.forEach((row) => {
      if (texts.isVisible(row) && texts.hasWord(row, word)) {
        rows.set(row, true);
      }
    });
    return { rows, word };
  }

  /** Whether all rows of the segment are in use. */
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
    this.#unindexed.clear(start, start + SEGMENT_ROWS);
    this.#unindexedCounts[segment] = 0;
  }
}
