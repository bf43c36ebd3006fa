import { setTimeout as wait } from "node:timers/promises";
import type { Logger } from "pino";
import { Backoff } from "../backoff.ts";
import type { Cluster, TopicPartition } from "../kafkajs/cluster.ts";
import { BrokerError, ErrorCode } from "../kafkajs/errors.ts";
import type { FetchedPartition } from "../kafkajs/protocol.ts";
import { endOf } from "../records/batch.ts";
import { readRecords, type Slice } from "../records/read-records.ts";
import type { Fetcher } from "./fetcher.ts";
import type { LoopBudget } from "./loop-budget.ts";

/** Bounds of the backoff after an error. */
const RETRY_MS_MIN = 50;
const RETRY_MS_MAX = 1_000;
/** Errors that mean that the leader has changed, or that the topic was deleted. */
const STALE_LEADER: ReadonlySet<number> = new Set([
  ErrorCode.unknownTopicOrPartition,
  ErrorCode.leaderNotAvailable,
  ErrorCode.notLeaderForPartition,
  ErrorCode.kafkaStorageError,
  ErrorCode.fencedLeaderEpoch,
  ErrorCode.unknownLeaderEpoch,
]);

/** Why a partition makes no progress. */
export interface Trouble {
  readonly reason: string;
  /** The offset of the message that is not processed, and the start of its key. */
  readonly offset: string;
  readonly key?: string | undefined;
}

interface PartitionReaderOptions {
  readonly cluster: Cluster;
  readonly fetcher: Fetcher;
  readonly budget: LoopBudget;
  readonly partition: TopicPartition;
  /** The offset to start at; `undefined` for the earliest one. */
  readonly position: bigint | undefined;
  /** Processes a slice until it is done. Rejects if `signal` is aborted. */
  readonly process: (slice: Slice, reader: PartitionReader, signal: AbortSignal) => Promise<void>;
  /** Commits the offset of the next message to read. */
  readonly commit: (offset: bigint) => Promise<void>;
  /** Called if the broker does not know the topic: it may have been deleted. */
  readonly onUnknownTopic: () => Promise<void>;
  readonly log: Logger;
}

/**
 * Reads one partition: fetches, processes, and commits, slice by slice. A slice is committed while the next one is
 * processed, and further records are fetched meanwhile, so that the store does not wait for the brokers. An error concerns
 * this partition only. It is retried until the reader is stopped.
 */
export class PartitionReader {
  readonly #options: PartitionReaderOptions;
  readonly #stopping = new AbortController();
  readonly #running: Promise<void>;
  #position: bigint | undefined;
  #committed: bigint | undefined;
  /** The latest commit. */
  #committing: Promise<void> = Promise.resolve();
  /** The records from `offset` on, which were asked for while the records before them are processed. */
  #ahead: { readonly offset: bigint; readonly fetched: Promise<FetchedPartition> } | undefined;
  #trouble: Trouble | undefined;

  /** Starts to read at once, until `stop` is called. */
  constructor(options: PartitionReaderOptions) {
    this.#options = options;
    this.#position = options.position;
    this.#committed = options.position;
    this.#running = this.#readUntilStopped();
  }

  get partition(): TopicPartition {
    return this.#options.partition;
  }

  /** The offset of the next message to process; `undefined` while it is not known. */
  get position(): bigint | undefined {
    return this.#position;
  }

  get trouble(): Trouble | undefined {
    return this.#trouble;
  }

  setTrouble(trouble: Trouble | undefined): void {
    this.#trouble = trouble;
  }

