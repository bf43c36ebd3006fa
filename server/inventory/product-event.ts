import type { ChangeCause, Ledger, ProductDetails } from "./ledger.ts";

/** The time of a seller's event. */
export interface EventTime {
  /** U: the seller's time of the update, µs since 1970. The store's clock if absent. */
  readonly updateTimeMicros: number | undefined;
  /** The same time as it was sent, which may be more precise. Quoted in errors. */
  readonly updateTimeText?: string | undefined;
}

/** A seller's create or update. An absent part keeps its current value. */
export interface ProductUpsert extends EventTime {
  readonly productId: string;
  readonly details: ProductDetails | undefined;
  /** Units supplied in total, as the seller counts them. */
  readonly declared: number | undefined;
}

/** A seller's deletion. */
export interface ProductDelete extends EventTime {
  readonly productId: string;
}

/**
 * The seller's data of one product, as last-writer-wins registers, each with its own fence:
 * declared stock, details, and existence. With one fence for all three, events would not commute:
 * an edit without a stock number would exclude an older event that has one, so the order of arrival
 * would decide the ledger (docs/decisions/0003-registers-and-fences.md).
 *
 * Register semantics after Shapiro et al., "A comprehensive study of Convergent and Commutative
 * Replicated Data Types", INRIA RR-7506 (2011), specification 8 (LWW-Register).
 */
export interface ProductRegisters {
  readonly declared: number;
  readonly declareTimeMicros: number | undefined;
  readonly details: ProductDetails | undefined;
  readonly detailsTimeMicros: number | undefined;
  /** Time of the newest create or update. Absent if there was none. */
  readonly upsertTimeMicros: number | undefined;
  /** Time of the newest deletion. Absent if there was none. */
  readonly deleteTimeMicros: number | undefined;
}

/** The registers of a product before its first event. */
export const EMPTY_REGISTERS: ProductRegisters = {
  declared: 0,
  declareTimeMicros: undefined,
  details: undefined,
  detailsTimeMicros: undefined,
  upsertTimeMicros: undefined,
  deleteTimeMicros: undefined,
};

/** True if the product is deleted or was never created. A deletion wins over an update of the same microsecond. */
export function isDeleted(
  registers: Pick<ProductRegisters, "upsertTimeMicros" | "deleteTimeMicros">,
): boolean {
  return (
    registers.upsertTimeMicros === undefined ||
    (registers.deleteTimeMicros !== undefined && registers.deleteTimeMicros >= registers.upsertTimeMicros)
  );
}

/** The effect of an event on the registers. */
export interface EventOutcome {
  readonly registers: ProductRegisters;
  /** False if the event was superseded by a newer update or deletion. */
  readonly applied: boolean;
  /** The cause to record. Absent if the event has no visible effect. */
  readonly cause: ChangeCause | undefined;
  /** Whether to record the details: they changed, or the product became visible. */
  readonly detailsChanged: boolean;
}

/**
 * Applies a create or update of time `at` (µs). A newer event wins. At the same time the smaller declared count wins,
 * and the details stay.
 */
export function applyUpsert(
  before: ProductRegisters,
  event: Pick<ProductUpsert, "details" | "declared">,
  at: number,
): EventOutcome {
  const declaredFence = before.declareTimeMicros ?? -1;
  const detailsFence = before.detailsTimeMicros ?? -1;
  const upsertFence = before.upsertTimeMicros ?? -1;
  let { declared, declareTimeMicros, details, detailsTimeMicros } = before;
  if (event.declared !== undefined && at >= declaredFence) {
    declared = at === declaredFence ? Math.min(declared, event.declared) : event.declared;
    declareTimeMicros = at;
  }
  if (event.details !== undefined && at > detailsFence) {
    details = event.details;
    detailsTimeMicros = at;
  }
  const registers: ProductRegisters = {
    declared,
    declareTimeMicros,
    details,
    detailsTimeMicros,
    upsertTimeMicros: Math.max(at, upsertFence),
    deleteTimeMicros: before.deleteTimeMicros,
  };
  const won =
    (event.declared !== undefined && at >= declaredFence) ||
    (event.details !== undefined && at >= detailsFence) ||
    (event.declared === undefined && event.details === undefined && at >= upsertFence);
  const appeared = isDeleted(before) && !isDeleted(registers);
  // The details of a deleted product are not visible. They are recorded when the product becomes visible again.
  const detailsChanged = !isDeleted(registers) && !sameDetails(before.details, details);
  const declaredChanged = declared !== before.declared;
  const visible =
    appeared || declaredChanged || detailsChanged || declareTimeMicros !== before.declareTimeMicros;
  return {
    registers,
    applied: won && !isDeleted(registers),
    cause: visible ? (detailsChanged && !declaredChanged && !appeared ? "details" : "declared") : undefined,
    detailsChanged: detailsChanged || appeared,
  };
}

/** Applies a deletion of time `at` (µs). Its time is kept, so that a delayed older update does not restore the product. */
export function applyDelete(before: ProductRegisters, at: number): EventOutcome {
  const registers: ProductRegisters = {
    ...before,
    deleteTimeMicros: Math.max(at, before.deleteTimeMicros ?? -1),
  };
  const neverSeen = before.upsertTimeMicros === undefined && before.deleteTimeMicros === undefined;
  const vanished = neverSeen || (!isDeleted(before) && isDeleted(registers));
  return {
    registers,
    applied: at >= (before.upsertTimeMicros ?? -1) && at >= (before.deleteTimeMicros ?? -1),
    cause: vanished ? "deleted" : undefined,
    detailsChanged: false,
  };
}

/** The result of a product event. */
export interface PutResult {
  readonly applied: boolean;
  readonly ledger: Ledger;
}

function sameDetails(a: ProductDetails | undefined, b: ProductDetails | undefined): boolean {
  return (
    a === b ||
    (a !== undefined &&
      b !== undefined &&
      a.name === b.name &&
      a.description === b.description &&
      a.price === b.price &&
      a.collectionId === b.collectionId)
  );
}
