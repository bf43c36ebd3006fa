import { type FieldViolation, InventoryError } from "./errors.ts";
import { type ProductDetails, QUANTITY_MAX } from "./ledger.ts";

export const ID_BYTES_MAX = 128;
export const NAME_BYTES_MAX = 512;
export const DESCRIPTION_BYTES_MAX = 16_384;
export const REASON_BYTES_MAX = 512;
export const PRICE_MAX = 1_000_000_000_000;
export const BATCH_PRODUCTS_MAX = 1_000;
/** Requests of one batch call. */
export const BATCH_REQUESTS_MAX = 1_000;
export const PAGE_SIZE_MAX = 1_000;
export const PAGE_SIZE_DEFAULT = 50;

/** In place of the value of a field that is required and absent. */
const ABSENT = "absent";
const CONTROL_CHARACTER = /\p{Cc}/u;
/** Decoders replace bytes that are not UTF-8 by this character, so that two different IDs could become equal. */
const REPLACEMENT_CHARACTER = "\uFFFD";
const SHOWN_CHARACTERS_MAX = 40;

/** Details as received. */
interface GivenDetails extends Pick<ProductDetails, "description" | "collectionId"> {
  readonly name?: string | undefined;
  readonly price?: number | undefined;
}

/**
 * Collects every invalid field of one request, so that the error reports all of them at once. Both
 * RPC and Kafka input is checked with it.
 */
export class Violations {
  readonly #found: FieldViolation[] = [];

  add(field: string, description: string): void {
    this.#found.push({ field, description });
  }

  addAll(violations: readonly FieldViolation[]): void {
    this.#found.push(...violations);
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

  /** A whole number from `min` to `max`, both inclusive. Returns it; `min` if it is invalid. */
  integer(field: string, value: number | undefined, min: number, max: number = QUANTITY_MAX): number {
    if (value === undefined || !Number.isInteger(value) || value < min || value > max) {
      this.add(field, `is ${value ?? ABSENT}; give a whole number from ${min} to ${max}`);
      return min;
    }
    return value;
  }

  /** A price. Returns it, with -0 as 0; 0 if it is invalid. */
  price(field: string, value: number | undefined): number {
    if (value === undefined || !Number.isFinite(value) || value < 0 || value > PRICE_MAX) {
      this.add(field, `is ${value ?? ABSENT}; give a number from 0 to ${PRICE_MAX}`);
      return 0;
    }
    return value + 0;
  }

  /** Details, which replace the stored ones as a whole, so that a name and a price are required. Returns them. */
  details(field: string, { name, description, price, collectionId }: GivenDetails): ProductDetails {
    if (name === undefined) {
      this.add(`${field}.name`, `is ${ABSENT}; give a name, because details are replaced as a whole`);
    } else {
      this.text(`${field}.name`, name, NAME_BYTES_MAX);
    }
    this.text(`${field}.description`, description, DESCRIPTION_BYTES_MAX);
    this.optionalId(`${field}.collection_id`, collectionId);
    return { name: name ?? "", description, price: this.price(`${field}.price`, price), collectionId };
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
