import { create, toJsonString } from "@bufbuild/protobuf";
import { type Timestamp, TimestampSchema, timestampFromMs } from "@bufbuild/protobuf/wkt";
import {
  ChangeCause as ChangeCauseMessage,
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

// The messages that both ways out share: methods answer with them, and Kafka carries them.

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

/** The reason of a message that tells a state and no change. */
const SNAPSHOT_REASON = "snapshot";

/** The number as int32; a sum of several int32 numbers that lies outside shows as the nearest bound. */
export function toInt32(value: number): number {
  return Math.max(-QUANTITY_MAX - 1, Math.min(QUANTITY_MAX, value));
}

export function toTimestamp(micros: number): Timestamp {
  return create(TimestampSchema, {
    seconds: BigInt(Math.floor(micros / 1_000_000)),
    nanos: (micros % 1_000_000) * 1_000,
  });
}

export function toLedger(ledger: Ledger): LedgerMessage {
  return create(LedgerSchema, {
    productId: ledger.productId,
    declared: ledger.declared,
    ...(ledger.declareTimeMicros !== undefined && { declareTime: toTimestamp(ledger.declareTimeMicros) }),
    adjusted: toInt32(ledger.adjusted),
    sold: toInt32(ledger.sold),
    reserved: toInt32(ledger.reserved),
    safety: ledger.safety,
    onHand: toInt32(onHand(ledger)),
    available: toInt32(available(ledger)),
    shortfall: toInt32(shortfall(ledger)),
    version: BigInt(ledger.version),
    deleted: ledger.deleted,
  });
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
  });
}

/** A change as JSON. Zeros and empty texts are written out, so that a consumer need not know which fields may be left out. */
export function stockChangedJson(change: StockChange): string {
  return toJsonString(StockChangedSchema, toStockChanged(change), { alwaysEmitImplicit: true });
}

/** A product's newest state as the message of a change: without cause and difference, since those are lost. */
export function stockSnapshotJson(ledger: Ledger, updateTimeMs: number): string {
  const message = create(StockChangedSchema, {
    productId: ledger.productId,
    version: BigInt(ledger.version),
    ledger: toLedger(ledger),
    changeTime: timestampFromMs(updateTimeMs),
    reason: SNAPSHOT_REASON,
  });
  return toJsonString(StockChangedSchema, message, { alwaysEmitImplicit: true });
}
