import type { DescEnum } from "@bufbuild/protobuf";
import {
  type Reservation,
  type ReservationState,
  ReservationStateSchema,
} from "../gen/inventory/v1/reservation_pb.ts";
import type { Stock } from "../gen/inventory/v1/stock_pb.ts";
import { ChangeCauseSchema, type Ledger, type StockChanged } from "../gen/inventory/v1/supply_pb.ts";
import type { CatalogEntry } from "./catalog.ts";
import type { Column } from "./output/table.ts";
import { timeText } from "./values.ts";

// The columns of the tables.

const NAME_WIDTH_MAX = 32;
const REASON_WIDTH_MAX = 48;

export const STOCK_COLUMNS: readonly Column<Stock>[] = [
  { title: "PRODUCT", value: ({ productId }) => productId },
  { title: "NAME", value: ({ product }) => product?.name ?? "", widthMax: NAME_WIDTH_MAX },
  {
    title: "AVAILABLE",
    value: ({ available }) => available,
    align: "right",
    isNotable: ({ available }) => available === 0,
  },
  { title: "PRICE", value: ({ product }) => product?.price?.toFixed(2) ?? "", align: "right" },
  { title: "COLLECTION", value: ({ product }) => product?.collectionId ?? "" },
  { title: "CHANGED", value: ({ updateTime }) => timeText(updateTime) },
];

const LEDGER_NUMBERS: readonly Column<Ledger>[] = [
  { title: "DECLARED", value: ({ declared }) => declared, align: "right" },
  { title: "ADJUSTED", value: ({ adjusted }) => adjusted, align: "right" },
  { title: "SOLD", value: ({ sold }) => sold, align: "right" },
  { title: "ON HAND", value: ({ onHand }) => onHand, align: "right", isNotable: ({ onHand }) => onHand < 0 },
  {
    title: "RESERVED",
    value: ({ reserved }) => reserved,
    align: "right",
    isNotable: ({ shortfall }) => shortfall > 0,
  },
  { title: "SAFETY", value: ({ safety }) => safety, align: "right" },
  {
    title: "AVAILABLE",
    value: ({ available }) => available,
    align: "right",
    isNotable: ({ available }) => available === 0,
  },
];

export const LEDGER_COLUMNS: readonly Column<Ledger>[] = [
  { title: "PRODUCT", value: ({ productId, deleted }) => (deleted ? `${productId} (deleted)` : productId) },
  ...LEDGER_NUMBERS,
  { title: "DECLARED AT", value: ({ declareTime }) => timeText(declareTime) },
];

export const CATALOG_COLUMNS: readonly Column<CatalogEntry>[] = [
  { title: "PRODUCT", value: ({ ledger }) => ledger.productId },
  {
    title: "NAME",
    value: ({ ledger, product }) => (ledger.deleted ? "(deleted)" : (product?.name ?? "")),
    widthMax: NAME_WIDTH_MAX,
  },
  ...LEDGER_NUMBERS.map(({ isNotable, value, ...column }) => ({
    ...column,
    value: ({ ledger }: CatalogEntry) => value(ledger),
    ...(isNotable && { isNotable: ({ ledger }: CatalogEntry) => isNotable(ledger) }),
  })),
  { title: "COLLECTION", value: ({ product }) => product?.collectionId ?? "" },
];

const CHANGE_NUMBERS: readonly Column<StockChanged>[] = [
  { title: "CAUSE", value: ({ cause }) => lowerName(ChangeCauseSchema, cause) },
  { title: "DELTA", value: ({ delta }) => signed(delta), align: "right" },
  { title: "ON HAND", value: ({ ledger }) => ledger?.onHand ?? "", align: "right" },
  { title: "RESERVED", value: ({ ledger }) => ledger?.reserved ?? "", align: "right" },
  { title: "AVAILABLE", value: ({ ledger }) => ledger?.available ?? "", align: "right" },
  { title: "ACTOR", value: ({ actor }) => actor || "-" },
];

/** The changes of one product. */
export const HISTORY_COLUMNS: readonly Column<StockChanged>[] = [
  { title: "TIME", value: ({ changeTime }) => timeText(changeTime) },
  ...CHANGE_NUMBERS,
  { title: "REFERENCE", value: ({ referenceId }) => referenceId || "-" },
  { title: "REASON", value: ({ reason }) => reason, widthMax: REASON_WIDTH_MAX },
];

/** The changes that one order with its returns, or a correction, caused. */
export const TRACE_COLUMNS: readonly Column<StockChanged>[] = [
  { title: "TIME", value: ({ changeTime }) => timeText(changeTime) },
  { title: "PRODUCT", value: ({ productId }) => productId },
  ...CHANGE_NUMBERS,
  { title: "REFERENCE", value: ({ referenceId }) => referenceId || "-" },
  { title: "REASON", value: ({ reason }) => reason, widthMax: REASON_WIDTH_MAX },
];

export const RESERVATION_COLUMNS: readonly Column<Reservation>[] = [
  { title: "RESERVATION", value: ({ reservationId }) => reservationId },
  { title: "STATE", value: ({ state }) => stateName(state) },
  { title: "EXPIRES", value: ({ expireTime }) => timeText(expireTime) },
  { title: "CREATED", value: ({ createTime }) => timeText(createTime) },
  { title: "LINES", value: ({ lines }) => linesText(lines) },
];

/** `2 × mug-1, 1 × pan-3`. */
export function linesText(lines: Reservation["lines"]): string {
  return lines.map(({ productId, quantity }) => `${quantity ?? 0} × ${productId}`).join(", ");
}

export function stateName(state: ReservationState): string {
  return lowerName(ReservationStateSchema, state);
}

/** `+3`, `-2`, `0`. */
export function signed(delta: number): string {
  return delta > 0 ? `+${delta}` : String(delta);
}

function lowerName(schema: DescEnum, value: number): string {
  return schema.value[value]?.localName.toLowerCase() ?? `unknown (${value})`;
}
