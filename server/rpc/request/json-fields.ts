import { type DescEnum, type DescField, type DescMessage, fromJson, ScalarType } from "@bufbuild/protobuf";
import { DurationSchema, TimestampSchema } from "@bufbuild/protobuf/wkt";
import type { FieldViolation } from "../../inventory/errors.ts";
import { isBase64 } from "./base64.ts";

/** The grammar of a number (RFC 8259, section 6), which ProtoJSON also requires of numbers in quotes. */
const NUMBER = /^(-?)(0|[1-9]\d*)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/;
/** More digits than any integer type has. */
const INTEGER_DIGITS_MAX = 20;
const DURATION = /^-?\d+(?:\.\d{1,9})?s$/;
const DATE = /^(\d{4})-(\d\d)-(\d\d)T(?!24)/;
const SHOWN_CHARACTERS_MAX = 40;
const FIELD_NAME = /^\w{1,64}$/;
const WELL_KNOWN = /^google\.protobuf\./;

const INTEGER_RANGES: ReadonlyMap<ScalarType, readonly [min: bigint, max: bigint]> = new Map([
  ...[ScalarType.INT32, ScalarType.SINT32, ScalarType.SFIXED32].map((type) => [type, signed(32n)] as const),
  ...[ScalarType.INT64, ScalarType.SINT64, ScalarType.SFIXED64].map((type) => [type, signed(64n)] as const),
  ...[ScalarType.UINT32, ScalarType.FIXED32].map((type) => [type, unsigned(32n)] as const),
  ...[ScalarType.UINT64, ScalarType.FIXED64].map((type) => [type, unsigned(64n)] as const),
]);

/** Well-known types whose JSON is text. protobuf-es takes the 30th of February for the 1st of March, and "5sx" for "5s". */
const TEXT_FORMATS: ReadonlyMap<string, { matches(text: string): boolean; description: string }> = new Map([
  [
    TimestampSchema.typeName,
    { matches: hasCalendarDate, description: 'a time of RFC 3339, as "2006-01-02T15:04:05Z"' },
  ],
  [
    DurationSchema.typeName,
    { matches: (text) => DURATION.test(text), description: 'seconds with up to nine decimals, as "1.5s"' },
  ],
]);

/** A number as it is written. */
export class JsonNumber {
  readonly source: string;

  constructor(source: string) {
    this.source = source;
  }

  toJSON(): number {
    return Number(this.source);
  }
}

type JsonObject = Record<string, unknown>;

/**
 * The fields of a message that are not what ProtoJSON allows for their types. Replaces every `JsonNumber` of a field that the
 * message has: by a number, or by a string where the field has 64 bits.
 */
export function checkMessage(
  desc: DescMessage,
  json: JsonObject,
  ignoreUnknownFields: boolean,
): FieldViolation[] {
  const check = new FieldCheck(ignoreUnknownFields);
  check.message(desc, json, "");
  return check.violations;
}

class FieldCheck {
  readonly violations: FieldViolation[] = [];
  readonly #ignoreUnknownFields: boolean;

  constructor(ignoreUnknownFields: boolean) {
    this.#ignoreUnknownFields = ignoreUnknownFields;
  }

  message(desc: DescMessage, json: JsonObject, prefix: string): void {
    const seen = new Set<DescField>();
    for (const key of Object.keys(json)) {
      const field = desc.fields.find(({ name, jsonName }) => key === jsonName || key === name);
      if (field === undefined) {
        if (!this.#ignoreUnknownFields) {
          this.#addUnknown(desc, `${prefix}${FIELD_NAME.test(key) ? key : show(key)}`);
        }
        continue;
      }
      const path = `${prefix}${field.name}`;
      if (seen.has(field)) {
        this.#add(path, `is given twice, as ${field.jsonName} and as ${field.name}`);
      }
      seen.add(field);
      json[key] = this.#field(field, json[key], path);
    }
  }

  /** The value as protobuf-es reads it. */
  #field(field: DescField, value: unknown, path: string): unknown {
    // Null is the same as an absent field.
    if (value === null) {
      return value;
    }
    if (field.fieldKind === "map") {
      return unwrapped(value);
    }
    if (field.fieldKind !== "list") {
      return this.#value(field, value, path);
    }
    if (!Array.isArray(value)) {
      this.#refuse(path, value, "an array");
      return value;
    }
    return value.map((item, index) => this.#value(field, item, `${path}[${index}]`));
  }

