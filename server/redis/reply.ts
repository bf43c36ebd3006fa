import type { Collection } from "../inventory/collection.ts";
import type { Delivery } from "../inventory/delivery.ts";
import type { ProductState } from "../inventory/feed.ts";
import {
  available,
  CHANGE_CAUSES,
  type ChangeCause,
  type Ledger,
  type ProductDetails,
  type Stock,
  type StockChange,
  shortfall,
} from "../inventory/ledger.ts";
import { isDeleted } from "../inventory/product-event.ts";
import type { DamagedRecords } from "./damaged-records.ts";

// Decodes the replies of Redis. A reply of another shape than the scripts return is a bug or a foreign
// key, and throws.

/** Reads the fields of one reply in their order. */
export class ReplyReader {
  readonly #fields: readonly unknown[];
  #next = 0;

  constructor(reply: unknown) {
    this.#fields = list(reply);
  }

  /** The next field, without consuming it. */
  peek(): unknown {
    return this.#fields[this.#next];
  }

  text(): string {
    const field = this.#take();
    if (typeof field !== "string") {
      throw this.#unexpected(field, "a string");
    }
    return field;
  }

  optionalText(): string | undefined {
    const field = this.#take();
    if (field === null || field === undefined) {
      return undefined;
    }
    if (typeof field !== "string") {
      throw this.#unexpected(field, "a string or null");
    }
    return field;
  }

  /** The rest of the fields. */
  texts(): string[] {
    const texts: string[] = [];
    for (let text = this.optionalText(); text !== undefined; text = this.optionalText()) {
      texts.push(text);
    }
    return texts;
  }

  integer(): number {
    const field = this.#take();
    if (typeof field !== "number" || !Number.isSafeInteger(field)) {
      throw this.#unexpected(field, "an integer");
    }
    return field;
  }

  /** All fields, without consuming them. */
  all(): readonly unknown[] {
    return this.#fields;
  }

  items(): readonly unknown[] {
    return list(this.#take());
  }

  #take(): unknown {
    const field = this.#fields[this.#next];
    this.#next += 1;
    return field;
  }

  #unexpected(field: unknown, expected: string): Error {
    return unexpectedField(this.#next, field, expected);
  }
}

function unexpectedField(number: number, field: unknown, expected: string): Error {
  return new Error(`Field ${number} of a Redis reply is ${JSON.stringify(field)}, expected ${expected}`);
}

export function list(reply: unknown): readonly unknown[] {
  if (!Array.isArray(reply)) {
    throw new Error(`A Redis reply is ${JSON.stringify(reply)}, expected an array`);
  }
  return reply;
}

/** A ledger, and the store's time of its latest change, ms since 1970. */
export interface LedgerState {
  readonly ledger: Ledger;
  readonly updateTimeMs: number;
}

/** Decodes a ledger as the scripts write it: D U A S H F V T deleted, separated by spaces; U is empty if absent. */
export function decodeLedger(productId: string, text: string): LedgerState {
  return readLedger(productId, new FieldReader(text));
}

function readLedger(productId: string, fields: FieldReader): LedgerState {
  const declared = fields.integer();
  const declareTimeMicros = fields.optionalInteger();
  const adjusted = fields.integer();
  const sold = fields.integer();
  const reserved = fields.integer();
  const safety = fields.integer();
  const version = fields.integer();
  const updateTimeMs = fields.integer();
  const deleted = fields.integer() === 1;
  return {
    ledger: { productId, declared, declareTimeMicros, adjusted, sold, reserved, safety, version, deleted },
    updateTimeMs,
  };
}

const [SPACE, MINUS, ZERO] = [0x20, 0x2d, 0x30];

/** Reads the fields of a line that are separated by spaces. Makes no text of each: it runs for every change of stock. */
class FieldReader {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  word(): string {
    const end = this.#text.indexOf(" ", this.#at);
    const word = this.#text.slice(this.#at, end === -1 ? undefined : end);
    this.#at += word.length + 1;
    return word;
  }

  integer(): number {
    const value = this.optionalInteger();
    if (value === undefined) {
      throw this.#invalid();
    }
    return value;
  }

  /** `undefined` if the field is empty. */
  optionalInteger(): number | undefined {
    const text = this.#text;
    const start = this.#at;
    const isNegative = text.charCodeAt(start) === MINUS;
    const first = isNegative ? start + 1 : start;
    let at = first;
    let value = 0;
    for (let code = text.charCodeAt(at); at < text.length && code !== SPACE; code = text.charCodeAt(++at)) {
      const digit = code - ZERO;
      if (digit < 0 || digit > 9) {
        throw this.#invalid();
      }
      value = value * 10 + digit;
    }
    this.#at = at + 1;
    if (at === start) {
      return undefined;
    }
    if (at === first || value > Number.MAX_SAFE_INTEGER) {
      throw this.#invalid();
    }
    return isNegative ? -value + 0 : value;
  }

  /** What follows. */
  rest(): string {
    return this.#text.slice(this.#at);
  }

  #invalid(): Error {
    return new Error(`A ledger in Redis has a field that is not an integer: ${JSON.stringify(this.#text)}`);
  }
}

export function stockOf(ledger: Ledger, updateTimeMs: number, details: ProductDetails | undefined): Stock {
  return {
    productId: ledger.productId,
    available: available(ledger),
    version: ledger.version,
    updateTimeMs,
    details,
  };
}

