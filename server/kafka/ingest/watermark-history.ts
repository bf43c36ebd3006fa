/** Entries beyond this number are thinned out, which makes ages less exact. */
const ENTRIES_MAX = 1_000;

/**
 * The end of a partition over time, from which follows when a record was written. The timestamps of records do not tell
 * that: producers set them.
 */
export class WatermarkHistory {
  /** In order. `end` is the offset after the last record at `time`, ms since 1970. */
  #entries: { readonly end: bigint; readonly time: number }[] = [];

  /** The time of the oldest entry. */
  get since(): number {
    return this.#entries[0]?.time ?? Date.now();
  }

  add(end: bigint, time: number): void {
    const last = this.#entries.at(-1);
    if (last !== undefined && end < last.end) {
      // The topic was created again, or its log was truncated.
      this.#entries = [];
    }
    if (last?.end === end) {
      return;
    }
    this.#entries.push({ end, time });
    if (this.#entries.length > ENTRIES_MAX) {
      this.#entries = this.#entries.filter((_, index) => index % 2 === 0);
    }
  }

  /** Drops what is not needed for records from `offset` on. */
  forgetBefore(offset: bigint): void {
    const firstAfter = this.#entries.findIndex(({ end }) => end > offset);
    const from = firstAfter === -1 ? this.#entries.length - 1 : firstAfter - 1;
    this.#entries.splice(0, Math.max(0, from));
  }

  /** When the record at `offset` was first seen, within one poll; `undefined` if it was there before the first entry. */
  writtenAt(offset: bigint): number | undefined {
    const first = this.#entries.find(({ end }) => end > offset);
    return first === this.#entries[0] ? undefined : first?.time;
  }
}
