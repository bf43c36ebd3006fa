import { z } from "zod";
import type { CollectionEvent } from "../../inventory/collection.ts";
import { InventoryError } from "../../inventory/errors.ts";
import type { ProductDetails } from "../../inventory/ledger.ts";
import type { ProductDelete, ProductUpsert } from "../../inventory/product-event.ts";
import { DESCRIPTION_BYTES_MAX, NAME_BYTES_MAX, show, Violations } from "../../inventory/validation.ts";
import type { RecordHeaders } from "../records/headers.ts";
import { readTime, TIME_MICROS_MAX } from "./event-time.ts";
import type { IncomingMessage } from "./message.ts";

/**
 * Why an event can never be applied as it is. Used as the reason in dead-letter headers and as a metric label.
 *
 * - `not-json`: the value is not UTF-8, not JSON, or not a JSON object.
 * - `no-message-type`, `unknown-message-type`: the header `MessageType` is missing or has an unknown value.
 * - `bad-id`: `id` is missing or not a valid ID.
 * - `bad-stock`: `inventory` or `quantity` is not a stock count, or the two differ, or the store's count would leave int32.
 * - `bad-details`: name, description, price or collection ID has the wrong type or is out of bounds.
 * - `incomplete-details`: name or price is given without the other. Details are replaced as a whole.
 * - `bad-time`: a time is malformed or before 1970.
 * - `time-ahead`: the time is more than five minutes ahead of the store's clock.
 */
export const DEAD_LETTER_REASONS = [
  "not-json",
  "no-message-type",
  "unknown-message-type",
  "bad-id",
  "bad-stock",
  "bad-details",
  "incomplete-details",
  "bad-time",
  "time-ahead",
] as const;
export type DeadLetterReason = (typeof DEAD_LETTER_REASONS)[number];

/** Why a message, or a part of it, cannot be applied, however often it is retried. */
export interface Rejection {
  readonly reason: DeadLetterReason;
  /** The field and its value, for operators. */
  readonly detail: string;
}

/** The store operation that a message requests. */
export type SellerEvent =
  | {
      readonly kind: "upsert";
      /** Without the part that was rejected. */
      readonly event: ProductUpsert;
      /** Why the stock or the details of the message cannot be applied. Absent if both can. */
      readonly rejected?: Rejection;
    }
  | { readonly kind: "delete"; readonly event: ProductDelete }
  | { readonly kind: "collection"; readonly event: CollectionEvent };

/** A message of which nothing can be applied. */
export interface Undeliverable extends Rejection {
  readonly kind: "dead";
}

/**
 * A message without a value. It asks Kafka's log compaction to remove the older records of its key. Keys are not product
 * IDs, so it says nothing about a product.
 */
export interface Tombstone {
  readonly kind: "tombstone";
}

export type Decoded = SellerEvent | Tombstone | Undeliverable;

/** The kind of entity that a topic's messages describe. */
export type Subject = "product" | "collection";

const MESSAGE_TYPES = ["Create", "Update", "Delete"] as const;
type MessageType = (typeof MESSAGE_TYPES)[number];

/** Longest part of an unknown message type in a dead letter's detail. No known type is longer. */
const TYPE_BYTES_SHOWN = 40;

const decoder = new TextDecoder("utf-8", { fatal: true });

// Some encoders omit an unknown field and others write null. Both mean that the field is not given.

/** The fields that every event has. A deletion uses no others. */
const Common = z.object({
  id: z.string(),
  updatedAt: z.string().nullish(),
  deletedAt: z.string().nullish(),
});
type Common = z.infer<typeof Common>;

/** The stock and the details of a product are validated separately: a fault in one of them must not withhold the other. */
const ProductStock = z.object({
  inventory: z.number().nullish(),
  quantity: z.number().nullish(),
});

const Details = z.object({
  name: z.string().nullish(),
  description: z.string().nullish(),
  price: z.number().nullish(),
  collectionId: z.string().nullish(),
});

const Collection = z.object({
  name: z.string().nullish(),
  description: z.string().nullish(),
});

/** The reason for a field whose type does not match the schema. */
const REASON_BY_FIELD: Readonly<Record<string, DeadLetterReason>> = {
  id: "bad-id",
  updatedAt: "bad-time",
  deletedAt: "bad-time",
  inventory: "bad-stock",
  quantity: "bad-stock",
};