  /**
   * Commits the offset of a message that waits, once all messages before it are done. Then the group's offset names the
   * message, and an operator can move the group past it. A commit that fails is repeated with the next one.
   */
  async commitUpTo(offset: bigint): Promise<void> {
    if (offset >= (this.#position ?? 0n) && !this.#stopping.signal.aborted) {
      this.#position = offset;
      await this.#commit().catch(() => {});
    }
  }

  /** Resolves when no more messages will be processed. */
  async stop(): Promise<void> {
    this.#stopping.abort(new Error("The partition is no longer read"));
    await this.#running;
  }

  async #readUntilStopped(): Promise<void> {
    const { partition, fetcher, log } = this.#options;
    const { signal } = this.#stopping;
    const backoff = new Backoff(RETRY_MS_MIN, RETRY_MS_MAX);
    while (!signal.aborted) {
      try {
        await this.#readNext(signal);
        backoff.reset();
        this.#trouble = undefined;
      } catch (error) {
        if (signal.aborted) {
          break;
        }
        const reason = error instanceof Error ? error.message : String(error);
        if (this.#trouble?.reason !== reason) {
          log.warn(
            { ...partition, offset: this.#position?.toString(), err: error },
            "A partition cannot be read; it is retried",
          );
        }
        this.#trouble = { ...this.#trouble, reason, offset: String(this.#position ?? "earliest") };
        await wait(backoff.next(), undefined, { signal }).catch(() => {});
      }
    }
    fetcher.release(partition);
    await this.#committing.catch(() => {});
  }

  async #readNext(signal: AbortSignal): Promise<void> {
    const { cluster, fetcher, partition, budget, process } = this.#options;
    await this.#commit();
    this.#position ??= await cluster.earliestOffset(partition);
    const position = this.#position;
    const ahead = this.#ahead?.offset === position ? this.#ahead.fetched : undefined;
    this.#ahead = undefined;
    const fetched = await (ahead ?? fetcher.fetch(partition, position, signal));
    if (fetched.errorCode !== ErrorCode.none) {
      await this.#recover(fetched);
      return;
    }
    this.#fetchAhead(fetched, signal);
    const { records, abortedTransactions } = fetched;
    const set = { ...partition, position, records, abortedTransactions };
    for await (const slice of readRecords(set, budget)) {
      await process(slice, this, signal);
      signal.throwIfAborted();
      this.#position = slice.next;
      this.#trouble = undefined;
      // That of the slice before. At most one slice is processed and not committed.
      await this.#committing;
      this.#commit();
    }
  }

  /** Asks for the records after these, if the partition has more. At its end, the next fetch waits for new records. */
  #fetchAhead({ records, lastStableOffset }: FetchedPartition, signal: AbortSignal): void {
    const { fetcher, partition } = this.#options;
    const offset = endOf(records);
    if (offset !== undefined && offset < lastStableOffset) {
      const fetched = fetcher.fetch(partition, offset, signal);
      fetched.catch(() => {});
      this.#ahead = { offset, fetched };
    }
  }

  /**
   * Commits the position, after the commit in progress: an older offset must not replace a newer one. If that fails, it is
   * retried before the next fetch.
   */
  #commit(): Promise<void> {
    const committed = this.#committing.catch(() => {}).then(() => this.#commitPosition());
    committed.catch(() => {});
    this.#committing = committed;
    return committed;
  }

  async #commitPosition(): Promise<void> {
    const position = this.#position;
    if (position !== undefined && position !== this.#committed) {
      await this.#options.commit(position);
      this.#committed = position;
    }
  }

  async #recover({ errorCode }: FetchedPartition): Promise<void> {
    const { cluster, partition, log, onUnknownTopic } = this.#options;
    if (errorCode === ErrorCode.offsetOutOfRange) {
      const earliest = await cluster.earliestOffset(partition);
      log.warn(
        { ...partition, offset: this.#position?.toString(), earliest: earliest.toString() },
        "The offset does not exist any more; reading continues at the earliest one",
      );
      this.#position = earliest;
      return;
    }
    if (STALE_LEADER.has(errorCode)) {
      cluster.forgetLeader(partition);
    }
    if (errorCode === ErrorCode.unknownTopicOrPartition) {
      await onUnknownTopic();
    }
    throw new BrokerError(errorCode);
  }
}
