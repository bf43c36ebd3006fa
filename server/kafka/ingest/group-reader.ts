import { setTimeout as wait } from "node:timers/promises";
import type { Logger } from "pino";
import type { KafkaClient } from "../kafkajs/client.ts";
import { type Cluster, keyOf, type TopicPartition } from "../kafkajs/cluster.ts";
import { GroupMember } from "../kafkajs/group-member.ts";
import type { TopicWatch } from "../topics.ts";
import type { EventProcessor } from "./event-processor.ts";
import type { Fetcher } from "./fetcher.ts";
import type { LoopBudget } from "./loop-budget.ts";
import { PartitionReader } from "./partition-reader.ts";

/** Attempts to read the committed offsets after a rebalance: a restarted broker needs a moment to load them. */
const OFFSET_ATTEMPTS_MAX = 10;
const OFFSET_RETRY_MS = 500;

export interface GroupReaderOptions {
  readonly kafka: KafkaClient;
  readonly cluster: Cluster;
  readonly fetcher: Fetcher;
  readonly watch: TopicWatch;
  readonly group: string;
  /** The topics to read, as far as they exist. */
  readonly topics: readonly string[];
  readonly processor: EventProcessor;
  readonly budget: LoopBudget;
  readonly log: Logger;
}

/**
 * One membership in the consumer group, with a reader for each partition that the group assigns to it. It ends with the
 * membership; the ingestor then replaces it.
 */
export class GroupReader {
  readonly #options: GroupReaderOptions;
  readonly #subscribed: readonly string[];
  readonly #readers = new Map<string, PartitionReader>();
  /** The ID of each topic as it is being read. A new one means that the topic was deleted and created again. */
  readonly #topicIds = new Map<string, string | undefined>();
  readonly #ending = new AbortController();
  readonly #failed = Promise.withResolvers<never>();
  /** Assignments are carried out one after the other. */
  #last: Promise<void> = Promise.resolve();
  #isAssigned = false;

  /** `subscribed` are those of the topics that exist now. */
  constructor(options: GroupReaderOptions, subscribed: readonly string[]) {
    this.#options = options;
    this.#subscribed = subscribed;
    this.#failed.promise.catch(() => {});
  }

  /** True if the group has assigned partitions to this member, possibly none, and they are being read. */
  get isAssigned(): boolean {
    return this.#isAssigned;
  }

  get readers(): readonly PartitionReader[] {
    return [...this.#readers.values()];
  }

  /**
   * Joins, and reads until other topics exist than the subscribed ones. Rejects if the membership fails, or when
   * `stopping` is aborted. In any case the member has left and its readers have ended.
   */
  async run(stopping: AbortSignal): Promise<void> {
    const { kafka, group } = this.#options;
    const signal = AbortSignal.any([this.#ending.signal, stopping]);
    const joined = Promise.withResolvers<GroupMember>();
    joined.promise.catch(() => {});
    const onAssigned = (partitions: TopicPartition[]) =>
      this.#enqueue(async () => this.#assign(partitions, await joined.promise, signal));
    let member: GroupMember | undefined;
    try {
      member = await GroupMember.join({ kafka, group, topics: this.#subscribed, onAssigned }, signal);
      joined.resolve(member);
      await Promise.race([member.ended, this.#failed.promise, this.#untilOtherTopics(member, signal)]);
    } finally {
      const reason = new Error("The membership has ended");
      this.#ending.abort(reason);
      joined.reject(reason);
      this.#isAssigned = false;
      await this.#last;
      await this.#stopReaders(() => true);
      await member?.leave();
    }
  }

  #enqueue(action: () => Promise<void>): void {
    this.#last = this.#last.then(action).catch((error: unknown) => this.#failed.reject(error));
  }

  async #untilOtherTopics(member: GroupMember, signal: AbortSignal): Promise<void> {
    const { watch, topics } = this.#options;
    while (watch.usable(topics).join() === this.#subscribed.join()) {
      await watch.changed(signal);
      this.#enqueue(() => this.#restartRecreated(member, signal));
    }
  }

  /** Starts, keeps and stops readers, so that there is one for each assigned partition. */
  async #assign(
    partitions: readonly TopicPartition[],
    member: GroupMember,
    signal: AbortSignal,
  ): Promise<void> {
    const assigned = new Set(partitions.map(keyOf));
    await this.#stopReaders(({ partition }) => !assigned.has(keyOf(partition)));
    const committed = await this.#committedOffsets(partitions, signal);
    for (const partition of partitions) {
      const offset = committed.get(keyOf(partition));
      const reader = this.#readers.get(keyOf(partition));
      // A committed offset ahead of the reader was set to skip messages, by `npm run message -- --skip`.
      if (reader === undefined || (offset !== undefined && offset > (reader.position ?? 0n))) {
        await reader?.stop();
        signal.throwIfAborted();
        this.#start(partition, offset, member);
      }
    }
    this.#isAssigned = true;
    const places = partitions.map(({ topic, partition }) => `${topic}/${partition}`);
    this.#options.log.info({ partitions: places }, "Partitions are assigned to this server");
  }

  async #committedOffsets(
    partitions: readonly TopicPartition[],
    signal: AbortSignal,
  ): Promise<Map<string, bigint | undefined>> {
    const { cluster, group } = this.#options;
    for (let attempt = 1; ; attempt++) {
      try {
        const committed = await cluster.committedOffsets(group, partitions);
        return new Map(committed.map(({ offset, ...partition }) => [keyOf(partition), offset]));
      } catch (error) {
        if (attempt === OFFSET_ATTEMPTS_MAX) {
          throw error;
        }
        await wait(OFFSET_RETRY_MS, undefined, { signal });
      }
    }
  }

  /** Reads a topic that was deleted and created again from its start: the old positions mean nothing there. */
  async #restartRecreated(member: GroupMember, signal: AbortSignal): Promise<void> {
    const { watch, log } = this.#options;
    for (const reader of this.readers) {
      const { topic } = reader.partition;
      const id = watch.get(topic)?.id;
      if (id !== undefined && id !== this.#topicIds.get(topic)) {
        log.warn(
          { ...reader.partition },
          "The topic was deleted and created again; it is read from its start",
        );
        await reader.stop();
        signal.throwIfAborted();
        this.#start(reader.partition, undefined, member);
      }
    }
    this.#rememberTopicIds();
  }

  #start(partition: TopicPartition, position: bigint | undefined, member: GroupMember): void {
    const { cluster, fetcher, budget, watch, processor, log } = this.#options;
    const reader = new PartitionReader({
      cluster,
      fetcher,
      budget,
      partition,
      position,
      process: (slice, each, signal) => processor.process(slice, each, signal),
      commit: (offset) => member.commit(partition, offset),
      onUnknownTopic: () => watch.refresh(),
      log,
    });
    this.#readers.set(keyOf(partition), reader);
    if (!this.#topicIds.has(partition.topic)) {
      this.#topicIds.set(partition.topic, watch.get(partition.topic)?.id);
    }
  }

  #rememberTopicIds(): void {
    for (const topic of this.#subscribed) {
      const id = this.#options.watch.get(topic)?.id;
      if (id !== undefined) {
        this.#topicIds.set(topic, id);
      }
    }
  }

  async #stopReaders(isStopped: (reader: PartitionReader) => boolean): Promise<void> {
    await Promise.all(
      [...this.#readers]
        .filter(([, reader]) => isStopped(reader))
        .map(async ([key, reader]) => {
          await reader.stop();
          this.#readers.delete(key);
        }),
    );
  }
}
