import { type DescEnum, type DescField, type DescMessage, ScalarType } from "@bufbuild/protobuf";

/** A way to write a value in JSON. */
export interface Spelling {
  /** As it stands in the text. */
  readonly text: string;
  /** The value of the field, as protobuf-es takes it. `undefined` where ProtoJSON does not allow the text. */
  readonly value?: unknown;
}

const accepted = (value: unknown, ...texts: readonly string[]): Spelling[] =>
  texts.map((text) => ({ text, value }));
const refused = (...texts: readonly string[]): Spelling[] => texts.map((text) => ({ text }));

const NO_NUMBERS = refused(
  ...['""', '" "', '"2 "', '" 2"', '"+2"', '"2."', '".2e1"', '"02"', '"0x2"', '"0b10"', '"0o2"', '"2_0"'],
  ...['"２"', '"two"', '"2\\n"', '"1e"', '"--2"', "true", "false", "[]", "[2]", "{}"],
);

const INT32: readonly Spelling[] = [
  ...accepted(2, "2", "2.0", "20e-1", "0.2e1", "2E+0", "2.000000000000000000000000", '"2"', '"2.0"', '"2e0"'),
  ...accepted(0, "0", "-0", "0.0", "0e99999", '"-0"'),
  ...accepted(-1, "-1", '"-1"', "-10e-1"),
  ...accepted(2_147_483_647, "2147483647", '"2147483647"', "2.147483647e9"),
  ...accepted(-2_147_483_648, "-2147483648"),
  ...NO_NUMBERS,
  ...refused(
    "2147483648",
    "-2147483649",
    '"2147483648"',
    "4294967298",
    "1e10",
    "1e99999",
    "99999999999999999999",
  ),
  ...refused("2.5", '"2.5"', "2.0000000000000000001", "1e-1", '"NaN"', '"Infinity"', '"-Infinity"'),
];

const UINT64: readonly Spelling[] = [
  ...accepted(2n, "2", "2.0", "20e-1", '"2"', '"2.0"', '"2e0"'),
  ...accepted(9_007_199_254_740_993n, "9007199254740993", '"9007199254740993"', "9007199254740993.0"),
  ...accepted(2n ** 64n - 1n, "18446744073709551615", '"18446744073709551615"'),
  ...NO_NUMBERS,
  ...refused("-1", '"-1"', "18446744073709551616", '"18446744073709551616"', "1e20", "2.5", '"2.5"', '"NaN"'),
];

const DOUBLE: readonly Spelling[] = [
  ...accepted(2.5, "2.5", "25e-1", "2.50", '"2.5"', '"25e-1"'),
  ...accepted(2, "2", '"2"'),
  ...accepted(-2.5, "-2.5", '"-2.5"'),
  ...accepted(Number.NaN, '"NaN"'),
  ...accepted(Number.POSITIVE_INFINITY, '"Infinity"'),
  ...accepted(Number.NEGATIVE_INFINITY, '"-Infinity"'),
  ...NO_NUMBERS,
  ...refused("1e400", "-1e400", '"1e400"', '"nan"', '"Inf"', '"infinity"', '"+Infinity"'),
];

const BOOL: readonly Spelling[] = [
  ...accepted(true, "true"),
  ...accepted(false, "false"),
  ...refused('"true"', '"false"', "1", "0", '""', "[]", "{}"),
];

const STRING: readonly Spelling[] = [
  ...accepted("aé🧶", '"aé🧶"', '"\\u0061\\u00e9\\ud83e\\uddf6"'),
  ...refused("1", "true", "[]", "{}", '["a"]'),
  ...refused('"\\ud83e"', '"a\\uddf6"', '"\\uddf6\\ud83e"'),
];

const TIMESTAMP: readonly Spelling[] = [
  ...accepted(
    { seconds: 1_704_067_200n, nanos: 0 },
    '"2024-01-01T00:00:00Z"',
    '"2024-01-01T00:00:00.0Z"',
    '"2024-01-01T01:30:00+01:30"',
    '"2023-12-31T23:00:00-01:00"',
    '"2024-01-01T00:00:00-00:00"',
  ),
  ...accepted({ seconds: 1_709_164_800n, nanos: 123_456_789 }, '"2024-02-29T00:00:00.123456789Z"'),
  ...accepted({ seconds: 1_704_067_200n, nanos: 100_000_000 }, '"2024-01-01T00:00:00.1Z"'),
  ...accepted({ seconds: -62_135_596_800n, nanos: 0 }, '"0001-01-01T00:00:00Z"'),
  ...refused('"2024-02-30T00:00:00Z"', '"2023-02-29T00:00:00Z"', '"2024-04-31T00:00:00Z"'),
  ...refused('"2024-00-01T00:00:00Z"', '"2024-13-01T00:00:00Z"', '"2024-01-00T00:00:00Z"'),
  ...refused('"2024-01-01T24:00:00Z"', '"2024-01-01T00:60:00Z"', '"2024-01-01T00:00:60Z"'),
  ...refused('"2024-01-01"', '"2024-01-01T00:00:00"', '"2024-01-01 00:00:00Z"', '"2024-01-01t00:00:00z"'),
  ...refused(
    '"2024-01-01T00:00:00+24:00"',
    '"2024-01-01T00:00:00+0100"',
    '"2024-01-01T00:00:00.1234567890Z"',
  ),
  ...refused(
    '"2024-01-01T00:00:00.Z"',
    '" 2024-01-01T00:00:00Z"',
    '"2024-01-01T00:00:00Z "',
    '"10000-01-01T00:00:00Z"',
  ),
  ...refused('"0001-01-01T00:00:00+00:01"', '""', "1704067200", '{"seconds":1}', "[]", "true"),
];

