import { type FieldViolation, InventoryError, type ShortLine, withoutStack } from "./errors.ts";
import { QUANTITY_MAX, UPDATE_AHEAD_MS_MAX } from "./ledger.ts";
import type { EventTime } from "./product-event.ts";
import type { Line, ReservationState } from "./reservation.ts";
import { timeText } from "./time-text.ts";
import { invalidInput, show } from "./validation.ts";

// The errors that both stores reject with, so that code and message are the same.

export function productUnknown(productId: string): InventoryError {
  return new InventoryError("PRODUCT_UNKNOWN", `There is no product ${show(productId)}`);
}

export function idReused(field: string, id: string): InventoryError {
  return new InventoryError(
    "ID_REUSED",
    `${field} ${show(id)} belongs to an earlier operation with other content; use a new ID for a new operation`,
    { refusal: "reused" },
  );
}

export function versionMismatch(productId: string, expected: bigint, actual: number): InventoryError {
  return new InventoryError(
    "VERSION_MISMATCH",
    `Cannot count ${show(productId)} at version ${expected}: the current version is ${actual}; read the product again`,
    { refusal: "version", actual: { version: actual } },
  );
}

export function onHandOutOfRange(productId: string, delta: number, onHandNow: number): InventoryError {
  return new InventoryError(
    "STOCK_OUT_OF_RANGE",
    `Cannot adjust ${show(productId)} by ${delta}: ${onHandNow} are on hand, and the result must be 0 to ${QUANTITY_MAX}`,
    { refusal: "range", actual: { onHand: onHandNow } },
  );
}

export function declaredOutOfRange(productId: string, declared: number, onHandAfter: number): InventoryError {
  return new InventoryError(
    "STOCK_OUT_OF_RANGE",
    `Cannot declare ${declared} of ${show(productId)}: on hand would be ${onHandAfter}, and on hand and shortfall must be at most ${QUANTITY_MAX}`,
    { refusal: "range", actual: { onHandAfter } },
  );
}

/** `event` is the one whose update time is too far ahead. */
export function updateTooFarAhead(event: EventTime, nowMs: number): InventoryError {
  const { updateTimeMicros = 0, updateTimeText = timeText(updateTimeMicros) } = event;
  return invalidInput([
    {
      field: "update_time",
      description:
        `is ${updateTimeText}, more than ${UPDATE_AHEAD_MS_MAX / 60_000} minutes ahead of the store's clock ` +
        `(${timeText(nowMs * 1_000)})`,
    },
  ]);
}

export function stockShort(shortage: readonly ShortLine[]): InventoryError {
  const lines = shortage.map(
    (line) => `${line.requested} of ${show(line.productId)}: ${line.available} are available`,
  );
  const message = `Cannot reserve ${lines.join("; ")}`;
  return withoutStack(() => new InventoryError("STOCK_SHORT", message, { shortage, refusal: "short" }));
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
    { refusal: state },
  );
}

export function releasedBeforeReserved(reservationId: string): InventoryError {
  return new InventoryError(
    "RESERVATION_ENDED",
    `Cannot reserve under ${show(reservationId)}: the ID has already been released`,
    { refusal: "released" },
  );
}

/** A commit of more units of a product than the `held` ones. `lines` are those of the request, as sent. */
export function commitTooLarge(lines: readonly Line[], productId: string, held: number): InventoryError {
  return invalidInput(violationsOfTotal(lines, productId, `${held} of ${show(productId)} are held`));
}

/** A commit or return of a product that is not in the reservation. `lines` are those of the request, as sent. */
export function notInReservation(lines: readonly Line[], productId: string): InventoryError {
  const description = `is ${show(productId)}, which is not in the reservation`;
  return invalidInput(
    lines.flatMap((line, index) =>
      line.productId === productId ? [{ field: `lines[${index}].product_id`, description }] : [],
    ),
  );
}

/** One violation for each line of the product, with its quantity as sent: together they exceed `bound`. */
export function violationsOfTotal(
  lines: readonly Line[],
  productId: string,
  bound: string,
): FieldViolation[] {
  const ofProduct = [...lines.entries()].filter(([, line]) => line.productId === productId);
  const total = ofProduct.reduce((sum, [, { quantity }]) => sum + quantity, 0);
  const inTotal = ofProduct.length > 1 ? `, and the lines of ${show(productId)} have ${total} in total` : "";
  return ofProduct.map(([index, { quantity }]) => ({
    field: `lines[${index}].quantity`,
    description: `is ${quantity}${inTotal}; ${bound}`,
  }));
}

export function returnOutOfRange(productId: string, quantity: number, onHandNow: number): InventoryError {
  return new InventoryError(
    "STOCK_OUT_OF_RANGE",
    `Cannot return ${quantity} of ${show(productId)}: ${onHandNow} are on hand, and the result must be at most ${QUANTITY_MAX}`,
    { refusal: "range", actual: { productId, onHand: onHandNow } },
  );
}

export function returnTooLarge(productId: string, quantity: number, left: number): InventoryError {
  return new InventoryError(
    "RETURN_TOO_LARGE",
    `Cannot return ${quantity} of ${show(productId)}: ${left} are committed and not yet returned`,
    { refusal: "return_too_large", actual: { productId, left } },
  );
}
