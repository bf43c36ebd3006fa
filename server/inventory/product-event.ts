import type { Acting } from "./actor.ts";
import { compareDeliveries, type Delivery } from "./delivery.ts";
import type { ChangeCause, Ledger, ProductDetails } from "./ledger.ts";

/** The time of a seller's event. */
export interface EventTime {
  /** U: the seller's time of the update, µs since 1970. The store's clock if absent. */
  readonly updateTimeMicros: number | undefined;
  /** The same time as it was sent, which may be more precise. Quoted in errors. */
  readonly updateTimeText?: string | undefined;
  /** The place of the event's message, which decides between events of the same time. Absent for a call. */
  readonly delivery?: Delivery | undefined;
}

/** A seller's create or update. An absent part keeps its current value. */
export interface ProductUpsert extends EventTime, Acting {
  readonly productId: string;
  readonly details: ProductDetails | undefined;
  /** Units supplied in total, as the seller counts them. */
  readonly declared: number | undefined;
}

/** A seller's deletion. */
export interface ProductDelete extends EventTime, Acting {
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
  /** The place of the message that declared the stock. Absent if a call did. */
  readonly declareDelivery: Delivery | undefined;
  readonly details: ProductDetails | undefined;
  readonly detailsTimeMicros: number | undefined;
  readonly detailsDelivery: Delivery | undefined;
  /** Time of the newest create or update. Absent if there was none. */
  readonly upsertTimeMicros: number | undefined;
  /** Time of the newest deletion. Absent if there was none. */
  readonly deleteTimeMicros: number | undefined;
}

/** The registers of a product before its first event. */
export const EMPTY_REGISTERS: ProductRegisters = {
  declared: 0,
  declareTimeMicros: undefined,
  declareDelivery: undefined,
  details: undefined,
  detailsTimeMicros: undefined,
  detailsDelivery: undefined,
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
export interface RegisterUpdate {
  readonly registers: ProductRegisters;
  /** False if the event was superseded by a newer update or deletion. */
  readonly applied: boolean;
  /** True if the event was applied, and a number, the details or a time differ from before. */
  readonly changed: boolean;
  /** The cause to record. Absent if the event has no visible effect. */
  readonly cause: ChangeCause | undefined;
  /** Whether to record the details: they changed, or the product became visible. */
  readonly detailsChanged: boolean;
}

/**
 * Applies a create or update of time `at` (µs). A newer event wins. At the same time the later delivery wins. Between two
 * calls at the same time the smaller declared count wins, and the details stay.
 */
export function applyUpsert(
  before: ProductRegisters,
  event: Pick<ProductUpsert, "details" | "declared" | "delivery">,
  at: number,
): RegisterUpdate {
  const { delivery } = event;
  const upsertFence = before.upsertTimeMicros ?? -1;
  /** Above 0 if the event is later than the register, 0 if both have the same place. */
  const place = (fence: number | undefined, known: Delivery | undefined): number =>
    at - (fence ?? -1) || compareDeliveries(delivery, known);
  const declaredPlace = place(before.declareTimeMicros, before.declareDelivery);
  const detailsPlace = place(before.detailsTimeMicros, before.detailsDelivery);
  let { declared, declareTimeMicros, declareDelivery, details, detailsTimeMicros, detailsDelivery } = before;
  if (event.declared !== undefined && declaredPlace >= 0) {
    declared = declaredPlace === 0 ? Math.min(declared, event.declared) : event.declared;
    [declareTimeMicros, declareDelivery] = [at, delivery];
  }
  if (event.details !== undefined && detailsPlace > 0) {
    details = event.details;
    [detailsTimeMicros, detailsDelivery] = [at, delivery];
  }
  const registers: ProductRegisters = {
    declared,
    declareTimeMicros,
    declareDelivery,
    details,
    detailsTimeMicros,
    detailsDelivery,
    upsertTimeMicros: Math.max(at, upsertFence),
    deleteTimeMicros: before.deleteTimeMicros,
  };
  const won =
    (event.declared !== undefined && declaredPlace >= 0) ||
    (event.details !== undefined && detailsPlace >= 0) ||
    (event.declared === undefined && event.details === undefined && at >= upsertFence);
  const appeared = isDeleted(before) && !isDeleted(registers);
  // The details of a deleted product are not visible. They are recorded when the product becomes visible again.
  const detailsChanged = !isDeleted(registers) && !sameDetails(before.details, details);
  const declaredChanged = declared !== before.declared;
  const visible =
    appeared || declaredChanged || detailsChanged || declareTimeMicros !== before.declareTimeMicros;
  const applied = won && !isDeleted(registers);
  const moved =
    detailsTimeMicros !== before.detailsTimeMicros || registers.upsertTimeMicros !== before.upsertTimeMicros;
  return {
    registers,
    applied,
    changed: applied && (visible || moved),
    cause: visible ? (detailsChanged && !declaredChanged && !appeared ? "details" : "declared") : undefined,
    detailsChanged: detailsChanged || appeared,
  };
}

/** Applies a deletion of time `at` (µs). Its time is kept, so that a delayed older update does not restore the product. */
export function applyDelete(before: ProductRegisters, at: number): RegisterUpdate {
  const registers: ProductRegisters = {
    ...before,
    deleteTimeMicros: Math.max(at, before.deleteTimeMicros ?? -1),
  };
  const applied = at >= (before.upsertTimeMicros ?? -1) && at >= (before.deleteTimeMicros ?? -1);
  const neverSeen = before.upsertTimeMicros === undefined && before.deleteTimeMicros === undefined;
  const vanished = neverSeen || (!isDeleted(before) && isDeleted(registers));
  return {
    registers,
    applied,
    changed: applied && registers.deleteTimeMicros !== before.deleteTimeMicros,
    cause: vanished ? "deleted" : undefined,
    detailsChanged: false,
  };
}

/** The result of a product event. */
export interface PutResult {
  /** False if the event was superseded by a newer update or deletion. */
  readonly applied: boolean;
  /** False if the event was superseded, or repeats what is known. */
  readonly changed: boolean;
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
