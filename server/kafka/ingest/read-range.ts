import type { Cluster, TopicPartition } from "../kafkajs/cluster.ts";
import { ErrorCode, throwIfError } from "../kafkajs/errors.ts";
import { readRecords, type Slice } from "../records/read-records.ts";
import { LoopBudget } from "./loop-budget.ts";

const FETCH_BYTES_MAX = 1024 * 1024;
const WAIT_MS = 500;

/**
 * Reads a partition outside of a consumer group, from an offset up to, but not including, `end`. Records that were
 * deleted are left out. Ends early before an open transaction.
 */
export async function* readRange(
  cluster: Cluster,
  partition: TopicPartition,
  from: bigint,
  end: bigint,
): AsyncGenerator<Slice> {
  const budget = new LoopBudget();
  for (let position = from; position < end; ) {
    const [fetched] = await cluster.fetch(await cluster.leaderOf(partition), {
      partitions: [{ ...partition, offset: position, bytesMax: FETCH_BYTES_MAX }],
      waitMs: WAIT_MS,
      bytesMax: FETCH_BYTES_MAX,
      isCommittedOnly: true,
    });
    const errorCode = fetched?.errorCode ?? ErrorCode.unknownTopicOrPartition;
    if (errorCode === ErrorCode.offsetOutOfRange) {
      const earliest = await cluster.earliestOffset(partition);
      if (earliest <= position) {
        return;
      }
      position = earliest;
      continue;
    }
    throwIfError(errorCode);
    if (fetched === undefined || fetched.records.length === 0) {
      return;
    }
    const { records, abortedTransactions } = fetched;
    for await (const slice of readRecords({ ...partition, position, records, abortedTransactions }, budget)) {
      const messages = slice.messages.filter(({ offset }) => BigInt(offset) < end);
      position = slice.next;
      if (position > end) {
        position = end;
      }
      yield { ...slice, messages, next: position };
    }
  }
}
