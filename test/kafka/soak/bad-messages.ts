import { randomBytes } from "node:crypto";
import { type Codec, type RawHeader, type RawRecord, record, TYPE_UPDATE } from "../raw-producer.ts";

/** A batch that has a message that can never be applied, or only in part. */
export interface BadBatch {
  readonly kind: string;
  readonly records: readonly RawRecord[];
  readonly codec: Codec;
  /** The reason of the letter of the record with the key `bad-N|`. */
  readonly reason: string;
  /** The product whose stock is applied nevertheless. */
  readonly applied?: string;
  /** The number of letters without a key, for a batch that cannot be read. */
  readonly batchLetters?: number;
}

/** The number in a key that `keyOf` made, also of a shortened one. */
export function numberOf(key: Buffer | null): number | undefined {
  const digits = /^bad-(\d+)\|/.exec(key?.subarray(0, 32).toString("latin1") ?? "")?.[1];
  return digits === undefined ? undefined : Number(digits);
}

const keyOf = (n: number): Buffer => Buffer.from(`bad-${n}|`);
const MEGABYTE = 1_000_000;
const MEBIBYTE = 1024 * 1024;
const header = (name: string, value: string): RawHeader => [Buffer.from(name), Buffer.from(value)];

type Make = (n: number) => Omit<BadBatch, "kind" | "codec"> & { readonly codec?: Codec };

const simple =
  (
    reason: string,
    value: (n: number) => object | Buffer,
    headers: readonly RawHeader[] = [TYPE_UPDATE],
  ): Make =>
  (n) => ({ reason, records: [record(value(n), { key: keyOf(n), headers })] });

const SMALL: Readonly<Record<string, Make>> = {
  "not JSON": simple("not-json", () => Buffer.from("{")),
  "not UTF-8": simple("not-json", () => Buffer.from([0xff, 0xfe, 0x00])),
  "no message type": simple("no-message-type", (n) => ({ id: `no-type-${n}`, quantity: 1 }), []),
  "message type in __proto__": simple("no-message-type", (n) => ({ id: `proto-${n}`, quantity: 1 }), [
    header("__proto__", '{"MessageType":"Update"}'),
  ]),
  "unknown message type": simple("unknown-message-type", () => ({ id: "u" }), [
    header("MessageType", "Upsert"),
  ]),
  "no ID": simple("bad-id", () => ({ quantity: 1 })),
  "header names that every object has": simple("bad-id", () => ({ id: "" }), [
    header("__proto__", "x"),
    header("constructor", "x"),
    TYPE_UPDATE,
    header("toString", "x"),
  ]),
  "stock below 0": simple("bad-stock", (n) => ({ id: `below-${n}`, inventory: -1 })),
  "price without name": simple("incomplete-details", (n) => ({ id: `incomplete-${n}`, price: 1 })),
  "time that is none": simple("bad-time", (n) => ({ id: `time-${n}`, quantity: 1, updatedAt: "soon" })),
  "time ahead": simple("time-ahead", (n) => ({
    id: `ahead-${n}`,
    quantity: 1,
    updatedAt: new Date(Date.now() + 3_600_000).toISOString(),
  })),
  "bad details beside good stock": (n) => ({
    reason: "bad-details",
    applied: `partial-${n}`,
    records: [
      record({ id: `partial-${n}`, inventory: 3, name: "n".repeat(1_000), price: 1 }, { key: keyOf(n) }),
    ],
  }),
};

const LARGE: Readonly<Record<string, Make>> = {
  "a letter that is too large for its topic": (n) => ({
    reason: "not-json",
    records: [record(Buffer.concat([Buffer.from("?"), randomBytes(1_048_300)]), { key: keyOf(n) })],
  }),
  "a key of a megabyte": (n) => ({
    reason: "bad-id",
    records: [record({ id: "" }, { key: Buffer.concat([keyOf(n), Buffer.alloc(MEGABYTE, "k")]) })],
  }),
  "60,000 headers": (n) => ({
    reason: "bad-id",
    records: [
      record(
        { id: "" },
        {
          key: keyOf(n),
          headers: [...Array.from({ length: 60_000 }, (_, i) => header(`h${i}`, "v")), TYPE_UPDATE],
        },
      ),
    ],
  }),
  "a megabyte of nested arrays": (n) => ({
    reason: "not-json",
    records: [record(Buffer.from("[".repeat(MEGABYTE / 2) + "]".repeat(MEGABYTE / 2)), { key: keyOf(n) })],
    codec: "gzip",
  }),
  "a record of 6 MB": (n) => ({
    reason: "too-large",
    records: [record(Buffer.alloc(6 * MEBIBYTE), { key: keyOf(n) })],
    codec: "gzip",
  }),
  "a batch that decompresses to 80 MB": (n) => ({
    reason: "bad-id",
    records: [
      record({ id: "" }, { key: keyOf(n) }),
      ...Array.from({ length: 80 }, () => record({ id: "bomb", quantity: 3, x: "y".repeat(MEBIBYTE) })),
    ],
    codec: "zstd",
    batchLetters: 1,
  }),
};

const CODECS: readonly Codec[] = ["none", "gzip", "snappy", "lz4", "zstd"];

const SMALL_KINDS = Object.entries(SMALL);
const LARGE_KINDS = Object.entries(LARGE);

export function smallBad(n: number, random: (below: number) => number): BadBatch {
  const [kind, make] = SMALL_KINDS[random(SMALL_KINDS.length)] ?? ["", simple("", () => ({}))];
  return { kind, codec: CODECS[random(CODECS.length)] ?? "none", ...make(n) };
}

/** Each kind in turn. */
export function largeBad(n: number, turn: number): BadBatch {
  const [kind, make] = LARGE_KINDS[turn % LARGE_KINDS.length] ?? ["", simple("", () => ({}))];
  return { kind, codec: "none", ...make(n) };
}
