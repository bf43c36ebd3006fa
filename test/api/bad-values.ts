import assert from "node:assert/strict";
import { type DescField, type DescMethod, ScalarType } from "@bufbuild/protobuf";
import fc, { type Arbitrary } from "fast-check";

/** A value that a field must reject. An encoding that cannot express it has no key. */
export interface BadValue {
  /** The JSON of the field. `undefined`: the field is absent. */
  readonly json?: unknown;
  /** The field in a binary message, as protobuf-es takes it. `undefined`: the field is absent. */
  readonly binary?: unknown;
  /** What the description must contain: the value, as it was sent. */
  readonly quotes: string;
}

/** Bad values by what is wrong with them. */
export type BadKinds = Readonly<Record<string, Arbitrary<BadValue>>>;

const INT32_MAX = 2_147_483_647;
const NANOS_MAX = 999_999_999;
/** The part of a text that is quoted. */
const QUOTED_CHARACTERS = 40;

const both = (value: unknown, quotes: string): BadValue => ({ json: value, binary: value, quotes });
const inJson = (value: string): string => JSON.stringify(value).slice(1, -1);
const quoted = (text: string): BadValue => both(text, inJson(text.slice(0, QUOTED_CHARACTERS)));
const number = (value: number): BadValue => both(value, `is ${value};`);

const ABSENT: BadKinds = { absent: fc.constant(both(undefined, "is absent;")) };

/** The text with a character inserted at some position. */
const textWith = (character: Arbitrary<string>): Arbitrary<string> =>
  fc
    .tuple(fc.string({ unit: "grapheme", maxLength: 12 }), character, fc.string({ maxLength: 12 }))
    .map((parts) => parts.join(""));

const tooLong = (bytesMax: number): Arbitrary<BadValue> =>
  fc
    .tuple(fc.constantFrom("x", "é", "🧶"), fc.integer({ min: 1, max: 100 }))
    .map(([unit, more]) => unit.repeat(Math.ceil((bytesMax + more) / Buffer.byteLength(unit))))
    .map((text) => ({ ...quoted(text), quotes: `has ${Buffer.byteLength(text)} bytes (${show(text)})` }));
const show = (text: string): string => JSON.stringify(`${text.slice(0, QUOTED_CHARACTERS)}…`);

const OPTIONAL_ID: BadKinds = {
  "too long": tooLong(128),
  "control character": textWith(
    fc.integer({ min: 0, max: 0x3f }).map((n) => String.fromCharCode(n < 0x20 ? n : 0x5f + n)),
  ).map(quoted),
  "U+FFFD": textWith(fc.constant("\ufffd")).map(quoted),
};
const ID: BadKinds = {
  ...OPTIONAL_ID,
  empty: fc.constantFrom(both("", "is empty;"), both(undefined, "is empty;")),
};

const textOf = (bytesMax: number): BadKinds => ({ "too long": tooLong(bytesMax) });

const integerOutside = (min: number, max: number): BadKinds => ({
  below: fc.integer({ min: -INT32_MAX - 1, max: min - 1 }).map(number),
  ...(max < INT32_MAX && { above: fc.integer({ min: max + 1, max: INT32_MAX }).map(number) }),
});
const QUANTITY = integerOutside(0, INT32_MAX);

const decimal = (value: number): BadValue => both(value, `is ${value};`);
const PRICE: BadKinds = {
  negative: fc
    .double({ min: -1e300, max: 0, maxExcluded: true, noNaN: true })
    .map((value) => decimal(value || -1)),
  "too large": fc.double({ min: 1e12, minExcluded: true, max: 1e300, noNaN: true }).map(decimal),
  "not finite": fc
    .constantFrom(Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY)
    .map((value) => ({ json: String(value), binary: value, quotes: `is ${value};` })),
};

const fractionOf = (nanos: number): string =>
  nanos === 0 ? "" : `.${String(nanos).padStart(9, "0")}`.replace(/(000)+$/, "");
/** Nanoseconds with 0, 3, 6 or 9 digits. */
const NANOS = fc
  .tuple(fc.integer({ min: 0, max: NANOS_MAX }), fc.constantFrom(1, 1_000, 1_000_000, 1_000_000_000))
  .map(([nanos, unit]) => nanos - (nanos % unit));

