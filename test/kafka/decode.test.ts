import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  type DeadLetterReason,
  type Decoded,
  decodeMessage,
  type Subject,
} from "../../server/kafka/decode.ts";
import { readTime } from "../../server/kafka/event-time.ts";
import { RecordHeaders } from "../../server/kafka/records/headers.ts";

const RECORD_MS = 1_696_699_445_123;
const RECORD_MICROS = RECORD_MS * 1_000;

type HeaderValue = string | Buffer | null;

interface Given {
  readonly value: unknown;
  readonly type?: HeaderValue | readonly HeaderValue[];
  readonly subject?: Subject;
  readonly timestamp?: string;
}

function decode({
  value,
  type = "Update",
  subject = "product",
  timestamp = String(RECORD_MS),
}: Given): Decoded {
  const bytes =
    value === null || Buffer.isBuffer(value)
      ? value
      : Buffer.from(typeof value === "string" ? value : JSON.stringify(value));
  return decodeMessage(
    {
      topic: subject,
      partition: 0,
      offset: "0",
      key: null,
      value: bytes,
      headers: headersOf(type),
      timestamp,
    },
    subject,
  );
}

function headersOf(type: HeaderValue | readonly HeaderValue[]): RecordHeaders {
  const types = Array.isArray(type) ? type : type === null ? [] : [type];
  return RecordHeaders.of(types.map((each) => ["MessageType", each]));
}

const full = {
  id: "p",
  createdAt: "2023-10-07T17:04:05.123456Z",
  updatedAt: "2023-10-07T17:04:05.123456Z",
  name: "Dress",
  description: "A dress.",
  price: 29.99,
  inventory: 100,
  collectionId: "c",
};
const FULL_MICROS = 1_696_698_245_123_456;
const details = { name: "Dress", description: "A dress.", price: 29.99, collectionId: "c" };

function upsert(fields: object): Decoded {
  const nothing = { declared: undefined, details: undefined, updateTimeMicros: RECORD_MICROS };
  return { kind: "upsert", event: { productId: "p", ...nothing, ...fields } } as Decoded;
}

describe("a product message becomes an event", () => {
  const cases: Record<string, [Given, Decoded]> = {
    "the full form": [{ value: full }, upsert({ declared: 100, details, updateTimeMicros: FULL_MICROS })],
    "Create means the same": [
      { value: full, type: "Create" },
      upsert({ declared: 100, details, updateTimeMicros: FULL_MICROS }),
    ],
    "the header as bytes": [
      { value: full, type: Buffer.from("Create") },
      upsert({ declared: 100, details, updateTimeMicros: FULL_MICROS }),
    ],
    "the last of several headers counts": [
      { value: { id: "p" }, type: ["Nonsense", Buffer.from("Delete")] },
      { kind: "delete", event: { productId: "p", updateTimeMicros: RECORD_MICROS } },
    ],
    "the older form, at the record's time": [{ value: { id: "p", quantity: 7 } }, upsert({ declared: 7 })],
    "a price edit without a stock number": [
      { value: { ...full, inventory: undefined } },
      upsert({ details, updateTimeMicros: FULL_MICROS }),
    ],
    "null is not given": [
      { value: { ...full, inventory: null, description: null, collectionId: null, updatedAt: null } },
      upsert({ details: { ...details, description: "", collectionId: "" } }),
    ],
    "name and price are enough of details": [
      { value: { id: "p", name: "N", price: 0 } },
      upsert({ details: { name: "N", description: "", price: 0, collectionId: "" } }),
    ],
    "stock alone in the full form": [{ value: { id: "p", inventory: 0 } }, upsert({ declared: 0 })],
    "an ID alone says that the product is there": [{ value: { id: "p" } }, upsert({})],
    "both stock fields where they agree": [
      { value: { id: "p", inventory: 3, quantity: 3 } },
      upsert({ declared: 3 }),
    ],
    "whole numbers however they are written": [
      { value: '{"id":"p","quantity":1.2e1}' },
      upsert({ declared: 12 }),
    ],
    "minus zero is zero": [{ value: '{"id":"p","quantity":-0}' }, upsert({ declared: 0 })],
    "the largest count": [
      { value: { id: "p", quantity: 2_147_483_647 } },
      upsert({ declared: 2_147_483_647 }),
    ],
    "fields that nobody knows": [{ value: { id: "p", quantity: 1, colour: "red" } }, upsert({ declared: 1 })],
    "Go's time that was never set": [
      { value: { id: "p", quantity: 1, updatedAt: "0001-01-01T00:00:00Z" } },
      upsert({ declared: 1 }),
    ],
    "a deletion with all that it had": [
      { value: { ...full, deletedAt: full.updatedAt }, type: "Delete" },
      { kind: "delete", event: { productId: "p", updateTimeMicros: FULL_MICROS } },
    ],
    "a deletion by deletedAt alone": [
      { value: { id: "p", deletedAt: full.updatedAt }, type: "Delete" },
      { kind: "delete", event: { productId: "p", updateTimeMicros: FULL_MICROS } },
    ],
    "a deletion whose other fields are nonsense": [
      { value: { id: "p", inventory: "many", price: -1 }, type: "Delete" },
      { kind: "delete", event: { productId: "p", updateTimeMicros: RECORD_MICROS } },
    ],
  };
  for (const [name, [given, expected]] of Object.entries(cases)) {
    it(name, () => assert.deepEqual(decode(given), expected));
  }
});

