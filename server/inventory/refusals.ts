import { InventoryError } from "./errors.ts";
import { QUANTITY_MAX, UPDATE_AHEAD_MS_MAX } from "./ledger.ts";
import { invalidInput, show } from "./validation.ts";

// The refusals that both stores give, so that they give them in the same words.

export function productUnknown(productId: string): InventoryError {
  return new InventoryError("PRODUCT_UNKNOWN", `There is no product ${show(productId)}`);
}

export function idReused(field: string, id: string): InventoryError {
  return new InventoryError(
    "ID_REUSED",
    `${field} ${show(id)} stands for an earlier operation with another content; give a new operation a new ID`,
  );
}

export function versionMismatch(productId: string, expected: number, actual: number): InventoryError {
  return new InventoryError(
    "VERSION_MISMATCH",
    `Cannot count ${show(productId)} at version ${expected}: it is at version ${actual}; read it again`,
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
