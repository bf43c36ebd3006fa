import { create } from "@bufbuild/protobuf";
import { type Timestamp, TimestampSchema, timestampFromMs } from "@bufbuild/protobuf/wkt";
import {
  ChangeCause as ChangeCauseMessage,
  ChangeCauseSchema,
  type Ledger as LedgerMessage,
  LedgerSchema,
  type StockChanged,
  StockChangedSchema,
} from "../../gen/inventory/v1/supply_pb.ts";
import {
  available,
  type ChangeCause,
  type Ledger,
  onHand,
  QUANTITY_MAX,
  type StockChange,
  shortfall,
} from "../inventory/ledger.ts";
import { timeText } from "../inventory/time-text.ts";

// The messages that RPC responses and Kafka share.

const CAUSES: Readonly<Record<ChangeCause, ChangeCauseMessage>> = {
  declared: ChangeCauseMessage.DECLARED,
  deleted: ChangeCauseMessage.DELETED,
  counted: ChangeCauseMessage.COUNTED,
  adjusted: ChangeCauseMessage.ADJUSTED,
  reserved: ChangeCauseMessage.RESERVED,
  committed: ChangeCauseMessage.COMMITTED,
  released: ChangeCauseMessage.RELEASED,
  expired: ChangeCauseMessage.EXPIRED,
  returned: ChangeCauseMessage.RETURNED,
  safety: ChangeCauseMessage.SAFETY,
  details: ChangeCauseMessage.DETAILS,
};

const FOLD_UNITS = 2 ** 30;

/** The reason of a message that has a state and no change. */
const SNAPSHOT_REASON = "snapshot";

/** The number as int32. A sum of int32 numbers that is out of range becomes the nearest bound. */
export function toInt32(value: number): number {
  return Math.max(-QUANTITY_MAX - 1, Math.min(QUANTITY_MAX, value));
}

export function toTimestamp(micros: number): Timestamp {
  const seconds = Math.floor(micros / 1_000_000);
  // Not the remainder, which is negative before 1970.
  return create(TimestampSchema, { seconds: BigInt(seconds), nanos: (micros - seconds * 1_000_000) * 1_000 });
}

export function toLedger(ledger: Ledger): LedgerMessage {
  return create(LedgerSchema, {
    productId: ledger.productId,
    declared: ledger.declared,
    ...(ledger.declareTimeMicros !== undefined && { declareTime: toTimestamp(ledger.declareTimeMicros) }),
    ...countsOf(ledger),
    version: BigInt(ledger.version),
    deleted: ledger.deleted,
  });
}

/** The counts besides `declared`, from `adjusted` to `shortfall`. */
function countsOf(ledger: Ledger) {
  const folded = foldedUnits(ledger);
  return {
    adjusted: toInt32(ledger.adjusted - folded),
    sold: toInt32(ledger.sold - folded),
    reserved: toInt32(ledger.reserved),
    safety: ledger.safety,
    onHand: toInt32(onHand(ledger)),
    available: toInt32(available(ledger)),
    shortfall: toInt32(shortfall(ledger)),
  };
}

/**
 * The units to subtract from adjusted and sold alike, so that both are int32 and on_hand stays their difference plus
 * declared. Both totals grow for as long as a product is received and sold. Folding in steps of 2^30 units keeps them from
 * jumping with every change at the bound. A step is cut short where the other total has no room for it.
 */
function foldedUnits({ adjusted, sold }: Ledger): number {
  const least = Math.max(adjusted, sold) - QUANTITY_MAX;
  const most = Math.min(adjusted, sold) + QUANTITY_MAX;
  if (least > 0) {
    return Math.min(Math.ceil(least / FOLD_UNITS) * FOLD_UNITS, most);
  }
  return most < 0 ? Math.max(Math.floor(most / FOLD_UNITS) * FOLD_UNITS, least) : 0;
}

export function toStockChanged(change: StockChange): StockChanged {
  return create(StockChangedSchema, {
    productId: change.ledger.productId,
    version: BigInt(change.ledger.version),
    cause: CAUSES[change.cause],
    delta: toInt32(change.delta),
    ledger: toLedger(change.ledger),
    changeTime: timestampFromMs(change.changeTimeMs),
    referenceId: change.referenceId,
    reason: change.reason,
    actor: change.actor,
  });
}

/**
 * A change as JSON. Zeros and empty strings are present, so that a consumer need not know the defaults.
 *
 * It equals the protobuf JSON of `toStockChanged`. protobuf-es takes twice as long for the same result, and every change of
 * stock is encoded here.
 */
export function stockChangedJson(change: StockChange): string {
  return jsonOf(CAUSES[change.cause], change);
}

/** A product's newest state as the message of a change, without cause and difference, which are unknown. */
export function stockSnapshotJson(ledger: Ledger, updateTimeMs: number): string {
  const change = {
    delta: 0,
    ledger,
    changeTimeMs: updateTimeMs,
    referenceId: "",
    reason: SNAPSHOT_REASON,
    actor: "",
  };
  return jsonOf(ChangeCauseMessage.UNSPECIFIED, change);
}

function jsonOf(
  cause: ChangeCauseMessage,
  { ledger, delta, changeTimeMs, referenceId, reason, actor }: Omit<StockChange, "cause" | "details">,
): string {
  const { productId, declared, declareTimeMicros, deleted } = ledger;
  const version = String(ledger.version);
  return JSON.stringify({
    productId,
    version,
    cause: ChangeCauseSchema.value[cause]?.name,
    delta: toInt32(delta),
    ledger: {
      productId,
      declared,
      declareTime: declareTimeMicros === undefined ? undefined : timeText(declareTimeMicros),
      ...countsOf(ledger),
      version,
      deleted,
    },
    changeTime: timeText(changeTimeMs * 1_000),
    referenceId,
    reason,
    actor,
  });
}
