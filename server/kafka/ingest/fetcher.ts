import { Backoff } from "../backoff.ts";
import { type Cluster, keyOf, type TopicPartition } from "../kafkajs/cluster.ts";
import { ErrorCode } from "../kafkajs/errors.ts";
import type { FetchedPartition } from "../kafkajs/protocol.ts";

/** Maximum size of a response, and of a partition's part. A broker returns a larger batch if it is the first. */
const RESPONSE_BYTES_MAX = 8 * 1024 * 1024;
const PARTITION_BYTES_MAX = 1024 * 1024;
/** How long a broker waits for a first record. */
const WAIT_MS_MAX = 500;
/** The same while a partition is being processed, which may want its next records soon. Doubles while nothing comes. */
const WAIT_MS_MIN = 10;

interface Waiter extends TopicPartition {
  readonly offset: bigint;
  readonly resolve: (fetched: FetchedPartition) => void;
  readonly reject: (error: unknown) => void;
}

/**
 * Fetches for many partitions, with one request at a time to each broker. Only partitions that wait for records are
 * part of a request, so one that is being processed, for however long, does not delay the others.
 */
export class Fetcher {
  readonly #cluster: Cluster;
  readonly #waiting = new Map<number, Map<string, Waiter>>();
  /** Partitions that have got records and have not asked for more. */
  readonly #processing = new Set<string>();
  readonly #wait = new Backoff(WAIT_MS_MIN, WAIT_MS_MAX);

  constructor(cluster: Cluster) {
    this.#cluster = cluster;
  }

  /**
   * Resolves with the records from `offset` on, which are at least one batch, or with the partition's error code.
   * Rejects if the broker cannot be reached, or when `signal` is aborted.
   */
  async fetch(partition: TopicPartition, offset: bigint, signal: AbortSignal): Promise<FetchedPartition> {
    const key = keyOf(partition);
    const nodeId = await this.#cluster.leaderOf(partition);
    signal.throwIfAborted();
    const { promise, resolve, reject } = Promise.withResolvers<FetchedPartition>();
    const waiting = this.#waiting.get(nodeId) ?? new Map<string, Waiter>();
    const isIdle = !this.#waiting.has(nodeId);
    const waiter = { ...partition, offset, resolve, reject };
    this.#waiting.set(nodeId, waiting);
    waiting.set(key, waiter);
    this.#processing.delete(key);
    this.#wait.reset();
    const onAbort = () => {
      remove(waiting, waiter);
      reject(signal.reason);
    };
    signal.addEventListener("abort", onAbort, { once: true });
    if (isIdle) {
      void this.#fetchFrom(nodeId, waiting);
    }
    try {
      const fetched = await promise;
      this.#processing.add(key);
      return fetched;
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }

  /** To be called when the partition will not be fetched again. */
  release(partition: TopicPartition): void {
    this.#processing.delete(keyOf(partition));
  }

  async #fetchFrom(nodeId: number, waiting: Map<string, Waiter>): Promise<void> {
    while (waiting.size > 0) {
      const asked = [...waiting.values()];
      try {
        const fetched = await this.#cluster.fetch(nodeId, {
          partitions: asked.map((waiter) => ({ ...waiter, bytesMax: PARTITION_BYTES_MAX })),
          waitMs: this.#nextWaitMs(),
          bytesMax: RESPONSE_BYTES_MAX,
          isCommittedOnly: true,
        });
        for (const each of fetched) {
          const waiter = asked.find((one) => keyOf(one) === keyOf(each));
          if (waiter !== undefined && (each.records.length > 0 || each.errorCode !== ErrorCode.none)) {
            remove(waiting, waiter);
            waiter.resolve(each);
          }
        }
      } catch (error) {
        for (const waiter of asked) {
          remove(waiting, waiter);
          this.#cluster.forgetLeader(waiter);
          waiter.reject(error);
        }
      }
    }
    this.#waiting.delete(nodeId);
  }

  #nextWaitMs(): number {
    if (this.#processing.size === 0) {
      return WAIT_MS_MAX;
    }
    return this.#wait.next();
  }
}

/** Removes a waiter, unless another one has replaced it. */
function remove(waiting: Map<string, Waiter>, waiter: Waiter): void {
  if (waiting.get(keyOf(waiter)) === waiter) {
    waiting.delete(keyOf(waiter));
  }
}