const time = ([seconds, nanos]: readonly [number, number]): BadValue => {
  const text = `${new Date(seconds * 1_000).toISOString().slice(0, 19)}${fractionOf(nanos)}Z`;
  return { json: text, binary: { seconds: BigInt(seconds), nanos }, quotes: `is ${text}` };
};
const TIME: BadKinds = {
  "before 1970": fc.tuple(fc.integer({ min: -62_135_596_800, max: -1 }), NANOS).map(time),
  "not a time of JSON": fc
    .oneof(
      fc.bigInt({ min: 253_402_300_800n, max: 2n ** 63n - 1n }),
      fc.bigInt({ min: -(2n ** 63n), max: -62_135_596_801n }),
    )
    .map((seconds) => ({ binary: { seconds, nanos: 0 }, quotes: `is ${seconds} seconds` })),
  "nanoseconds out of range": fc
    .oneof(fc.integer({ min: 1_000_000_000, max: INT32_MAX }), fc.integer({ min: -INT32_MAX, max: -1 }))
    .map((nanos) => ({ binary: { seconds: 1n, nanos }, quotes: `has ${nanos} nanoseconds` })),
};
const UPDATE_TIME: BadKinds = {
  ...TIME,
  "too far ahead": fc.tuple(fc.integer({ min: 4_102_444_800, max: 253_402_300_799 }), NANOS).map(time),
};

const duration = ([seconds, nanos]: readonly [number, number]): BadValue => {
  const sign = seconds < 0 || nanos < 0 ? "-" : "";
  const text = `${sign}${Math.abs(seconds)}${fractionOf(Math.abs(nanos))}s`;
  return { json: text, binary: { seconds: BigInt(seconds), nanos }, quotes: `is ${text};` };
};
const SOME_NANOS = NANOS.filter((nanos) => nanos > 0);
const durationOutside = (minSeconds: number, maxSeconds: number): BadKinds => ({
  "just below": SOME_NANOS.map((nanos) => duration(minSeconds > 0 ? [minSeconds - 1, nanos] : [-0, -nanos])),
  "just above": SOME_NANOS.map((nanos) => duration([maxSeconds, nanos])),
  negative: fc
    .tuple(fc.integer({ min: -315_576_000_000, max: -1 }), NANOS)
    .map(([seconds, nanos]) => duration([seconds, -nanos])),
  large: fc.tuple(fc.integer({ min: maxSeconds + 1, max: 315_575_999_999 }), NANOS).map(duration),
  "signs differ": SOME_NANOS.map((nanos) => ({
    binary: { seconds: 2n, nanos: -nanos },
    quotes: `has 2 seconds and ${-nanos} nanoseconds`,
  })),
  "nanoseconds out of range": fc.integer({ min: 1_000_000_000, max: INT32_MAX }).map((nanos) => ({
    binary: { seconds: 0n, nanos },
    quotes: `has 0 seconds and ${nanos} nanoseconds`,
  })),
});

const PAGE_TOKEN: BadKinds = {
  "not a token": fc
    .oneof(
      fc.string({ unit: "grapheme", minLength: 1, maxLength: 60 }),
      fc.string({ minLength: 1 }).map((content) => Buffer.from(content).toString("base64url")),
    )
    .filter((text) => text !== "")
    .map(quoted),
  "not of this list": fc
    .constantFrom('["list","price",false,1,"p"]', "other:1")
    .map((content) => quoted(Buffer.from(content).toString("base64url"))),
  "not base64url": fc
    .constantFrom('["list","name",false,"x","p"]', "version:1", "reservation:1:x")
    .map((content) => quoted(`${Buffer.from(content).toString("base64url")}!`)),
};

const ORDER: BadKinds = {
  "unknown number": fc
    .oneof(fc.integer({ min: 5, max: INT32_MAX }), fc.integer({ min: -INT32_MAX - 1, max: -1 }))
    .map(number),
};
/** Every value of the field's type is valid. */
const ANY: BadKinds = {};

