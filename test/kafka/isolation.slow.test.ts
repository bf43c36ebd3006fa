import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { originOf } from "../../server/kafka/dead-letters/dead-letters.ts";
import { assertKeepsOriginal, type Isolation, recordsOf, startIsolation } from "./isolation.ts";
import { skip } from "./platform.ts";
import {
  type Codec,
  produceRaw,
  type RawHeader,
  type RawRecord,
  record,
  TYPE_UPDATE,
} from "./raw-producer.ts";

/**
 * The aim is a delay of less than 50 ms, which is printed. This bound is for an algorithm that takes time out of
 * proportion, with which these inputs take seconds; a busy machine does not reach it.
 */
const DELAY_MS_MAX = 1_000;
const MEBIBYTE = 1024 * 1024;
/** Below a broker's default `max.message.bytes`, with room for the batch. */
const LARGE = 1_000_000;

interface Hostile {
  readonly name: string;
  readonly records: readonly RawRecord[];
  readonly codec?: Codec;
  /** The reason of every record's letter; `undefined` if the records are applied. */
  readonly reason: string | undefined;
  /** Letters for all records together. One for each record unless given. */
  readonly letters?: number;
}

const many = <T>(count: number, make: (index: number) => T): T[] =>
  Array.from({ length: count }, (_, i) => make(i));
const header = (name: string, value: string | null): RawHeader => [
  Buffer.from(name),
  value === null ? null : Buffer.from(value),
];
const good = (id: string) => ({ id, quantity: 7 });

const MANY_HEADERS: Hostile = {
  name: "60,000 headers with different names",
  records: [
    record(good("headers"), { headers: [...many(60_000, (i) => header(`h${i}`, "v")), TYPE_UPDATE] }),
  ],
  reason: undefined,
};
const SNAPPY: Hostile = {
  name: "snappy of a megabyte",
  records: [record({ ...good("snappy"), x: "y".repeat(900_000) })],
  codec: "snappy",
  reason: undefined,
};

/** Every input that has stopped a consumer, here or in public reports on others. */
const HOSTILE: readonly Hostile[] = [
  {
    name: "an event like any other, which shows what a server that has just started takes",
    records: [record(good("plain"))],
    reason: undefined,
  },
  MANY_HEADERS,
  { ...MANY_HEADERS, name: `${MANY_HEADERS.name}, once more` },
  {
    name: "150,000 headers with the same name",
    records: [record({ id: "" }, { headers: [...many(150_000, () => header("h", "v")), TYPE_UPDATE] })],
    reason: "bad-id",
  },
  {
    name: "header names that every object has",
    records: ["__proto__", "constructor", "hasOwnProperty", "toString", "valueOf", "length"].map((name) =>
      record({ id: "" }, { headers: [header(name, "x"), TYPE_UPDATE, header(name, "y")] }),
    ),
    reason: "bad-id",
  },
  {
    name: "the message type in __proto__ only",
    records: [record(good("proto"), { headers: [header("__proto__", '{"MessageType":"Update"}')] })],
    reason: "no-message-type",
  },
  {
    name: "headers with null values, empty names and bytes that are not UTF-8",
    records: [
      record(
        { id: "" },
        { headers: [header("", null), [Buffer.from([0xff, 0xfe]), null], header("n", null), TYPE_UPDATE] },
      ),
    ],
    reason: "bad-id",
  },
  {
    name: "a null message type",
    records: [record(good("t"), { headers: [header("MessageType", null)] })],
    reason: "no-message-type",
  },
  {
    name: "a key of a megabyte",
    records: [record(good("key"), { key: Buffer.alloc(LARGE, "k") })],
    reason: undefined,
  },
  {
    name: "an invalid event with a key of a megabyte that is not UTF-8",
    records: [record({ id: "" }, { key: Buffer.alloc(LARGE, 0xff) })],
    reason: "bad-id",
  },
  {
    name: "a megabyte of nested arrays",
    records: [record(Buffer.from("[".repeat(LARGE / 2) + "]".repeat(LARGE / 2)))],
    reason: "not-json",
  },
  {
    name: "an object with 90,000 members",
    records: [
      record(Object.fromEntries([["id", "members"], ["quantity", 1], ...many(90_000, (i) => [`k${i}`, 1])])),
    ],
    reason: undefined,
  },
  {
    name: "a time of a megabyte",
    records: [record({ id: "time", updatedAt: "2023-10-07T17:09:41.".padEnd(LARGE, "0") })],
    reason: "bad-time",
  },
  {
    name: "a trace context of a megabyte",
    records: [
      record(good("trace"), { headers: [header("traceparent", "00-".padEnd(LARGE, "0")), TYPE_UPDATE] }),
    ],
    reason: undefined,
  },
  {
    name: "100 large events in one batch",
    records: many(100, (i) => record({ ...good(`large-${i}`), ignored: "x".repeat(200_000) })),
    codec: "zstd",
    reason: undefined,
  },
  {
    name: "150,000 records in one batch",
    records: many(150_000, () => record(Buffer.alloc(0), { headers: [] })),
    codec: "zstd",
    reason: "no-message-type",
  },
  {
    name: "a batch that decompresses to 80 MB",
    records: many(80, () => record(Buffer.alloc(MEBIBYTE))),
    codec: "zstd",
    reason: "not-json",
    // The records up to 64 MB. The rest of the batch has one letter.
    letters: 63,
  },
  {
    name: "a record of 6 MB",
    records: [record(Buffer.alloc(6 * MEBIBYTE), { key: Buffer.from("big") })],
    codec: "gzip",
    reason: "too-large",
  },
  {
    name: "times before 1970 and in the far future",
    records: [record(good("past"), { timestamp: -1n }), record(good("past"), { timestamp: -86_400_000n })],
    reason: "bad-time",
  },
  SNAPPY,
  { ...SNAPPY, name: `${SNAPPY.name}, once more` },
  {
    name: "lz4 of a megabyte",
    records: [record({ ...good("lz4"), x: "y".repeat(900_000) })],
    codec: "lz4",
    reason: undefined,
  },
];

