import { InventoryError, type InventoryErrorCode } from "../../server/inventory/errors.ts";
import type { Ledger } from "../../server/inventory/ledger.ts";
import type { Line, Reservation } from "../../server/inventory/reservation.ts";
import type { InventoryStore } from "../../server/inventory/store.ts";

/** One call of the store's contract as data, for programs and histories. */
export type Call =
  | {
      readonly kind: "put";
      readonly productId: string;
      readonly declared: number | undefined;
      readonly micros: number;
    }
  | { readonly kind: "delete"; readonly productId: string; readonly micros: number }
  | {
      readonly kind: "count";
      readonly productId: string;
      readonly count: number;
      readonly expectedVersion: number | undefined;
      readonly countId: string;
    }
  | {
      readonly kind: "adjust";
      readonly productId: string;
      readonly delta: number;
      readonly adjustmentId: string;
    }
  | { readonly kind: "safety"; readonly productId: string; readonly safety: number }
  | { readonly kind: "ledger" | "stock"; readonly productId: string }
  | {
      readonly kind: "reserve";
      readonly reservationId: string;
      readonly lines: readonly Line[];
      readonly ttlMs: number;
    }
  | {
      readonly kind: "commit";
      readonly reservationId: string;
      readonly lines: readonly Line[] | undefined;
      readonly strict: boolean;
    }
  | { readonly kind: "release" | "get"; readonly reservationId: string }
  | { readonly kind: "extend"; readonly reservationId: string; readonly ttlMs: number }
  | {
      readonly kind: "return";
      readonly reservationId: string;
      readonly returnId: string;
      readonly lines: readonly Line[];
    };

/** Sends a call to a store. */
export async function send(store: InventoryStore, call: Call): Promise<unknown> {
  const { reservations } = store;
  switch (call.kind) {
    case "put": {
      const { productId, declared, micros } = call;
      return store.putProduct({ productId, declared, details: undefined, updateTimeMicros: micros });
    }
    case "delete":
      return store.deleteProduct({ productId: call.productId, updateTimeMicros: call.micros });
    case "count":
      return store.countStock({
        ...call,
        expectedVersion: call.expectedVersion === undefined ? undefined : BigInt(call.expectedVersion),
        reason: "",
      });
    case "adjust":
      return store.adjustStock({ ...call, reason: "" });
    case "safety":
      return store.setSafetyStock(call.productId, call.safety);
    case "ledger":
      return store.getLedger(call.productId);
    case "stock":
      return store.getStock(call.productId);
    case "reserve":
      return reservations.reserve(call);
    case "commit":
      return reservations.commit(call);
    case "release":
      return reservations.release(call.reservationId);
    case "get":
      return reservations.get(call.reservationId);
    case "extend":
      return reservations.extend(call.reservationId, call.ttlMs);
    case "return":
      return reservations.return(call);
  }
}

/** An error, reduced to the parts that the specification defines. */
export interface Refusal {
  readonly code: InventoryErrorCode;
  /** Product, units requested, units available. */
  readonly short: readonly (readonly [string, number, number])[];
}

/** The parts of a ledger that the specification defines. */
export type Numbers = Omit<Ledger, "productId" | "declareTimeMicros">;

/**
 * The result of a call as comparable text. Times are omitted, because the specification does not
 * define them. The functions below format results of stores and of the specification alike.
 */
export type Result = string;

export function reservationText(reservation: {
  readonly state: string;
  readonly lines: readonly Line[];
  readonly committedLines: readonly Line[];
  readonly revived: boolean;
}): Result {
  const { state, lines, committedLines, revived } = reservation;
  const pairs = (all: readonly Line[]) => all.map((line) => [line.productId, line.quantity]);
  return JSON.stringify({ state, lines: pairs(lines), sold: pairs(committedLines), revived });
}

export function ledgerText(ledger: Numbers, applied?: boolean): Result {
  const { declared, adjusted, sold, reserved, safety, version, deleted } = ledger;
  return JSON.stringify({ applied, declared, adjusted, sold, reserved, safety, version, deleted });
}

export function stockText(stock: { readonly available: number; readonly version: number }): Result {
  return JSON.stringify({ available: stock.available, version: stock.version });
}

export function refusalText({ code, short }: Refusal): Result {
  return JSON.stringify(short.length > 0 ? { code, short } : { code });
}

/** Sends a call and formats its result or error. Rejects with errors other than `InventoryError`. */
export async function ask(store: InventoryStore, call: Call): Promise<Result> {
  try {
    return inWords(call, await send(store, call));
  } catch (error) {
    if (!(error instanceof InventoryError)) {
      throw error;
    }
    const { code, shortage } = error;
    const short = shortage.map(
      (line) => [line.productId, line.requested, line.available] satisfies [string, number, number],
    );
    return refusalText({ code, short });
  }
}

function inWords(call: Call, value: unknown): Result {
  switch (call.kind) {
    case "put":
    case "delete": {
      const { applied, ledger } = value as { applied: boolean; ledger: Ledger };
      return ledgerText(ledger, applied);
    }
    case "count":
    case "adjust":
    case "safety":
    case "ledger":
      return ledgerText(value as Ledger);
    case "stock":
      return stockText(value as { available: number; version: number });
    default:
      return reservationText(value as Reservation);
  }
}
