import type { Consumer, Kafka } from "kafkajs";
import type { TopicPartition } from "./cluster.ts";

/** Session timeout: a member that sends no heartbeat for this long loses its partitions. The minimum that brokers allow by default. */
const SESSION_MS = 6_000;
const HEARTBEAT_INTERVAL_MS = 1_000;
/** How long a rebalance waits for the other members. */
const REBALANCE_MS_MAX = 10_000;
/** Pause between two turns of kafkajs's loop. Bounds the delay until a member notices a rebalance or its own stop. */
const LOOP_INTERVAL_MS = 500;
/** Age at which kafkajs refreshes its metadata, and so notices added partitions. */
const METADATA_AGE_MS_MAX = 10_000;
/**
 * A loop that makes no turn for this long has stalled: kafkajs can wait without limit for a connection that a broker left
 * without a response. It has lost its membership long before.
 */
const STALLED_MS = 15_000;
const WATCH_INTERVAL_MS = 1_000;
const COMMIT_MS_MAX = 5_000;
const LEAVE_MS_MAX = 2_000;

interface GroupMemberOptions {
  readonly kafka: Kafka;
  readonly group: string;
  /** Topics that exist: kafkajs does not join with one that does not. */
  readonly topics: readonly string[];
  /** Called on each rebalance, with all partitions of this member. */
  readonly onAssigned: (partitions: TopicPartition[]) => void;
}

/**
 * Membership in a consumer group: kafkajs joins, sends heartbeats, rebalances and commits. It fetches nothing, because
 * all partitions stay paused; `Cluster` does.
 */
export class GroupMember {
  readonly #consumer: Consumer;
  readonly #ended = Promise.withResolvers<void>();
  readonly #watch: NodeJS.Timeout;
  #aliveAt = performance.now();
  #left = false;

  private constructor({ kafka, group, topics, onAssigned }: GroupMemberOptions) {
    this.#ended.promise.catch(() => {});
    this.#consumer = kafka.consumer({
      groupId: group,
      sessionTimeout: SESSION_MS,
      heartbeatInterval: HEARTBEAT_INTERVAL_MS,
      rebalanceTimeout: REBALANCE_MS_MAX,
      maxWaitTimeInMs: LOOP_INTERVAL_MS,
      metadataMaxAge: METADATA_AGE_MS_MAX,
      allowAutoTopicCreation: false,
      // The caller replaces a member that fails, whatever the reason.
      retry: { restartOnFailure: async () => false },
    });
    const { events } = this.#consumer;
    this.#consumer.on(events.CRASH, ({ payload }) => this.#ended.reject(payload.error));
    this.#consumer.on(events.FETCH_START, () => this.#alive());
    this.#consumer.on(events.GROUP_JOIN, ({ payload }) => {
      this.#alive();
      // kafkajs emits this event before its first fetch.
      this.#consumer.pause(topics.map((topic) => ({ topic })));
      const partitions = Object.entries(payload.memberAssignment).flatMap(([topic, assigned]) =>
        assigned.map((partition) => ({ topic, partition })),
      );
      onAssigned(partitions);
    });
    this.#watch = setInterval(() => {
      if (performance.now() - this.#aliveAt > STALLED_MS) {
        this.#ended.reject(new Error(`the consumer has made no progress for ${STALLED_MS / 1_000} seconds`));
      }
    }, WATCH_INTERVAL_MS);
  }

  /** Joins the group. Rejects if that fails or `signal` is aborted; the member has left then. */
  static async join(options: GroupMemberOptions, signal: AbortSignal): Promise<GroupMember> {
    const member = new GroupMember(options);
    const onAbort = () => member.#ended.reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      signal.throwIfAborted();
      await Promise.race([member.#start([...options.topics]), member.#ended.promise]);
      return member;
    } catch (error) {
      await member.leave();
      throw error;
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }

  /** Rejects when the membership has ended by an error. */
  get ended(): Promise<void> {
    return this.#ended.promise;
  }

  /** Commits the offset of the next message to read. Rejects if the membership is not valid. */
  async commit({ topic, partition }: TopicPartition, offset: bigint): Promise<void> {
    const committed = this.#consumer.commitOffsets([{ topic, partition, offset: offset.toString() }]);
    const timeout = timeoutAfter(COMMIT_MS_MAX, "The commit of an offset had no response");
    try {
      await Promise.race([committed, this.#ended.promise, timeout.promise]);
    } finally {
      committed.catch(() => {});
      timeout.clear();
    }
  }

  async leave(): Promise<void> {
    this.#left = true;
    clearInterval(this.#watch);
    this.#ended.reject(new Error("The member has left the group"));
    const timeout = timeoutAfter(LEAVE_MS_MAX, "The consumer did not disconnect");
    await Promise.race([this.#consumer.disconnect(), timeout.promise]).catch(() => {});
    timeout.clear();
  }

  async #start(topics: string[]): Promise<void> {
    const steps = [
      () => this.#consumer.connect(),
      () => this.#consumer.subscribe({ topics, fromBeginning: true }),
      () => this.#consumer.run({ autoCommit: false, eachBatch: async () => {} }),
    ];
    for (const step of steps) {
      await step();
      if (this.#left) {
        // `leave` came before the connection.
        await this.#consumer.disconnect();
        return;
      }
    }
  }

  #alive(): void {
    this.#aliveAt = performance.now();
  }
}

/** A promise that rejects after a time, unless it is cleared. */
function timeoutAfter(ms: number, message: string): { promise: Promise<never>; clear: () => void } {
  const { promise, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(new Error(`${message} within ${ms} ms`)), ms);
  promise.catch(() => {});
  return { promise, clear: () => clearTimeout(timer) };
}
