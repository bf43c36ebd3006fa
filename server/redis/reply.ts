import type { Collection } from "../inventory/collection.ts";
import type { ProductState } from "../inventory/feed.ts";
import {
  available,
  CHANGE_CAUSES,
  type ChangeCause,
  type Ledger,
  type ProductDetails,
  type Stock,
  type StockChange,
} from "../inventory/ledger.ts";
import { isDeleted } from "../inventory/product-event.ts";

// Decodes what Redis answers. A reply of another shape than the scripts promise is a bug or
// somebody else's key, and throws.

/** Reads the fields of one reply in their order. */
export class ReplyReader {
  readonly #fields: readonly unknown[];
  #next = 0;

  constructor(reply: unknown) {
    this.#fields = list(reply);
  }

  /** The next field, which stays the next. */
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

  integer(): number {
    const field = this.#take();
    if (typeof field !== "number" || !Number.isSafeInteger(field)) {
      throw this.#unexpected(field, "an integer");
    }
    return field;
  }

  items(): readonly unknown[] {
    return list(this.#take());
  }

  optionalInteger(): number | undefined {
    if (this.#fields[this.#next] === null) {
      this.#next += 1;
      return undefined;
    }
    return this.integer();
  }

  #take(): unknown {
    const field = this.#fields[this.#next];
    this.#next += 1;
    return field;
  }

  #unexpected(field: unknown, wanted: string): Error {
    return new Error(`Field ${this.#next} of a reply of Redis is ${JSON.stringify(field)}, not ${wanted}`);
  }
}

/** A string, or `undefined` where Redis has none. */
export function optionalText(reply: unknown): string | undefined {
  return new ReplyReader([reply]).optionalText();
}

export function list(reply: unknown): readonly unknown[] {
  if (!Array.isArray(reply)) {
    throw new Error(`A reply of Redis is ${JSON.stringify(reply)}, not an array`);
  }
  return reply;
}

/** The ledger in the fixed order in which the scripts send it: D U A S H F V T deleted. */
export function readLedger(productId: string, reply: ReplyReader): { ledger: Ledger; updateTimeMs: number } {
  const declared = reply.integer();
  const declareTimeMicros = reply.optionalInteger();
  const adjusted = reply.integer();
  const sold = reply.integer();
  const reserved = reply.integer();
  const safety = reply.integer();
  const version = reply.integer();
  const updateTimeMs = reply.integer();
  const deleted = reply.integer() === 1;
  return {
    ledger: { productId, declared, declareTimeMicros, adjusted, sold, reserved, safety, version, deleted },
    updateTimeMs,
  };
}

export function stockOf(ledger: Ledger, updateTimeMs: number, details: string | undefined): Stock {
  return {
    productId: ledger.productId,
    available: available(ledger),
    version: ledger.version,
    updateTimeMs,
    details: details === undefined ? undefined : decodeDetails(details),
  };
}

/** A product as load-products.lua sends it: its ledger's fields D A S H F V T P K, and its details. */
export function decodeState(productId: string, fields: string, details: string | undefined): ProductState {
  const [declared, adjusted, sold, reserved, safety, version, updateTimeMs, upserted, deleted] =
    fields.split(" ");
  const integer = (field: string | undefined): number => {
    const value = Number(field || Number.NaN);
    if (!Number.isSafeInteger(value)) {
      throw new Error(
        `The ledger of product "${productId}" in Redis is ${fields}, with a field that is no integer`,
      );
    }
    return value;
  };
  const ledger = {
    declared: integer(declared),
    adjusted: integer(adjusted),
    sold: integer(sold),
    reserved: integer(reserved),
    safety: integer(safety),
  };
  return {
    productId,
    available: available(ledger),
    version: integer(version),
    updateTimeMs: integer(updateTimeMs),
    details: details === undefined ? undefined : decodeDetails(details),
    deleted: isDeleted({
      upsertTimeMicros: upserted === "" ? undefined : integer(upserted),
      deleteTimeMicros: deleted === "" ? undefined : integer(deleted),
    }),
  };
}

/** The details as they stand in Redis. The order is part of the key layout; equal details are equal text. */
export function encodeDetails(details: ProductDetails): string {
  return JSON.stringify([details.name, details.description, details.price, details.collectionId]);
}

export function decodeDetails(text: string): ProductDetails {
  const [name, description, price, collectionId] = list(JSON.parse(text));
  if (
    typeof name !== "string" ||
    typeof description !== "string" ||
    typeof price !== "number" ||
    typeof collectionId !== "string"
  ) {
    throw new Error(`Details in Redis are ${text}, not [name, description, price, collection ID]`);
  }
  return { name, description, price, collectionId };
}

/** A collection as it stands in Redis. */
export function encodeCollection(collection: Collection): string {
  return JSON.stringify([collection.name, collection.description]);
}

/** One field of the collections: µs of its newest event, a space, and the collection, or nothing where it is deleted. */
export function decodeCollection(collectionId: string, text: string): Collection | undefined {
  const encoded = text.slice(text.indexOf(" ") + 1);
  if (encoded === "") {
    return undefined;
  }
  const [name, description] = list(JSON.parse(encoded));
  if (typeof name !== "string" || typeof description !== "string") {
    throw new Error(`A collection in Redis is ${text}, not [name, description]`);
  }
  return { collectionId, name, description };
}

/** One entry of a change stream, as `record` in scripts/ledger.lua writes it: [ID, [field, value, …]]. */
export function decodeChange(entry: unknown): StockChange {
  const fields = new Map<string, string>();
  const flat = list(list(entry)[1]);
  for (let i = 0; i + 1 < flat.length; i += 2) {
    fields.set(String(flat[i]), String(flat[i + 1]));
  }
  const text = (name: string): string => {
    const value = fields.get(name);
    if (value === undefined) {
      throw new Error(`A change in Redis has no field ${name}: ${JSON.stringify(entry)}`);
    }
    return value;
  };
  const integer = (name: string): number => {
    const value = Number(text(name));
    if (!Number.isSafeInteger(value)) {
      throw new Error(`Field ${name} of a change in Redis is ${text(name)}, not an integer`);
    }
    return value;
  };
  const details = text("x");
  return {
    cause: causeOf(text("c")),
    delta: integer("d"),
    ledger: {
      productId: text("p"),
      declared: integer("D"),
      declareTimeMicros: text("U") === "" ? undefined : integer("U"),
      adjusted: integer("A"),
      sold: integer("S"),
      reserved: integer("H"),
      safety: integer("F"),
      version: integer("V"),
      deleted: text("K") === "1",
    },
    changeTimeMs: integer("T"),
    referenceId: text("r"),
    reason: text("w"),
    details: details === "" ? undefined : decodeDetails(details),
  };
}

function causeOf(word: string): ChangeCause {
  const cause = CHANGE_CAUSES.find((known) => known === word);
  if (cause === undefined) {
    throw new Error(`A change in Redis has the unknown cause ${JSON.stringify(word)}`);
  }
  return cause;
}