const DURATION: readonly Spelling[] = [
  ...accepted({ seconds: 5n, nanos: 0 }, '"5s"', '"5.0s"', '"5.000000000s"'),
  ...accepted({ seconds: 5n, nanos: 500_000_000 }, '"5.5s"', '"5.500s"'),
  ...accepted({ seconds: 5n, nanos: 1 }, '"5.000000001s"'),
  ...accepted({ seconds: 0n, nanos: -500_000_000 }, '"-0.5s"'),
  ...refused(
    '"5"',
    '"5sx"',
    '"5s "',
    '" 5s"',
    '"5 s"',
    '"5S"',
    '"s"',
    '""',
    '".5s"',
    '"5.s"',
    '"1e1s"',
    '"+5s"',
  ),
  ...refused('"1.0000000001s"', '"5m"', '"0x5s"', '"315576000001s"', "5", '{"seconds":5}', "[]", "true"),
];

const spellingsOfEnum = ({ values }: DescEnum): readonly Spelling[] => [
  ...accepted(2, JSON.stringify(values[2]?.name), "2", "2.0", "20e-1"),
  ...accepted(99, "99"),
  ...refused(
    '"NOPE"',
    '"price"',
    '"PRICE"',
    '"list_order_price"',
    '"2"',
    '""',
    "2.5",
    "true",
    "2147483648",
    "[]",
  ),
];

const MESSAGE: readonly Spelling[] = refused('"x"', '""', "1", "1.5", "true", "[]", "[{}]");
const LIST: readonly Spelling[] = refused('"x"', '""', "1", "1.5", "true", "{}", '{"0":"x"}');
/** A list has no place for null. */
const ITEM: readonly Spelling[] = refused("null");

/** One field of a request. */
export interface Place {
  readonly field: DescField;
  /** `product.name`, `lines[0].quantity`. */
  readonly path: string;
  /** The keys that lead to the field; `0` leads to the first item of a list. */
  readonly keys: readonly (string | number)[];
  readonly spellings: readonly Spelling[];
}

/** Every field of a request, the fields of its messages and the items of its lists. */
export function placesOf(message: DescMessage, keys: Place["keys"] = [], prefix = ""): Place[] {
  return message.fields.flatMap((field): Place[] => {
    const path = `${prefix}${field.name}`;
    const ownKeys = [...keys, field.localName];
    const own = { field, path, keys: ownKeys };
    if (field.fieldKind !== "list") {
      return [{ ...own, spellings: spellingsOf(field) }, ...fieldsOf(field, ownKeys, path)];
    }
    const itemKeys = [...ownKeys, 0];
    const item = { field, path: `${path}[0]`, keys: itemKeys, spellings: [...spellingsOf(field), ...ITEM] };
    return [{ ...own, spellings: LIST }, item, ...fieldsOf(field, itemKeys, item.path)];
  });
}

function fieldsOf(field: DescField, keys: Place["keys"], path: string): Place[] {
  return field.message && !isWellKnown(field.message) ? placesOf(field.message, keys, `${path}.`) : [];
}

function isWellKnown({ typeName }: DescMessage): boolean {
  return typeName.startsWith("google.protobuf.");
}

const WELL_KNOWN: Readonly<Record<string, readonly Spelling[]>> = {
  "google.protobuf.Timestamp": TIMESTAMP,
  "google.protobuf.Duration": DURATION,
};
const SCALARS: Readonly<Partial<Record<ScalarType, readonly Spelling[]>>> = {
  [ScalarType.INT32]: INT32,
  [ScalarType.UINT64]: UINT64,
  [ScalarType.DOUBLE]: DOUBLE,
  [ScalarType.BOOL]: BOOL,
  [ScalarType.STRING]: STRING,
};

function spellingsOf(field: DescField): readonly Spelling[] {
  const spellings =
    field.message !== undefined
      ? isWellKnown(field.message)
        ? WELL_KNOWN[field.message.typeName]
        : MESSAGE
      : field.enum !== undefined
        ? spellingsOfEnum(field.enum)
        : SCALARS[field.scalar as ScalarType];
  if (spellings === undefined) {
    throw new Error(`test/rpc/json-spellings.ts needs the spellings of ${field}`);
  }
  return spellings;
}