/** Never leaves this file. */
class InvalidEvent extends Error {
  readonly reason: DeadLetterReason;

  constructor(reason: DeadLetterReason, detail: string) {
    super(detail);
    this.reason = reason;
  }
}

/** Decodes a message into a store operation, or into the reason why it cannot be applied. Does not throw. */
export function decodeMessage(message: IncomingMessage, subject: Subject): Decoded {
  if (message.value === null) {
    return { kind: "tombstone" };
  }
  try {
    const type = messageType(message.headers);
    const json = parseJson(message.value);
    return subject === "product"
      ? productEvent(type, json, message.timestamp)
      : collectionEvent(type, json, message.timestamp);
  } catch (error) {
    return { kind: "dead", ...rejectionOf(error) };
  }
}

function productEvent(type: MessageType, json: object, recordTimestamp: string): SellerEvent | Undeliverable {
  const fields = parse(Common, json);
  const productId = checkId(fields.id);
  const { updateTimeMicros, isDeletion } = timesOf(type, fields, recordTimestamp);
  if (isDeletion) {
    return { kind: "delete", event: { productId, updateTimeMicros } };
  }
  const declared = attempt(() => declaredOf(json));
  const details = attempt(() => detailsOf(json));
  const event = { productId, declared: declared.value, details: details.value, updateTimeMicros };
  const rejections = [declared, details].flatMap(({ rejected }) => rejected ?? []);
  const [rejected] = rejections;
  if (rejected === undefined) {
    return { kind: "upsert", event };
  }
  if (event.declared === undefined && event.details === undefined) {
    return {
      kind: "dead",
      reason: rejected.reason,
      detail: rejections.map((each) => each.detail).join("; "),
    };
  }
  return { kind: "upsert", event, rejected };
}

function collectionEvent(type: MessageType, json: object, recordTimestamp: string): SellerEvent {
  const fields = parse(Common, json);
  const collectionId = checkId(fields.id);
  const { updateTimeMicros, isDeletion } = timesOf(type, fields, recordTimestamp);
  if (isDeletion) {
    return { kind: "collection", event: { collectionId, collection: undefined, updateTimeMicros } };
  }
  const { name, description } = parse(Collection, json);
  if (!isGiven(name)) {
    throw new InvalidEvent("incomplete-details", "name is not given; a collection is replaced as a whole");
  }
  const collection = { collectionId, name, description: description ?? "" };
  check("bad-details", (violations) => {
    violations.text("name", collection.name, NAME_BYTES_MAX);
    violations.text("description", collection.description, DESCRIPTION_BYTES_MAX);
  });
  return { kind: "collection", event: { collectionId, collection, updateTimeMicros } };
}

/** `inventory`, or `quantity` in the older form; `undefined` if the event does not change the stock. */
function declaredOf(json: object): number | undefined {
  const { inventory, quantity } = parse(ProductStock, json);
  if (isGiven(inventory) && isGiven(quantity) && inventory !== quantity) {
    throw new InvalidEvent(
      "bad-stock",
      `inventory is ${inventory} and quantity is ${quantity}; give one of them`,
    );
  }
  const declared = inventory ?? quantity;
  if (!isGiven(declared)) {
    return undefined;
  }
  const field = isGiven(inventory) ? "inventory" : "quantity";
  check("bad-stock", (violations) => violations.integer(field, declared, 0));
  // JSON can express -0.
  return declared + 0;
}

/** The details, which are replaced as a whole; `undefined` if the event has none of them. */
function detailsOf(json: object): ProductDetails | undefined {
  const { name, description, price, collectionId } = parse(Details, json);
  if (!(isGiven(name) || isGiven(description) || isGiven(price) || isGiven(collectionId))) {
    return undefined;
  }
  if (!isGiven(name) || !isGiven(price)) {
    const missing = isGiven(name) ? "price" : "name";
    throw new InvalidEvent("incomplete-details", `${missing} is not given; details are replaced as a whole`);
  }
  const details = {
    name,
    description: description ?? "",
    price: price + 0,
    collectionId: collectionId ?? "",
  };
  check("bad-details", (violations) => violations.details("product", details));
  return details;
}

