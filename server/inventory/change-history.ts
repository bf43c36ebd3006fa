import type { StockChange } from "./ledger.ts";
import { compareIds } from "./reservation.ts";

/** Changes of a product that are kept by default. */
export const CHANGES_KEPT_DEFAULT = 100;
export const CHANGES_KEPT_MAX = 10_000;

/** Returns of a reservation that its record names. The IDs of further ones are dropped, oldest first. */
export const RETURNS_NAMED_MAX = 100;

/**
 * Changes that the record of an ID names: those of counts, adjustments and returns that share the ID and the bucket. The
 * oldest are dropped. Above the lines of one return (`RESERVATION_LINES_MAX`).
 */
export const CORRECTIONS_NAMED_MAX = 256;

/** Changes read at once from a product's history, and products read at once. Together they bound the memory of a search. */
const CHANGES_PER_READ = 500;
const PRODUCTS_AT_ONCE = 8;
/** Single changes of counts, adjustments and returns that are read at once. */
const CORRECTIONS_AT_ONCE = 64;

/** A place in a product's history. */
export interface ChangeKey {
  readonly productId: string;
  readonly version: number;
}

/** A place in the changes of a reference, which are ordered by time. */
export interface ChangePosition extends ChangeKey {
  readonly changeTimeMs: number;
}

/** The changes of a reservation, count, adjustment or return. */
export interface ReferenceQuery {
  readonly referenceId: string;
  /** Only changes of this product. */
  readonly productId: string | undefined;
}

export interface ReferencePage {
  readonly limit: number;
  /** The position after which the page starts. */
  readonly after: ChangePosition | undefined;
}

/** Newest first: by time, then by product ID, then by version. */
export interface ReferenceChanges {
  readonly changes: readonly StockChange[];
  /** Whether the reference may have made changes that are not kept. */
  readonly truncated: boolean;
}

/** What the record of a reservation says about its changes. */
export interface ReservationTrace {
  readonly productIds: readonly string[];
  /** Its deadline. A commit after the expiry holds the units again, at a later time. */
  readonly expireTimeMs: number | undefined;
  /** The returns of its units, latest last. */
  readonly returnIds: readonly string[];
  /** Whether `returnIds` may lack some: they are too many, or a release that did not name them has accepted them. */
  readonly lacksReturns: boolean;
}

/** What the records under an ID say. Each is kept for the retention of operations. */
export interface ReferenceTrace {
  readonly reservation: ReservationTrace | undefined;
  /** The changes of the counts, adjustments and returns with this ID. `undefined` if there is no such record. */
  readonly corrections: readonly ChangeKey[] | undefined;
  /** Whether `corrections` may lack some: they are too many. */
  readonly lacksCorrections: boolean;
}

/** A part of a product's history, newest first. */
export interface HistoryPart {
  /** Without those that cannot be decoded. */
  readonly changes: readonly StockChange[];
  /** The lowest version read. `undefined` if there was nothing to read. */
  readonly oldestVersion: number | undefined;
  /** Whether nothing older is kept. */
  readonly isLast: boolean;
}

/** Reads up to `limit` changes below a version, or the newest ones. */
export type ReadHistory = (
  productId: string,
  beforeVersion: number | undefined,
  limit: number,
) => Promise<HistoryPart>;

/**
 * The changes of a reference. Those of a reservation are found in the histories of its products; the record of any other
 * operation names the versions that it made. With a product, its history is searched even if no record is left, or if it
 * names only the latest changes.
 *
 * A history is a gapless run of versions up to the newest, so the search of a reservation's product is complete once it
 * has met the change `reserved` before the deadline, the first one of the reservation, or version 1.
 */
export async function findChanges(
  { referenceId, productId }: ReferenceQuery,
  { limit, after }: ReferencePage,
  { reservation, corrections, lacksCorrections }: ReferenceTrace,
  read: ReadHistory,
): Promise<ReferenceChanges> {
  const isAsked = (id: string): boolean => productId === undefined || id === productId;
  const found = new Map<string, StockChange>();
  const add = (change: StockChange): void => {
    found.set(`${change.ledger.version} ${change.ledger.productId}`, change);
  };
  let truncated = reservation?.lacksReturns ?? false;

  const corrected = (corrections ?? []).filter((each) => isAsked(each.productId));
  for (let n = 0; n < corrected.length; n += CORRECTIONS_AT_ONCE) {
    const part = corrected.slice(n, n + CORRECTIONS_AT_ONCE);
    const parts = await Promise.all(part.map(({ productId, version }) => read(productId, version + 1, 1)));
    for (const [index, { version }] of part.entries()) {
      const change = parts[index]?.changes.find(({ ledger }) => ledger.version === version);
      if (change === undefined) {
        truncated = true;
      } else {
        add(change);
      }
    }
  }

  const lacksRecords = lacksCorrections || (reservation === undefined && corrections === undefined);
  const searched =
    lacksRecords && productId !== undefined ? [productId] : (reservation?.productIds ?? []).filter(isAsked);
  const ids = new Set([referenceId, ...(reservation?.returnIds ?? [])]);
  for (let n = 0; n < searched.length; n += PRODUCTS_AT_ONCE) {
    const part = searched.slice(n, n + PRODUCTS_AT_ONCE);
    const complete = await Promise.all(
      part.map((each) => search(each, referenceId, ids, reservation?.expireTimeMs, read, add)),
    );
    truncated ||= complete.includes(false);
  }
  truncated ||= lacksRecords && productId === undefined;

  const sorted = [...found.values()].sort((a, b) => compareChanges(positionOf(a), positionOf(b)));
  const rest =
    after === undefined ? sorted : sorted.filter((each) => compareChanges(positionOf(each), after) > 0);
  return { changes: rest.slice(0, limit), truncated };
}

export function positionOf({ changeTimeMs, ledger }: StockChange): ChangePosition {
  return { changeTimeMs, productId: ledger.productId, version: ledger.version };
}

/** Resolves with whether the search is complete. */
async function search(
  productId: string,
  referenceId: string,
  ids: ReadonlySet<string>,
  expireTimeMs: number | undefined,
  read: ReadHistory,
  add: (change: StockChange) => void,
): Promise<boolean> {
  let before: number | undefined;
  for (;;) {
    const { changes, oldestVersion, isLast } = await read(productId, before, CHANGES_PER_READ);
    for (const change of changes) {
      if (ids.has(change.referenceId)) {
        add(change);
      }
      const isFirst = change.changeTimeMs < (expireTimeMs ?? Number.POSITIVE_INFINITY);
      if (change.cause === "reserved" && change.referenceId === referenceId && isFirst) {
        return true;
      }
    }
    before = oldestVersion ?? before;
    if (isLast) {
      return before === 1;
    }
  }
}

function compareChanges(a: ChangePosition, b: ChangePosition): number {
  return b.changeTimeMs - a.changeTimeMs || compareIds(a.productId, b.productId) || b.version - a.version;
}