describe("a collection message becomes an event", () => {
  const value = { id: "c", updatedAt: full.updatedAt, name: "Spring" };
  it("with its name, and no description", () => {
    const collection = { collectionId: "c", name: "Spring", description: "" };
    assert.deepEqual(decode({ value, subject: "collection", type: "Create" }), {
      kind: "collection",
      event: { collectionId: "c", collection, updateTimeMicros: FULL_MICROS },
    });
  });
  it("of a deletion", () => {
    assert.deepEqual(decode({ value, subject: "collection", type: "Delete" }), {
      kind: "collection",
      event: { collectionId: "c", collection: undefined, updateTimeMicros: FULL_MICROS },
    });
  });
});

describe("a message that can never be applied has a reason", () => {
  const cases: [DeadLetterReason, string, Given][] = [
    ["no-message-type", "no header", { value: full, type: null }],
    ["no-message-type", "no header in the list", { value: full, type: [] }],
    ["unknown-message-type", "lower case", { value: full, type: "create" }],
    ["unknown-message-type", "empty", { value: full, type: "" }],
    ["not-json", "no value", { value: null }],
    ["not-json", "an empty value", { value: "" }],
    ["not-json", "cut off", { value: '{"id":"p",' }],
    ["not-json", "no UTF-8", { value: Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x7d]) }],
    ["not-json", "a list", { value: "[]" }],
    ["not-json", "null", { value: "null" }],
    ["not-json", "a number", { value: "7" }],
    ["bad-id", "no ID", { value: { quantity: 1 } }],
    ["bad-id", "a number", { value: { id: 7, quantity: 1 } }],
    ["bad-id", "null", { value: { id: null, quantity: 1 } }],
    ["bad-id", "empty", { value: { id: "", quantity: 1 } }],
    ["bad-id", "a control character", { value: { id: "a\u0000b" } }],
    ["bad-id", "129 bytes", { value: { id: `${"é".repeat(64)}e` } }],
    ["bad-id", "a lone surrogate", { value: '{"id":"\\ud800"}' }],
    ["bad-id", "of a deletion", { value: { id: "" }, type: "Delete" }],
    ["bad-id", "of a collection", { value: { name: "N" }, subject: "collection" }],
    ["bad-stock", "negative", { value: { id: "p", inventory: -1 } }],
    ["bad-stock", "a fraction", { value: { id: "p", quantity: 1.5 } }],
    ["bad-stock", "a text", { value: { id: "p", quantity: "7" } }],
    ["bad-stock", "above int32", { value: { id: "p", inventory: 2_147_483_648 } }],
    ["bad-stock", "beyond every number", { value: '{"id":"p","quantity":1e999}' }],
    ["bad-stock", "a truth value", { value: { id: "p", inventory: true } }],
    ["bad-stock", "two that differ", { value: { id: "p", inventory: 1, quantity: 2 } }],
    ["bad-details", "a negative price", { value: { ...full, price: -1 } }],
    ["bad-details", "a price as text", { value: { ...full, price: "29.99" } }],
    ["bad-details", "a name of 513 bytes", { value: { ...full, name: "n".repeat(513) } }],
    ["bad-details", "a collection ID with a line break", { value: { ...full, collectionId: "a\nb" } }],
    ["bad-details", "a name that is a list", { value: { ...full, name: [] } }],
    ["incomplete-details", "a price alone", { value: { id: "p", price: 1 } }],
    ["incomplete-details", "a name alone", { value: { id: "p", name: "N" } }],
    ["incomplete-details", "a price beside a stock number", { value: { id: "p", price: 1, inventory: 5 } }],
    ["incomplete-details", "a collection without a name", { value: { id: "c" }, subject: "collection" }],
    ["bad-time", "no time", { value: { ...full, updatedAt: "yesterday" } }],
    ["bad-time", "a number", { value: { ...full, updatedAt: 1_696_698_245 } }],
    ["bad-time", "without a zone", { value: { ...full, updatedAt: "2023-10-07T17:04:05" } }],
    ["bad-time", "a day that is none", { value: { ...full, updatedAt: "2023-02-29T00:00:00Z" } }],
    ["bad-time", "before 1970", { value: { ...full, updatedAt: "1969-12-31T23:59:59.999999Z" } }],
    ["bad-time", "no record timestamp", { value: { id: "p", quantity: 1 }, timestamp: "-1" }],
    ["time-ahead", "the year 9999", { value: { ...full, updatedAt: "9999-12-31T23:59:59Z" } }],
  ];
  for (const [reason, name, given] of cases) {
    it(`${reason}: ${name}`, () => {
      const decoded = decode(given);
      assert.equal(decoded.kind, "dead");
      assert.ok(decoded.kind === "dead");
      assert.equal(decoded.reason, reason);
      assert.notEqual(decoded.detail, "");
    });
  }
});

