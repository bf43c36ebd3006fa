import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  type DeadLetterReason,
  type Decoded,
  decodeMessage,
  type Subject,
} from "../../server/kafka/ingest/decode.ts";
import { readTime } from "../../server/kafka/ingest/event-time.ts";
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
const LATER = "2023-10-07T17:04:06.123456Z";
const LATER_MICROS = FULL_MICROS + 1_000_000;
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
    "a deletion later than the update of its row": [
      { value: { ...full, deletedAt: LATER }, type: "Delete" },
      { kind: "delete", event: { productId: "p", updateTimeMicros: LATER_MICROS } },
    ],
    "an update of a row that was deleted softly": [
      { value: { ...full, deletedAt: LATER } },
      { kind: "delete", event: { productId: "p", updateTimeMicros: LATER_MICROS } },
    ],
    "a create of a row that was deleted softly and changed later": [
      { value: { ...full, updatedAt: LATER, deletedAt: full.updatedAt }, type: "Create" },
      { kind: "delete", event: { productId: "p", updateTimeMicros: LATER_MICROS } },
    ],
    "a deletion time that was never set": [
      { value: { ...full, deletedAt: "0001-01-01T00:00:00Z" } },
      upsert({ declared: 100, details, updateTimeMicros: FULL_MICROS }),
    ],
    "a tombstone": [{ value: null }, { kind: "tombstone" }],
    "a tombstone without a message type": [{ value: null, type: null }, { kind: "tombstone" }],
    "a tombstone of a deletion": [{ value: null, type: "Delete" }, { kind: "tombstone" }],
  };
  for (const [name, [given, expected]] of Object.entries(cases)) {
    it(name, () => assert.deepEqual(decode(given), expected));
  }
});

describe("a fault in the stock or the details leaves the other applied", () => {
  const stock = { declared: 100, updateTimeMicros: FULL_MICROS };
  const rest = { details, updateTimeMicros: FULL_MICROS };
  const cases: [DeadLetterReason, string, object, object, RegExp][] = [
    ["bad-details", "a negative price", { ...full, price: -1 }, stock, /price is -1/],
    ["bad-details", "a price above its bound", { ...full, price: 1e13 }, stock, /price is 10000000000000/],
    ["bad-details", "a price as text", { ...full, price: "29.99" }, stock, /^price: /],
    ["bad-details", "a name of 513 bytes", { ...full, name: "n".repeat(513) }, stock, /name has 513 bytes/],
    ["bad-details", "a name that is a list", { ...full, name: [] }, stock, /^name: /],
    [
      "bad-details",
      "a description of 16,385 bytes",
      { ...full, description: "d".repeat(16_385) },
      stock,
      /description has 16385 bytes/,
    ],
    [
      "bad-details",
      "a collection ID with a line break",
      { ...full, collectionId: "a\nb" },
      stock,
      /collection_id/,
    ],
    ["bad-details", "a lone surrogate in the name", { ...full, name: "\ud800" }, stock, /surrogate/],
    [
      "incomplete-details",
      "a price without a name",
      { ...full, name: undefined },
      stock,
      /^name is not given/,
    ],
    ["incomplete-details", "a name without a price", { ...full, price: null }, stock, /^price is not given/],
    ["bad-stock", "a negative count", { ...full, inventory: -1 }, rest, /^inventory is -1/],
    ["bad-stock", "a fraction", { ...full, inventory: 1.5 }, rest, /^inventory is 1.5/],
    ["bad-stock", "a count as text", { ...full, inventory: "7" }, rest, /^inventory: /],
    ["bad-stock", "a count above int32", { ...full, inventory: 2 ** 31 }, rest, /^inventory is 2147483648/],
    [
      "bad-stock",
      "two counts that differ",
      { ...full, quantity: 2 },
      rest,
      /inventory is 100 and quantity is 2/,
    ],
  ];
  for (const [reason, name, value, applied, detail] of cases) {
    it(`${reason}: ${name}`, () => {
      const decoded = decode({ value });
      assert.ok(decoded.kind === "upsert");
      const { rejected, ...event } = decoded;
      assert.deepEqual(event, upsert(applied));
      assert.equal(rejected?.reason, reason);
      assert.match(rejected.detail, detail);
    });
  }

  it("nothing is applied if both are at fault, and the detail names both", () => {
    const decoded = decode({ value: { ...full, inventory: -1, price: -2 } });
    assert.ok(decoded.kind === "dead");
    assert.equal(decoded.reason, "bad-stock");
    assert.match(decoded.detail, /inventory is -1.*price is -2/);
  });
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
  const deletions: Record<string, Given> = {
    "of a deletion": { value, type: "Delete" },
    "of a deletion whose other fields are invalid": { value: { ...value, name: 7 }, type: "Delete" },
    "of a deletion from an update with deletedAt": { value: { ...value, deletedAt: full.updatedAt } },
  };
  for (const [name, given] of Object.entries(deletions)) {
    it(name, () => {
      assert.deepEqual(decode({ ...given, subject: "collection" }), {
        kind: "collection",
        event: { collectionId: "c", collection: undefined, updateTimeMicros: FULL_MICROS },
      });
    });
  }
  it("of a tombstone", () => {
    assert.deepEqual(decode({ value: null, subject: "collection" }), { kind: "tombstone" });
  });
});

describe("a message that can never be applied has a reason", () => {
  const cases: [DeadLetterReason, string, Given][] = [
    ["no-message-type", "no header", { value: full, type: null }],
    ["no-message-type", "no header in the list", { value: full, type: [] }],
    ["unknown-message-type", "lower case", { value: full, type: "create" }],
    ["unknown-message-type", "empty", { value: full, type: "" }],
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
    ["bad-details", "a negative price and no stock", { value: { id: "p", name: "N", price: -1 } }],
    [
      "bad-details",
      "a collection's name that is a number",
      { value: { id: "c", name: 7 }, subject: "collection" },
    ],
    ["bad-time", "a deletion time that is none", { value: { ...full, deletedAt: "yesterday" } }],
    ["bad-time", "a deletion time that is a truth value", { value: { ...full, deletedAt: true } }],
    ["time-ahead", "a deletion in the year 9999", { value: { ...full, deletedAt: "9999-12-31T23:59:59Z" } }],
    ["incomplete-details", "a price alone", { value: { id: "p", price: 1 } }],
    ["incomplete-details", "a name alone", { value: { id: "p", name: "N" } }],
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