/**
 * Whether the event is a deletion, and its time, µs since 1970. A row that was deleted softly has `deletedAt`, and
 * possibly an older `updatedAt`, so that a deletion has the later of the two times. An event without a time has the time
 * of its record.
 */
function timesOf(
  type: MessageType,
  { updatedAt, deletedAt }: Common,
  recordTimestamp: string,
): { readonly updateTimeMicros: number; readonly isDeletion: boolean } {
  const [updated, deleted] = [readMicros("updatedAt", updatedAt), readMicros("deletedAt", deletedAt)];
  const isDeletion = type === "Delete" || deleted !== undefined;
  const updateTimeMicros =
    updated === undefined && deleted === undefined
      ? recordMicros(recordTimestamp)
      : Math.max(updated ?? 0, deleted ?? 0);
  return { updateTimeMicros, isDeletion };
}

/** A time in µs since 1970; `undefined` if it is not given or was never set. */
function readMicros(field: string, text: string | null | undefined): number | undefined {
  const time = isGiven(text) ? readTime(text) : "unset";
  if (time === "unset") {
    return undefined;
  }
  if (time === "malformed" || time < 0) {
    throw new InvalidEvent("bad-time", `${field} is ${show(text ?? "")}; give RFC 3339 from 1970 on`);
  }
  if (time > TIME_MICROS_MAX) {
    throw new InvalidEvent("time-ahead", `${field} is ${show(text ?? "")}`);
  }
  return time;
}

function recordMicros(timestamp: string): number {
  const micros = Number(timestamp) * 1_000;
  if (!Number.isSafeInteger(micros) || micros < 0) {
    throw new InvalidEvent("bad-time", `updatedAt is not given, and the record's timestamp is ${timestamp}`);
  }
  return micros;
}

function isGiven<Value>(field: Value | null | undefined): field is Value {
  return field !== null && field !== undefined;
}

function checkId(id: string): string {
  check("bad-id", (violations) => violations.id("id", id));
  return id;
}

/** If the header is repeated, the last value counts, as in Kafka's Java client. */
function messageType(headers: RecordHeaders): MessageType {
  const header = headers.last("MessageType");
  if (header === undefined || header === null) {
    throw new InvalidEvent("no-message-type", "the header MessageType is not given");
  }
  const text = header.subarray(0, TYPE_BYTES_SHOWN).toString();
  const type = MESSAGE_TYPES.find((known) => known === text);
  if (type === undefined) {
    throw new InvalidEvent(
      "unknown-message-type",
      `the header MessageType is ${JSON.stringify(text)}; give ${MESSAGE_TYPES.join(", ")}`,
    );
  }
  return type;
}

function parseJson(value: Buffer): object {
  let json: unknown;
  try {
    json = JSON.parse(decoder.decode(value));
  } catch (error) {
    throw new InvalidEvent("not-json", error instanceof Error ? error.message : String(error));
  }
  if (typeof json !== "object" || json === null || Array.isArray(json)) {
    throw new InvalidEvent("not-json", "the value is JSON but not an object");
  }
  return json;
}

/** The value of a part of a message, or the reason why that part cannot be applied. */
function attempt<Value>(read: () => Value): { readonly value?: Value; readonly rejected?: Rejection } {
  try {
    return { value: read() };
  } catch (error) {
    return { rejected: rejectionOf(error) };
  }
}

function rejectionOf(error: unknown): Rejection {
  if (error instanceof InvalidEvent) {
    return { reason: error.reason, detail: error.message };
  }
  throw error;
}

function parse<Schema extends z.ZodType>(schema: Schema, json: object): z.infer<Schema> {
  const parsed = schema.safeParse(json);
  if (parsed.success) {
    return parsed.data;
  }
  const [issue] = parsed.error.issues;
  const field = String(issue?.path[0]);
  throw new InvalidEvent(REASON_BY_FIELD[field] ?? "bad-details", `${field}: ${issue?.message}`);
}

function check(reason: DeadLetterReason, rules: (violations: Violations) => void): void {
  const violations = new Violations();
  rules(violations);
  try {
    violations.throwIfAny();
  } catch (error) {
    throw error instanceof InventoryError ? new InvalidEvent(reason, error.message) : error;
  }
}
