import { setTimeout as wait } from "node:timers/promises";
import type { Metrics } from "../../ops/metrics.ts";
import { type Cluster, keyOf, type PartitionRange, type TopicPartition } from "../kafkajs/cluster.ts";
import { batchesOf } from "../records/batch.ts";
import type { TopicWatch } from "../topics.ts";
import { WatermarkHistory } from "./watermark-history.ts";

/** Interval between two polls of the offsets. */
const POLL_INTERVAL_MS = 2_000;
/** Enough for the header of a batch; brokers return the whole batch. */
const PROBE_BYTES = 1;

interface GroupLagOptions {
  readonly cluster: Cluster;
  readonly watch: TopicWatch;
  readonly group: string;
  readonly topics: readonly string[];
  readonly metrics: Metrics;
}

interface PartitionLag {
  readonly messages: number;
  /** ms since 1970 at which the oldest uncommitted message was written. */
  readonly since: number;
}

/**
 * Polls the brokers for the messages that the whole group has not committed. It does not depend on any consumer, so the
 * lag keeps growing when all of them have stopped. While the brokers cannot be asked, the last number of messages
 * remains, and the age counts from the last time at which nothing was waiting.
 */
export class GroupLag {
  readonly #options: GroupLagOptions;
  readonly #stopping = new AbortController();
  readonly #running: Promise<void>;
  readonly #histories = new Map<string, WatermarkHistory>();
  readonly #reported = new Map<string, TopicPartition>();
  #messages: number | undefined;
  /** ms since 1970 at which the oldest uncommitted message was written, or after which it may have been. */
  #since: number | undefined = Date.now();

  constructor(options: GroupLagOptions) {
    this.#options = options;
    this.#running = this.#pollUntilStopped();
  }

  /** Sum over all partitions; `undefined` while the brokers cannot be reached. */
  get messages(): number | undefined {
    return this.#messages;
  }

  /** Age of the oldest message that the group has not committed, in seconds; 0 if there is none. */
  get seconds(): number {
    return this.#since === undefined ? 0 : Math.max(0, Date.now() - this.#since) / 1_000;
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#running;
  }

  async #pollUntilStopped(): Promise<void> {
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      try {
        await this.#poll();
      } catch {
        // The ingestor and the publisher report an outage. Here the figure is unknown.
        this.#messages = undefined;
        this.#since ??= Date.now();
      }
      await wait(POLL_INTERVAL_MS, undefined, { signal }).catch(() => {});
    }
  }

  async #poll(): Promise<void> {
    const { cluster, watch, group, topics, metrics } = this.#options;
    if (watch.unreachable !== undefined) {
      throw new Error(watch.unreachable);
    }
    const partitions = topics.flatMap((topic) =>
      (watch.get(topic)?.partitions ?? []).map((partition) => ({ topic, partition })),
    );
    const committed = await cluster.committedOffsets(group, partitions);
    const ranges = await cluster.ranges(partitions);
    const now = Date.now();
    let [messages, since] = [0, Number.POSITIVE_INFINITY];
    for (const range of ranges) {
      const offset = committed.find((each) => keyOf(each) === keyOf(range))?.offset;
      const lag = await this.#lagOf(range, offset, now);
      const { topic, partition } = range;
      metrics.ingestLagMessages.set({ topic, partition: String(partition) }, lag.messages);
      messages += lag.messages;
      since = Math.min(since, lag.since);
    }
    this.#forgetOthers(ranges);
    this.#messages = messages;
    this.#since = messages === 0 ? undefined : since;
  }

  async #lagOf(range: PartitionRange, committed: bigint | undefined, now: number): Promise<PartitionLag> {
    const { earliest, latest } = range;
    const history = this.#histories.get(keyOf(range)) ?? new WatermarkHistory();
    this.#histories.set(keyOf(range), history);
    history.add(latest, now);
    // Without a commit the group starts at the earliest record, and so it does if the committed one was deleted.
    const next = committed !== undefined && committed > earliest ? committed : earliest;
    if (next >= latest) {
      history.forgetBefore(latest);
      return { messages: 0, since: now };
    }
    history.forgetBefore(next);
    const since =
      history.writtenAt(next) ??
      (await this.#timestampAt(range, next).catch(() => undefined)) ??
      history.since;
    return { messages: Number(latest - next), since: Math.min(since, now) };
  }

  /** Removes partitions that do not exist any more. */
  #forgetOthers(ranges: readonly TopicPartition[]): void {
    const existing = new Set(ranges.map(keyOf));
    for (const [key, { topic, partition }] of this.#reported) {
      const isGone = !(this.#options.watch.get(topic)?.partitions ?? []).includes(partition);
      if (!existing.has(key) && isGone) {
        this.#options.metrics.ingestLagMessages.remove({ topic, partition: String(partition) });
        this.#reported.delete(key);
        this.#histories.delete(key);
      }
    }
    for (const range of ranges) {
      this.#reported.set(keyOf(range), range);
    }
  }

  /** The time of the record at an offset as its batch has it; `undefined` if it is not a plausible time. */
  async #timestampAt(partition: TopicPartition, offset: bigint): Promise<number | undefined> {
    const { cluster } = this.#options;
    const nodeId = await cluster.leaderOf(partition);
    const [fetched] = await cluster.fetch(nodeId, {
      partitions: [{ ...partition, offset, bytesMax: PROBE_BYTES }],
      waitMs: 0,
      bytesMax: PROBE_BYTES,
      // Records of open transactions count, although no consumer can read them yet.
      isCommittedOnly: false,
    });
    for (const batch of batchesOf(fetched?.records ?? Buffer.alloc(0))) {
      if (batch.lastOffset >= offset) {
        const time = Number(batch.firstOffset >= offset ? batch.firstTimestamp : batch.maxTimestamp);
        return time > 0 ? time : undefined;
      }
    }
    return undefined;
  }
}
