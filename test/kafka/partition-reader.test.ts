import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { pino } from "pino";
import type { Fetcher } from "../../server/kafka/ingest/fetcher.ts";
import { LoopBudget } from "../../server/kafka/ingest/loop-budget.ts";
import { PartitionReader } from "../../server/kafka/ingest/partition-reader.ts";
import type { Cluster } from "../../server/kafka/kafkajs/cluster.ts";
import { ErrorCode } from "../../server/kafka/kafkajs/errors.ts";
import { until } from "../support/until.ts";
import { encodeRawBatch, record } from "./raw-producer.ts";

/** Three slices or more. */
const RECORDS = 700;
const partition = { topic: "t", partition: 0 };

interface ReaderOptions {
  /** The offset after the last record of the partition. */
  readonly end: number;
  readonly commit: (offset: number) => Promise<void>;
}

/** Reads a partition from offset 0, and notes what it asks for and what it processes. */
function startReader({ end, commit }: ReaderOptions) {
  const asked: number[] = [];
  const processed: number[] = [];
  /** The offset after each slice. */
  const slices: number[] = [];
  const batch = encodeRawBatch(
    Array.from({ length: RECORDS }, () => record({})),
    "none",
  );
  const fetcher: Pick<Fetcher, "fetch" | "release"> = {
    release: () => {},
    fetch: async (_, offset, signal) => {
      asked.push(Number(offset));
      if (offset >= RECORDS) {
        await new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
      }
      const lastStableOffset = BigInt(end);
      const highWatermark = lastStableOffset;
      const errorCode = ErrorCode.none;
      return {
        ...partition,
        errorCode,
        highWatermark,
        lastStableOffset,
        abortedTransactions: [],
        records: batch,
      };
    },
  };
  const reader = new PartitionReader({
    cluster: {} as Cluster,
    fetcher: fetcher as Fetcher,
    budget: new LoopBudget(),
    partition,
    position: 0n,
    process: async ({ messages, next }) => {
      slices.push(Number(next));
      processed.push(...messages.map(({ offset }) => Number(offset)));
    },
    commit: (offset) => commit(Number(offset)),
    onUnknownTopic: async () => {},
    log: pino({ level: "silent" }),
  });
  return { reader, asked, processed, slices };
}

describe("a partition's reader", () => {
  it("processes the next slice while one is committed, commits one at a time, and fetches further records", async () => {
    const commits: { readonly offset: number; readonly acknowledge: () => void }[] = [];
    const { reader, asked, slices } = startReader({
      end: RECORDS + 1,
      commit: (offset) => new Promise((resolve) => commits.push({ offset, acknowledge: resolve })),
    });
    await until(() => slices.length === 2, "the second slice is processed");
    assert.deepEqual(asked, [0, RECORDS]);
    for (let n = 1; commits.at(-1)?.offset !== RECORDS; n++) {
      assert.deepEqual(
        commits.map(({ offset }) => offset),
        slices.slice(0, n),
      );
      commits.at(-1)?.acknowledge();
      await until(() => commits.length > n, "the next slice is committed");
    }
    commits.at(-1)?.acknowledge();
    await reader.stop();
    assert.deepEqual(
      commits.map(({ offset }) => offset),
      slices,
    );
    assert.deepEqual(asked, [0, RECORDS], "the records that were fetched ahead are used");
  });

  it("does not fetch ahead at the end of the partition", async () => {
    const committed = Promise.withResolvers<void>();
    const { reader, asked, slices } = startReader({ end: RECORDS, commit: () => committed.promise });
    await until(() => slices.length === 2, "the second slice is processed");
    assert.deepEqual(asked, [0]);
    committed.resolve();
    await until(() => asked.length === 2, "all slices are processed");
    await reader.stop();
    assert.deepEqual(asked, [0, RECORDS]);
  });

  it("repeats a commit that failed before it goes on, and processes nothing twice", async () => {
    const commits: number[] = [];
    const { reader, processed, slices } = startReader({
      end: RECORDS,
      commit: async (offset) => {
        commits.push(offset);
        if (commits.length === 1) {
          throw new Error("The coordinator is not available");
        }
      },
    });
    await until(() => commits.at(-1) === RECORDS, "all is committed");
    await reader.stop();
    assert.deepEqual(commits, slices);
    assert.deepEqual(
      processed,
      Array.from({ length: RECORDS }, (_, offset) => offset),
    );
  });
});