/** By the name of the field; with its message where a name has several meanings. */
const BAD_VALUES: Readonly<Record<string, BadKinds>> = {
  id: ID,
  product_id: ID,
  product_ids: { ...OPTIONAL_ID, empty: fc.constant(both("", "is empty;")) },
  reservation_id: ID,
  return_id: ID,
  count_id: ID,
  adjustment_id: ID,
  reference_id: OPTIONAL_ID,
  collection_id: OPTIONAL_ID,
  name: { ...ABSENT, ...textOf(512) },
  description: textOf(16_384),
  reason: textOf(512),
  query: textOf(256),
  price: { ...ABSENT, ...PRICE },
  min_price: PRICE,
  max_price: PRICE,
  declared: QUANTITY,
  count: { ...ABSENT, ...QUANTITY },
  safety: { ...ABSENT, ...QUANTITY },
  quantity: { ...ABSENT, ...integerOutside(1, INT32_MAX) },
  delta: {
    ...ABSENT,
    zero: fc.constant(number(0)),
    lowest: fc.constant(number(-INT32_MAX - 1)),
  },
  expected_version: ANY,
  page_size: integerOutsidePages(),
  page_token: PAGE_TOKEN,
  update_time: UPDATE_TIME,
  expire_before: TIME,
  ttl: durationOutside(1, 14_400),
  min_interval: durationOutside(0, 10),
  order: ORDER,
  product: ANY,
  lines: ANY,
  strict: ANY,
  in_stock_only: ANY,
  descending: ANY,
};

function integerOutsidePages(): BadKinds {
  // 0 means the default.
  const { above, below } = integerOutside(0, 1_000);
  assert.ok(above && below);
  return { above, below };
}

/** JSON that is not what ProtoJSON allows for the type of a field. */
export function wrongJson(field: DescField, isList: boolean): BadKinds {
  return { "not of the type": fc.constantFrom(...wrongValues(field, isList).map(jsonOnly)) };
}

function jsonOnly(value: unknown): BadValue {
  const text = JSON.stringify(value).toWellFormed();
  return { json: value, quotes: `is ${text.slice(0, QUOTED_CHARACTERS)}` };
}

function wrongValues(field: DescField, isList: boolean): readonly unknown[] {
  if (isList) {
    return ["x", 5, true, {}];
  }
  switch (field.message?.typeName ?? field.enum?.typeName) {
    case "google.protobuf.Timestamp":
      return ["", "yesterday", 1_700_000_000, {}, [], "2024-02-30T12:00:00Z", "10000-01-01T00:00:00Z"];
    case "google.protobuf.Duration":
      return ["", "1", "1.0000000001s", "5sx", "1m", 5, {}, ["1s"]];
    case "inventory.v1.ListOrder":
      return ["NOPE", "name", 1.5, true, {}];
  }
  switch (field.scalar) {
    case ScalarType.STRING:
      return [5, true, {}, ["x"], "lone \ud800 surrogate"];
    case ScalarType.BOOL:
      return ["true", 1, 0, {}, []];
    case ScalarType.INT32:
      return [1.5, INT32_MAX + 1, -INT32_MAX - 2, "x", "1.5", "", " 1", "0x1", true, {}, [1]];
    case ScalarType.UINT64:
      return [-1, "18446744073709551616", 1.5, "x", "", true, {}];
    case ScalarType.DOUBLE:
      return ["x", "", " 1", "1e999", "nan", true, {}, [1]];
  }
  assert.ok(field.message, `test/api/bad-values.ts needs the wrong JSON of ${field}`);
  return ["x", 5, true, []];
}

export function badValuesOf(field: DescField): BadKinds {
  const kinds = BAD_VALUES[field.name];
  assert.ok(kinds, `test/api/bad-values.ts needs the bad values of ${field}`);
  return kinds;
}

/** Lists with too few or too many elements. */
export function badLists(field: DescField, { name }: DescMethod): BadKinds {
  const [element, max] = field.message ? [{ productId: "x", quantity: 1 }, 100] : ["x", 1_000];
  const isOptional = name === "WatchStock" || name === "CommitReservation";
  return {
    ...(!isOptional && {
      empty: fc.constantFrom(both([], "has 0 entries"), both(undefined, "has 0 entries")),
    }),
    "too many": fc.integer({ min: max + 1, max: max + 100 }).map((length) =>
      both(
        Array.from({ length }, () => element),
        `has ${length} entries`,
      ),
    ),
  };
}
