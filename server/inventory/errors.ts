/** One invalid field: its path in the request, and a description with the value received and the violated bound. */
export interface FieldViolation {
  readonly field: string;
  readonly description: string;
}

/** One product of which fewer units are available than requested. */
export interface ShortLine {
  readonly productId: string;
  readonly requested: number;
  readonly available: number;
  /** The version of the product at which this was so. */
  readonly version?: number | undefined;
}

/**
 * The error codes of the domain, as a closed union. `rpc/errors.ts` maps them to the wire.
 *
 * - `INVALID_INPUT`: the request violates a bound; `violations` names each field.
 * - `PRODUCT_UNKNOWN`: no such product, or it is deleted.
 * - `RESERVATION_UNKNOWN`: no such reservation, or it ended longer ago than the retention.
 * - `ID_REUSED`: the ID belongs to an earlier operation with other content.
 * - `VERSION_MISMATCH`: the product is not at the version that the caller expected.
 * - `STOCK_SHORT`: fewer units are available than requested; `shortage` names the lines.
 * - `STOCK_OUT_OF_RANGE`: the change would take on hand below 0 or above the int32 maximum.
 * - `RESERVATION_ENDED`: the reservation's state does not allow the operation.
 * - `RETURN_TOO_LARGE`: more units would be returned than were committed.
 * - `STORE_UNAVAILABLE`: the store did not respond. Whether a mutation was applied is unknown. Safe to retry.
 * - `OVERLOADED`: a named limit of this server is reached; nothing was applied. Retry later.
 * - `RECORD_DAMAGED`: the store cannot read a record that the operation needs; nothing was applied. An operator has to
 *   repair it.
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
  | "OVERLOADED"
  | "RECORD_DAMAGED";

interface InventoryErrorOptions {
  readonly violations?: readonly FieldViolation[];
  readonly shortage?: readonly ShortLine[];
  /** For the log: the reason in one word, where the code does not say it. */
  readonly refusal?: string;
  /** For the log: what the store had, in contrast to what was requested. */
  readonly actual?: Readonly<Record<string, number | string>>;
  /** For the log. Never sent to a client. */
  readonly cause?: unknown;
}

/** The error type of the domain. The message names the action and the value received, and may be sent to clients. */
export class InventoryError extends Error {
  override readonly name = "InventoryError";
  readonly code: InventoryErrorCode;
  readonly violations: readonly FieldViolation[];
  readonly shortage: readonly ShortLine[];
  /** `short`, `expired`, `released`, …; by default the code in lower case. */
  readonly refusal: string;
  readonly actual: Readonly<Record<string, number | string>> | undefined;

  constructor(code: InventoryErrorCode, message: string, options: InventoryErrorOptions = {}) {
    super(message, { cause: options.cause });
    this.code = code;
    this.violations = options.violations ?? [];
    this.shortage = options.shortage ?? [];
    this.refusal = options.refusal ?? code.toLowerCase();
    this.actual = options.actual;
  }
}

/**
 * Creates an error without a stack trace. For refusals that are a normal outcome and frequent: their stack is of no use,
 * and capturing it takes longer than the rest of a refusal's creation.
 */
export function withoutStack<T extends Error>(create: () => T): T {
  const { stackTraceLimit } = Error;
  Error.stackTraceLimit = 0;
  try {
    return create();
  } finally {
    Error.stackTraceLimit = stackTraceLimit;
  }
}
