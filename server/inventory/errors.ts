/** One field that broke one rule: the field's path in the request, and the value met with its bound. */
export interface FieldViolation {
  readonly field: string;
  readonly description: string;
}

/** One product of which fewer units are available than were asked for. */
export interface ShortLine {
  readonly productId: string;
  readonly requested: number;
  readonly available: number;
}

/**
 * Everything that can go wrong in the domain, as a closed union. `rpc/errors.ts` has the one table
 * from these codes to the wire.
 *
 * - `INVALID_INPUT`: the request breaks a bound; `violations` names each field.
 * - `PRODUCT_UNKNOWN`: no such product, or it is deleted.
 * - `RESERVATION_UNKNOWN`: no such reservation, or it ended longer ago than the retention.
 * - `ID_REUSED`: the caller's ID stands for an operation with another content.
 * - `VERSION_MISMATCH`: the product is not at the version that the caller expected.
 * - `STOCK_SHORT`: fewer units are available than asked for; `shortage` names the lines.
 * - `STOCK_OUT_OF_RANGE`: the change would take on hand below 0 or above the int32 maximum.
 * - `RESERVATION_ENDED`: the reservation's state does not allow the operation.
 * - `RETURN_TOO_LARGE`: more units would be returned than were committed.
 * - `STORE_UNAVAILABLE`: the store did not answer; a mutation may or may not have happened. Safe to retry.
 * - `OVERLOADED`: a named limit of this server is reached; nothing happened. Retry later.
 */
export type InventoryErrorCode =
  | "INVALID_INPUT"
  | "PRODUCT_UNKNOWN"
  | "RESERVATION_UNKNOWN"
  | "ID_REUSED"
  | "VERSION_MISMATCH"
  | "STOCK_SHORT"
  | "STOCK_OUT_OF_RANGE"
  | "RESERVATION_ENDED"
  | "RETURN_TOO_LARGE"
  | "STORE_UNAVAILABLE"
  | "OVERLOADED";

interface InventoryErrorOptions {
  readonly violations?: readonly FieldViolation[];
  readonly shortage?: readonly ShortLine[];
  /** For the log. It never reaches a caller. */
  readonly cause?: unknown;
}

/** The domain's one error. Its message says the action and the value met, and is fit for a caller. */
export class InventoryError extends Error {
  override readonly name = "InventoryError";
  readonly code: InventoryErrorCode;
  readonly violations: readonly FieldViolation[];
  readonly shortage: readonly ShortLine[];

  constructor(code: InventoryErrorCode, message: string, options: InventoryErrorOptions = {}) {
    super(message, { cause: options.cause });
    this.code = code;
    this.violations = options.violations ?? [];
    this.shortage = options.shortage ?? [];
  }
}
