import { type FieldViolation, InventoryError } from "./errors.ts";
import { type ProductDetails, QUANTITY_MAX } from "./ledger.ts";

export const ID_BYTES_MAX = 128;
export const NAME_BYTES_MAX = 512;
export const DESCRIPTION_BYTES_MAX = 16_384;
export const REASON_BYTES_MAX = 512;
export const PRICE_MAX = 1_000_000_000_000;
export const BATCH_PRODUCTS_MAX = 1_000;
export const PAGE_SIZE_MAX = 1_000;
export const PAGE_SIZE_DEFAULT = 50;

const CONTROL_CHARACTER = /\p{Cc}/u;
/** Decoders replace bytes that are not UTF-8 by this character, so that two different IDs could become equal. */
const REPLACEMENT_CHARACTER = "\uFFFD";
const SHOWN_CHARACTERS_MAX = 40;

/**
 * Collects every invalid field of one request, so that the error reports all of them at once. Both
 * RPC and Kafka input is checked with it.
 */
export class Violations {
  readonly #found: FieldViolation[] = [];

  add(field: string, description: string): void {
    this.#found.push({ field, description });
  }

  /** 1 to 128 bytes of UTF-8 without control characters and U+FFFD. */
  id(field: string, value: string): void {
    if (value === "") {
      this.add(field, `is empty; give 1 to ${ID_BYTES_MAX} bytes`);
    } else if (value.includes(REPLACEMENT_CHARACTER)) {
      this.add(
        field,
        `is ${show(value)}, which contains U+FFFD, the replacement for bytes that are not UTF-8`,
      );
    } else {
      this.#text(field, value, ID_BYTES_MAX, CONTROL_CHARACTER);
    }
  }

  /** An ID, or empty. */
  optionalId(field: string, value: string): void {
    if (value !== "") {
      this.id(field, value);
    }
  }

  /** UTF-8 of at most `bytesMax` bytes. */
  text(field: string, value: string, bytesMax: number): void {
    this.#text(field, value, bytesMax, undefined);
  }

  /** A whole number from `min` to `max`, both inclusive. */
  integer(field: string, value: number, min: number, max: number = QUANTITY_MAX): void {
    if (!Number.isInteger(value) || value < min || value > max) {
      this.add(field, `is ${value}; give a whole number from ${min} to ${max}`);
    }
  }

  price(field: string, value: number): void {
    if (!Number.isFinite(value) || value < 0 || value > PRICE_MAX) {
      this.add(field, `is ${value}; give a number from 0 to ${PRICE_MAX}`);
    }
  }

  details(field: string, details: ProductDetails): void {
    this.text(`${field}.name`, details.name, NAME_BYTES_MAX);
    this.text(`${field}.description`, details.description, DESCRIPTION_BYTES_MAX);
    this.price(`${field}.price`, details.price);
    this.optionalId(`${field}.collection_id`, details.collectionId);
  }

  /** Throws `INVALID_INPUT` with all violations found so far, if any. */
  throwIfAny(): void {
    if (this.#found.length > 0) {
      throw invalidInput(this.#found);
    }
  }

  #text(field: string, value: string, bytesMax: number, forbidden: RegExp | undefined): void {
    const bytes = Buffer.byteLength(value);
    if (bytes > bytesMax) {
      this.add(field, `has ${bytes} bytes (${show(value)}); the maximum is ${bytesMax}`);
    } else if (!value.isWellFormed()) {
      this.add(
        field,
        `is ${show(value.toWellFormed())}, which contains a lone surrogate; give well-formed Unicode`,
      );
    } else if (forbidden?.test(value)) {
      this.add(field, `is ${show(value)}; control characters are not allowed`);
    }
  }
}

/** The error for a request with invalid fields. The message repeats every violation for clients that do not decode details. */
export function invalidInput(violations: readonly FieldViolation[]): InventoryError {
  const message = violations.map(({ field, description }) => `${field} ${description}`).join("; ");
  return new InventoryError("INVALID_INPUT", message, { violations });
}

/** Formats a value for a message: quoted, escaped, and truncated. */
export function show(value: string): string {
  const cut = value.length > SHOWN_CHARACTERS_MAX;
  return JSON.stringify(cut ? `${value.slice(0, SHOWN_CHARACTERS_MAX)}…` : value);
}