  #value(field: DescField, value: unknown, path: string): unknown {
    if (field.message !== undefined) {
      return this.#messageValue(field.message, value, path);
    }
    if (field.enum !== undefined) {
      return this.#enumValue(field.enum, value, path);
    }
    return this.#scalar(field.scalar as ScalarType, value, path);
  }

  #messageValue(desc: DescMessage, value: unknown, path: string): unknown {
    const format = TEXT_FORMATS.get(desc.typeName);
    if (format !== undefined) {
      if (typeof value !== "string" || !format.matches(value) || !isReadable(desc, value)) {
        this.#refuse(path, value, format.description);
      }
      return value;
    }
    if (WELL_KNOWN.test(desc.typeName)) {
      return unwrapped(value);
    }
    if (typeof value !== "object" || value === null || Array.isArray(value) || value instanceof JsonNumber) {
      this.#refuse(path, value, "an object");
      return value;
    }
    this.message(desc, value as JsonObject, `${path}.`);
    return value;
  }

  #enumValue({ values }: DescEnum, value: unknown, path: string): unknown {
    if (typeof value === "string") {
      if (!values.some(({ name, jsonName }) => value === name || value === jsonName)) {
        this.#refuse(path, value, `one of ${values.map(({ name }) => name).join(", ")}`);
      }
      return value;
    }
    return this.#scalar(ScalarType.INT32, value, path);
  }

  #scalar(type: ScalarType, value: unknown, path: string): unknown {
    const range = INTEGER_RANGES.get(type);
    if (range !== undefined) {
      const [min, max] = range;
      const integer = integerOf(value);
      if (integer === undefined || integer < min || integer > max) {
        this.#refuse(path, value, `a whole number from ${min} to ${max}`);
        return value;
      }
      return max > Number.MAX_SAFE_INTEGER ? String(integer) : Number(integer);
    }
    switch (type) {
      case ScalarType.STRING:
        if (typeof value !== "string") {
          this.#refuse(path, value, "a string");
        } else if (!value.isWellFormed()) {
          this.#add(path, `is ${show(value)}, which contains a lone surrogate; give well-formed Unicode`);
        }
        return value;
      case ScalarType.BOOL:
        if (typeof value !== "boolean") {
          this.#refuse(path, value, "true or false");
        }
        return value;
      case ScalarType.BYTES:
        if (typeof value !== "string" || !isBase64(value)) {
          this.#refuse(path, value, "base64");
        }
        return value;
      default: {
        const double = doubleOf(value);
        if (double === undefined) {
          this.#refuse(path, value, "a number");
          return value;
        }
        return Number.isFinite(double) ? double : String(double);
      }
    }
  }

  #addUnknown({ typeName, fields }: DescMessage, path: string): void {
    const known = fields.map(({ jsonName }) => jsonName).join(", ");
    this.#add(path, `is not a field of ${typeName}; its fields are: ${known || "none"}`);
  }

  #refuse(path: string, value: unknown, wanted: string): void {
    this.#add(path, `is ${show(value)}; give ${wanted}`);
  }

  #add(field: string, description: string): void {
    this.violations.push({ field, description });
  }
}

function signed(bits: bigint): readonly [bigint, bigint] {
  return [-(2n ** (bits - 1n)), 2n ** (bits - 1n) - 1n];
}

function unsigned(bits: bigint): readonly [bigint, bigint] {
  return [0n, 2n ** bits - 1n];
}

/** The text of a number; `undefined` where the value is none, or not in the grammar of JSON. */
function numberText(value: unknown): string | undefined {
  const text = value instanceof JsonNumber ? value.source : typeof value === "string" ? value : undefined;
  return text !== undefined && NUMBER.test(text) ? text : undefined;
}

/** The exact value of `2`, `2.0`, `20e-1` or `"2"`; `undefined` where it is no integer, or has too many digits. */
function integerOf(value: unknown): bigint | undefined {
  if (typeof value === "number") {
    return BigInt(value);
  }
  const match = NUMBER.exec(numberText(value) ?? "");
  if (match === null) {
    return undefined;
  }
  const [, sign = "", whole = "", fraction = "", exponent = "0"] = match;
  const written = whole + fraction;
  const significant = written.replace(/0+$/, "");
  const digits = significant.replace(/^0+/, "");
  const zeros = written.length - significant.length - fraction.length + Number(exponent);
  if (digits === "") {
    return 0n;
  }
  return zeros < 0 || digits.length + zeros > INTEGER_DIGITS_MAX
    ? undefined
    : BigInt(`${sign}${digits}`) * 10n ** BigInt(zeros);
}

function doubleOf(value: unknown): number | undefined {
  if (typeof value === "number") {
    return value;
  }
  if (value === "NaN" || value === "Infinity" || value === "-Infinity") {
    return Number(value);
  }
  const double = Number(numberText(value) ?? "NaN");
  return Number.isFinite(double) ? double : undefined;
}

/** Whether the date of a time is in the calendar, and its hour below 24. */
function hasCalendarDate(text: string): boolean {
  const [, year, month, day] = DATE.exec(text) ?? [];
  const date = new Date(`${year}-${month}-01T00:00:00Z`);
  date.setUTCDate(Number(day));
  return Number(day) > 0 && date.getUTCMonth() + 1 === Number(month);
}

function isReadable(desc: DescMessage, value: string): boolean {
  try {
    fromJson(desc, value);
    return true;
  } catch {
    return false;
  }
}

/** The value with plain numbers. */
function unwrapped(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value));
}

/** The JSON of a value, cut where it is long. */
function show(value: unknown): string {
  const text =
    value instanceof JsonNumber ? value.source : (JSON.stringify(value) ?? "undefined").toWellFormed();
  return text.length > SHOWN_CHARACTERS_MAX ? `${text.slice(0, SHOWN_CHARACTERS_MAX)}…` : text;
}
