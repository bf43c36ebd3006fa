import { type DescField, type DescMethod, type Message, ScalarType } from "@bufbuild/protobuf";
import {
  DurationSchema,
  FeatureSet_FieldPresence,
  TimestampSchema,
  timestampDate,
} from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { StatusSchema } from "../../../gen/google/rpc/status_pb.ts";
import {
  LineSchema,
  ReservationSchema,
  type ReservationState,
  ReservationStateSchema,
} from "../../../gen/inventory/v1/reservation_pb.ts";
import { LedgerSchema } from "../../../gen/inventory/v1/supply_pb.ts";
import { InventoryError } from "../../inventory/errors.ts";

// What a line of the write log says about the content of a request and of its response. Every value is bounded: the longest
// entry is that of 100 lines with IDs of 128 bytes, about 16 KB.

/** Longest ID logged; validation refuses longer ones. */
const ID_LENGTH_MAX = 128;
/** Longest text logged; the longest valid reason has 512 bytes. */
const TEXT_LENGTH_MAX = 512;
/** Lines, short lines and violations logged of a call. A valid reservation has at most 100 lines. */
const LIST_LENGTH_MAX = 100;
type Fields = Record<string, unknown>;

/** One request of a batch: its index, what was requested, and what came of it. */
interface BatchItem extends Fields {
  readonly index: number;
}

/**
 * What was requested: IDs, quantities, `delta`, `reason`, `lines` and the like, under the names of JSON. Durations are in ms,
 * as `ttlMs`; times are ISO 8601. A product's details are left out, and so are absent fields.
 */
export function requestFields(fields: readonly DescField[], request: Message): Fields {
  const logged: Fields = {};
  for (const field of fields) {
    const value: unknown = Reflect.get(request, field.localName);
    switch (field.fieldKind) {
      case "scalar":
        if (value !== undefined && (field.presence !== FeatureSet_FieldPresence.IMPLICIT || !isZero(value))) {
          logged[field.localName] = scalarOf(field, value);
        }
        break;
      case "message":
        Object.assign(logged, timeFields(field, value));
        break;
      case "list":
        if (field.message?.typeName === LineSchema.typeName && Array.isArray(value) && value.length > 0) {
          Object.assign(logged, lineFields(value));
        }
        break;
    }
  }
  return logged;
}

/** What came of a call that succeeded: the state of the reservation, or the numbers of the ledger. */
export function responseFields(response: Message): Fields {
  const reservation = messageIn(response, "reservation", ReservationSchema.typeName);
  const ledger = messageIn(response, "ledger", LedgerSchema.typeName);
  const applied: unknown = Reflect.get(response, "applied");
  return {
    ...(reservation && reservationFields(reservation)),
    ...(ledger && ledgerFields(ledger)),
    ...(typeof applied === "boolean" && { applied }),
  };
}

/** Why a call was refused, with the numbers. Nothing of a fault of this server, which has a line of its own. */
export function failureFields(failure: unknown): Fields {
  if (!(failure instanceof InventoryError)) {
    return {};
  }
  const { refusal, shortage, violations, actual, message } = failure;
  const isListed = shortage.length > 0 || violations.length > 0;
  return {
    refusal,
    ...(shortage.length > 0 && { shortage: shortage.slice(0, LIST_LENGTH_MAX) }),
    ...(violations.length > 0 && {
      violations: violations.slice(0, LIST_LENGTH_MAX).map(({ field, description }) => ({
        field,
        description: description.slice(0, TEXT_LENGTH_MAX),
      })),
    }),
    ...(actual && { actual }),
    ...(!isListed && { error: message.slice(0, TEXT_LENGTH_MAX) }),
  };
}

/** The requests of a batch that has a response. A batch that failed as a whole has none. */
export function batchItems(
  method: DescMethod,
  request: Message,
  response: Message | undefined,
): readonly BatchItem[] {
  const items = itemsOf(method, request) ?? [];
  const fields = requestsField(method)?.message?.fields ?? [];
  return resultsOf(response).flatMap((result, index) => {
    const item = items[index];
    return item === undefined ? [] : [{ ...outcomeOf(result), ...requestFields(fields, item), index }];
  });
}

