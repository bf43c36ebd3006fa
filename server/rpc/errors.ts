import { create } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { BadRequestSchema, RetryInfoSchema } from "../../gen/google/rpc/error_details_pb.ts";
import { ShortageSchema } from "../../gen/inventory/v1/reservation_pb.ts";
import { InventoryError, type InventoryErrorCode, withoutStack } from "../inventory/errors.ts";
import { toInt32 } from "../wire/stock-changed.ts";
import { isMalformedRequest } from "./request/malformed.ts";

/** The only mapping from the domain's errors to status codes. */
const CODES: Readonly<Record<InventoryErrorCode, Code>> = {
  INVALID_INPUT: Code.InvalidArgument,
  PRODUCT_UNKNOWN: Code.NotFound,
  RESERVATION_UNKNOWN: Code.NotFound,
  ID_REUSED: Code.AlreadyExists,
  VERSION_MISMATCH: Code.Aborted,
  STOCK_SHORT: Code.FailedPrecondition,
  STOCK_OUT_OF_RANGE: Code.FailedPrecondition,
  RESERVATION_ENDED: Code.FailedPrecondition,
  RETURN_TOO_LARGE: Code.FailedPrecondition,
  STORE_UNAVAILABLE: Code.Unavailable,
  OVERLOADED: Code.ResourceExhausted,
  RECORD_DAMAGED: Code.DataLoss,
};

/** The messages that an error may carry as details. Reflection serves them, so that clients can decode them. */
export const ERROR_DETAILS = [BadRequestSchema, RetryInfoSchema, ShortageSchema] as const;

/** `RetryInfo.retry_delay`. About the time in which a lost connection to Redis is restored. */
const RETRY_DELAY_MS = 1_000;

/**
 * The error to send to the caller, with its details. Any error other than an `InventoryError` or a `ConnectError` is a
 * fault of this server: the caller gets INTERNAL without the cause.
 */
export function toConnectError(error: unknown): ConnectError {
  if (error instanceof ConnectError) {
    return isMalformedRequest(error) ? new ConnectError(error.rawMessage, Code.InvalidArgument) : error;
  }
  if (!(error instanceof InventoryError)) {
    return new ConnectError("Internal server error", Code.Internal, undefined, undefined, error);
  }
  let connectError = MAPPED.get(error);
  if (connectError === undefined) {
    // The stack is that of the cause.
    connectError = withoutStack(
      () => new ConnectError(error.message, CODES[error.code], undefined, detailsOf(error), error),
    );
    MAPPED.set(error, connectError);
  }
  return connectError;
}

/** Several calls may fail with the same error, as those for a sold-out product do. */
const MAPPED = new WeakMap<InventoryError, ConnectError>();

type Details = ConstructorParameters<typeof ConnectError>[3];

/** The details of an error after which the same call may succeed. */
export function retryDetails(): Details {
  return [
    {
      desc: RetryInfoSchema,
      value: create(RetryInfoSchema, { retryDelay: durationFromMs(RETRY_DELAY_MS) }),
    },
  ];
}

function detailsOf(error: InventoryError): Details {
  if (error.violations.length > 0) {
    return [
      { desc: BadRequestSchema, value: create(BadRequestSchema, { fieldViolations: [...error.violations] }) },
    ];
  }
  if (error.shortage.length > 0) {
    const lines = error.shortage.map((line) => ({
      ...line,
      requested: toInt32(line.requested),
      available: toInt32(line.available),
    }));
    return [{ desc: ShortageSchema, value: create(ShortageSchema, { lines }) }];
  }
  if (error.code === "STORE_UNAVAILABLE" || error.code === "OVERLOADED") {
    return retryDetails();
  }
  return [];
}