describe("a time is parsed to the microsecond", () => {
  const cases: Record<string, number | string> = {
    "1970-01-01T00:00:00Z": 0,
    "2023-10-07T17:04:05.123456Z": FULL_MICROS,
    "2023-10-07T17:04:05.123456789Z": FULL_MICROS,
    "2023-10-07T17:04:05.1234569Z": FULL_MICROS,
    "2023-10-07T19:04:05.123456+02:00": FULL_MICROS,
    "2023-10-07T11:34:05.123456-05:30": FULL_MICROS,
    "2023-10-07t17:04:05.123456z": FULL_MICROS,
    "2023-10-07T17:04:05Z": FULL_MICROS - 123_456,
    "2023-10-07T17:04:05.5Z": FULL_MICROS - 123_456 + 500_000,
    "2024-02-29T00:00:00.000001Z": 1_709_164_800_000_001,
    "2255-06-05T23:47:34.740991Z": Number.MAX_SAFE_INTEGER,
    "0001-01-01T00:00:00Z": "unset",
    "2023-13-01T00:00:00Z": "malformed",
    "2023-10-07T24:00:00Z": "malformed",
    "2023-10-07T17:04:60Z": "malformed",
    "2023-10-07T17:04:05.Z": "malformed",
    "2023-10-07T17:04:05.1234567890Z": "malformed",
    "2023-10-07 17:04:05Z": "malformed",
    " 2023-10-07T17:04:05Z": "malformed",
  };
  for (const [text, expected] of Object.entries(cases)) {
    it(text, () => assert.equal(readTime(text), expected));
  }

  it("two updates within a millisecond stay distinct", () => {
    const first = readTime("2023-10-07T17:09:41.000218Z");
    const second = readTime("2023-10-07T17:09:41.000219Z");
    assert.equal(Number(second) - Number(first), 1);
  });
});