/**
 * Decodes products of a snapshot from the ledgers of load-products.lua and their details. Throws if any ledger is missing or
 * damaged.
 */
export function decodeStates(
  productIds: readonly string[],
  ledgers: readonly unknown[],
  details: readonly (ProductDetails | undefined)[],
): ProductState[] {
  return productIds.map((productId, index) => decodeState(productId, list(ledgers[index]), details[index]));
}

function decodeState(
  productId: string,
  row: readonly unknown[],
  details: ProductDetails | undefined,
): ProductState {
  if (row.length === 0) {
    throw new Error("the key is missing");
  }
  const ledger = {
    declared: integerAt(row, 0),
    adjusted: integerAt(row, 1),
    sold: integerAt(row, 2),
    reserved: integerAt(row, 3),
    safety: integerAt(row, 4),
  };
  const upsertTimeMicros = row[7] === null ? undefined : integerAt(row, 7);
  const deleteTimeMicros = row[8] === null ? undefined : integerAt(row, 8);
  return {
    productId,
    available: available(ledger),
    version: integerAt(row, 5),
    updateTimeMs: integerAt(row, 6),
    details,
    deleted: isDeleted({ upsertTimeMicros, deleteTimeMicros }),
    isReserved: ledger.reserved > 0,
    isShort: shortfall(ledger) > 0,
  };
}

function integerAt(row: readonly unknown[], at: number): number {
  const field = row[at];
  if (typeof field !== "number" || !Number.isSafeInteger(field)) {
    throw unexpectedField(at + 1, field, "an integer");
  }
  return field;
}

/** Encodes details as they are stored. The order is part of the key layout; equal details have equal text. */
export function encodeDetails(details: ProductDetails): string {
  return JSON.stringify([details.name, details.description, details.price, details.collectionId]);
}

export function decodeDetails(text: string): ProductDetails {
  return detailsOf(JSON.parse(text));
}

/** The details in a decoded JSON value. */
export function detailsOf(value: unknown): ProductDetails {
  const [name, description, price, collectionId] = list(value);
  if (
    typeof name !== "string" ||
    typeof description !== "string" ||
    typeof price !== "number" ||
    typeof collectionId !== "string"
  ) {
    throw new Error(
      `Details in Redis are ${JSON.stringify(value)}, expected [name, description, price, collection ID]`,
    );
  }
  return { name, description, price, collectionId };
}

/** Encodes a delivery for scripts/product-event.lua. */
export function encodeDelivery({ timestampMs, offset, partition }: Delivery): string {
  return `${timestampMs} ${offset} ${partition}`;
}

/** Encodes a collection as it is stored: name, description and, if it has one, the delivery. */
export function encodeCollection({ name, description }: Collection, delivery: Delivery | undefined): string {
  return JSON.stringify([name, description, ...(delivery === undefined ? [] : [encodeDelivery(delivery)])]);
}

/** Decodes a field of the collections: time of the newest event in µs, a space, the collection. `undefined` if it is deleted. */
export function decodeCollection(collectionId: string, text: string): Collection | undefined {
  const encoded = text.slice(text.indexOf(" ") + 1);
  if (encoded === "") {
    return undefined;
  }
  const [name, description] = list(JSON.parse(encoded));
  if (typeof name !== "string" || typeof description !== "string") {
    throw new Error(`A collection in Redis is ${text}, expected [name, description]`);
  }
  return { collectionId, name, description };
}

/** Decodes the hash of collections. Reports and skips damaged ones. */
export function decodeCollections(
  key: string,
  entries: Readonly<Record<string, string>>,
  damagedRecords: DamagedRecords,
): Collection[] {
  return Object.entries(entries).flatMap(
    ([id, text]) =>
      damagedRecords.decode("collection", `${key} ${id}`, () => decodeCollection(id, text)) ?? [],
  );
}

/** Decodes an entry of a change stream, [ID, ["c", text]], with the text that `record` in scripts/ledger.lua writes. */
export function decodeChange(entry: unknown): StockChange {
  const [name, text] = list(list(entry)[1]);
  if (name !== "c" || typeof text !== "string") {
    throw new Error(`A change in Redis has an unexpected shape: ${JSON.stringify(entry)}`);
  }
  const lines = new Lines(text);
  const [numbers, productId, referenceId, details] = [lines.next(), lines.next(), lines.next(), lines.next()];
  const fields = new FieldReader(numbers);
  const cause = causeOf(fields.word());
  const delta = fields.integer();
  const { ledger, updateTimeMs } = readLedger(productId, fields);
  return {
    cause,
    delta,
    ledger,
    changeTimeMs: updateTimeMs,
    referenceId,
    reason: lines.rest(),
    // The actor takes the rest of the line, and may contain spaces.
    actor: fields.rest(),
    details: details === "" ? undefined : decodeDetails(details),
  };
}

/** Reads a text line by line, without splitting all of it. */
class Lines {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  next(): string {
    const end = this.#text.indexOf("\n", this.#at);
    if (end === -1) {
      throw new Error(`A change in Redis has too few lines: ${JSON.stringify(this.#text)}`);
    }
    const line = this.#text.slice(this.#at, end);
    this.#at = end + 1;
    return line;
  }

  rest(): string {
    return this.#text.slice(this.#at);
  }
}

function causeOf(text: string): ChangeCause {
  const cause = CHANGE_CAUSES.find((known) => known === text);
  if (cause === undefined) {
    throw new Error(`A change in Redis has the unknown cause ${JSON.stringify(text)}`);
  }
  return cause;
}