describe("whatever a message contains, it costs only itself", { skip }, () => {
  let isolation: Isolation;
  let worstDelayMs = 0;

  before(async () => {
    isolation = await startIsolation();
  });
  after(() => isolation?.[Symbol.asyncDispose]());

  for (const { name, records, codec = "none", reason, letters: count = records.length } of HOSTILE) {
    it(name, async (t) => {
      const { cluster, delayMs, untilApplied, untilCommitted, newLetters } = isolation;
      await delayMs();
      await newLetters();
      const from = await produceRaw(cluster, "product", 0, records, codec);
      const to = from + BigInt(records.length);
      const start = performance.now();
      await untilApplied(`beside ${name}`.slice(0, 100), 2);
      const besideMs = performance.now() - start;
      await untilCommitted(0, to);
      const delay = await delayMs();
      worstDelayMs = Math.max(worstDelayMs, delay);
      t.diagnostic(
        `event loop ${delay.toFixed(0)} ms; another partition's event took ${besideMs.toFixed(0)} ms; all ${(performance.now() - start).toFixed(0)} ms`,
      );
      const letters = await newLetters();
      if (reason === undefined) {
        assert.equal(letters.length, 0);
        return;
      }
      const own = letters.filter((letter) => originOf(letter.headers)?.reason === reason);
      assert.equal(own.length, count, `letters with the reason ${reason}`);
      assert.equal(
        letters.reduce((sum, letter) => sum + recordsOf(letter), 0),
        records.length,
        "every record",
      );
      if (reason !== "too-large") {
        for (const letter of own.slice(0, 1_000)) {
          const original = records[Number(BigInt(originOf(letter.headers)?.offset ?? 0) - from)];
          assert.ok(original);
          assertKeepsOriginal(letter, original);
        }
      }
      assert.ok(delay < DELAY_MS_MAX, `the event loop was delayed by ${delay} ms`);
    });
  }

  it("the longest delay of the event loop", (t) => {
    t.diagnostic(`${worstDelayMs.toFixed(0)} ms`);
    assert.ok(worstDelayMs > 0);
  });
});