/** What came of one request of a batch. */
function outcomeOf(result: Message): Fields {
  const error = messageIn(result, "error", StatusSchema.typeName);
  if (error === undefined) {
    const response: unknown = Reflect.get(result, "response");
    return { code: "OK", ...(isMessage(response) && responseFields(response)) };
  }
  const { code, message } = error as Message & { readonly code: Code; readonly message: string };
  return { code: Code[code] ?? code, error: message.slice(0, TEXT_LENGTH_MAX) };
}

function scalarOf(field: DescField & { fieldKind: "scalar" }, value: unknown): unknown {
  if (field.scalar === ScalarType.BYTES) {
    return undefined;
  }
  if (typeof value === "bigint") {
    return String(value);
  }
  return typeof value === "string"
    ? value.slice(0, field.name.endsWith("_id") ? ID_LENGTH_MAX : TEXT_LENGTH_MAX)
    : value;
}

function isZero(value: unknown): boolean {
  return value === 0 || value === 0n || value === "" || value === false;
}

function timeFields(field: DescField & { fieldKind: "message" }, value: unknown): Fields {
  if (!isMessage(value)) {
    return {};
  }
  if (field.message.typeName === DurationSchema.typeName) {
    return {
      [`${field.localName}Ms`]:
        Number(Reflect.get(value, "seconds")) * 1_000 + Number(Reflect.get(value, "nanos")) / 1e6,
    };
  }
  if (field.message.typeName === TimestampSchema.typeName) {
    const { seconds, nanos } = value as Message & { readonly seconds: bigint; readonly nanos: number };
    const time = timestampDate({ $typeName: TimestampSchema.typeName, seconds, nanos });
    return Number.isNaN(time.getTime()) ? {} : { [field.localName]: time.toISOString() };
  }
  return {};
}

function lineFields(lines: readonly unknown[]): Fields {
  const shown = lines.slice(0, LIST_LENGTH_MAX).map((line) => {
    const { productId, quantity } = line as { readonly productId: string; readonly quantity?: number };
    return { productId: productId.slice(0, ID_LENGTH_MAX), quantity };
  });
  return {
    lines: shown,
    ...(lines.length > shown.length && { linesOmitted: lines.length - shown.length }),
  };
}

function reservationFields(reservation: Message): Fields {
  const { state, lines, committedLines, revived } = reservation as Message & {
    readonly state: ReservationState;
    readonly lines: readonly unknown[];
    readonly committedLines: readonly unknown[];
    readonly revived: boolean;
  };
  return {
    // Those of the reservation: a commit or release may name none.
    ...lineFields(lines),
    ...(committedLines.length > 0 && { committedLines: lineFields(committedLines)["lines"] }),
    state: ReservationStateSchema.value[state]?.localName.toLowerCase(),
    ...(revived && { revived }),
  };
}

function ledgerFields(ledger: Message): Fields {
  const { version, onHand, available } = ledger as Message & {
    readonly version: bigint;
    readonly onHand: number;
    readonly available: number;
  };
  return { version: Number(version), onHand, available };
}

function requestsField(method: DescMethod): (DescField & { fieldKind: "list" }) | undefined {
  const field = method.input.field["requests"];
  return field?.fieldKind === "list" && field.listKind === "message" ? field : undefined;
}

function itemsOf(method: DescMethod, request: Message): readonly Message[] | undefined {
  const items: unknown = requestsField(method) && Reflect.get(request, "requests");
  return Array.isArray(items) ? items.filter(isMessage) : undefined;
}

function resultsOf(response: Message | undefined): readonly Message[] {
  const results: unknown = response && Reflect.get(response, "results");
  return Array.isArray(results) ? results.filter(isMessage) : [];
}

function messageIn(message: Message, field: string, typeName: string): Message | undefined {
  const value: unknown = Reflect.get(message, field);
  return isMessage(value) && value.$typeName === typeName ? value : undefined;
}

function isMessage(value: unknown): value is Message {
  return typeof value === "object" && value !== null && "$typeName" in value;
}
