import { InventoryError, type ShortLine } from "./errors.ts";
import { QUANTITY_MAX, UPDATE_AHEAD_MS_MAX } from "./ledger.ts";
import type { ReservationState } from "./reservation.ts";
import { invalidInput, show } from "./validation.ts";

// The errors that both stores reject with, so that code and message are the same.

export function productUnknown(productId: string): InventoryError {
  return new InventoryError("PRODUCT_UNKNOWN", `There is no product ${show(productId)}`);
}

export function idReused(field: string, id: string): InventoryError {
  return new InventoryError(
    "ID_REUSED",
    `${field} ${show(id)} belongs to an earlier operation with other content; use a new ID for a new operation`,
  );
}

export function versionMismatch(productId: string, expected: number, actual: number): InventoryError {
  return new InventoryError(
    "VERSION_MISMATCH",
    `Cannot count ${show(productId)} at version ${expected}: the current version is ${actual}; read the product again`,
  );
}

export function onHandOutOfRange(productId: string, delta: number, onHandNow: number): InventoryError {
  return new InventoryError(
    "STOCK_OUT_OF_RANGE",
    `Cannot adjust ${show(productId)} by ${delta}: ${onHandNow} are on hand, and the result must be 0 to ${QUANTITY_MAX}`,
  );
}

export function updateTooFarAhead(field: string, updateTimeMicros: number, nowMs: number): InventoryError {
  return invalidInput([
    {
      field,
      description:
        `is ${new Date(updateTimeMicros / 1000).toISOString()}, ` +
        `more than ${UPDATE_AHEAD_MS_MAX / 60_000} minutes ahead of the store's clock (${new Date(nowMs).toISOString()})`,
    },
  ]);
}

export function stockShort(shortage: readonly ShortLine[]): InventoryError {
  const lines = shortage.map(
    (line) => `${line.requested} of ${show(line.productId)}: ${line.available} are available`,
  );
  return new InventoryError("STOCK_SHORT", `Cannot reserve ${lines.join("; ")}`, { shortage });
}

export function reservationUnknown(reservationId: string): InventoryError {
  return new InventoryError("RESERVATION_UNKNOWN", `There is no reservation ${show(reservationId)}`);
}

/** `action` as in "Cannot commit". */
export function reservationEnded(
  action: string,
  reservationId: string,
  state: ReservationState,
): InventoryError {
  return new InventoryError(
    "RESERVATION_ENDED",
    `Cannot ${action} reservation ${show(reservationId)}: it is ${state}`,
  );
}

export function releasedBeforeReserved(reservationId: string): InventoryError {
  return new InventoryError(
    "RESERVATION_ENDED",
    `Cannot reserve under ${show(reservationId)}: the ID has already been released`,
  );
}

/** A commit of `quantity` units of which `held` are held; 0 if the product is not in the reservation. */
export function commitTooLarge(
  index: number,
  productId: string,
  quantity: number,
  held: number,
): InventoryError {
  return invalidInput([
    held === 0
      ? {
          field: `lines[${index}].product_id`,
          description: `is ${show(productId)}, which is not in the reservation`,
        }
      : {
          field: `lines[${index}].quantity`,
          description: `is ${quantity}; ${held} of ${show(productId)} are held`,
        },
  ]);
}

export function returnOfOther(index: number, productId: string): InventoryError {
  return invalidInput([
    {
      field: `lines[${index}].product_id`,
      description: `is ${show(productId)}, which is not in the reservation`,
    },
  ]);
}

export function returnTooLarge(productId: string, quantity: number, left: number): InventoryError {
  return new InventoryError(
    "RETURN_TOO_LARGE",
    `Cannot return ${quantity} of ${show(productId)}: ${left} are committed and not yet returned`,
  );
}
