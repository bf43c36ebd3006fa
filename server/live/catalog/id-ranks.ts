import type { ProductTable } from "../products/product-table.ts";
import { compareBytes } from "../products/text-order.ts";

/** The row has no rank. */
const NONE = 0;
/** Minimum number of rows without a rank, and their share of all rows, at which all are ranked again. */
const UNRANKED_MIN = 1_000;
const UNRANKED_SHARE = 1 / 16;

/**
 * The order of product IDs as numbers. Many products have the same key, such as the same number of available units, and
 * their IDs decide; comparing numbers saves reading two texts. Products that became visible since the last ranking have no
 * rank, and are compared by their IDs.
 */
export class IdRanks {
  readonly #table: ProductTable;
  #ranks = new Uint32Array(0);
  #unranked = 0;

  constructor(table: ProductTable) {
    this.#table = table;
  }

  /** Whether so many products have no rank that ranking all of them again pays. */
  get isOutdated(): boolean {
    return this.#unranked > Math.max(UNRANKED_MIN, this.#ranks.length * UNRANKED_SHARE);
  }

  /** Compares the IDs of two visible products. */
  readonly compare = (a: number, b: number): number => {
    if (a === b) {
      return 0;
    }
    const [rankOfA, rankOfB] = [this.#ranks[a] as number, this.#ranks[b] as number];
    return rankOfA !== NONE && rankOfB !== NONE
      ? rankOfA - rankOfB
      : compareBytes(this.#table.idBytes(a), this.#table.idBytes(b));
  };

  /** Ranks all visible products. `rowsById`: their rows, sorted by ID. */
  assign(rowsById: Uint32Array): void {
    this.#reserve(this.#table.rows);
    this.#unranked = 0;
    for (let at = 0; at < rowsById.length; at++) {
      this.#ranks[rowsById[at] as number] = NONE + 1 + at;
    }
  }

  /** A product became visible. */
  add(row: number): void {
    this.#reserve(row + 1);
    this.#unranked += 1;
  }

  /** A product became invisible. Its row may be used for another one. */
  remove(row: number): void {
    this.#unranked -= this.#ranks[row] === NONE ? 1 : 0;
    this.#ranks[row] = NONE;
  }

  #reserve(rows: number): void {
    if (this.#ranks.length < rows) {
      const ranks = new Uint32Array(Math.ceil(rows * 1.5));
      ranks.set(this.#ranks);
      this.#ranks = ranks;
    }
  }
}
