import { setTimeout as wait } from "node:timers/promises";
import type { Metrics } from "../../ops/metrics.ts";
import { Backoff } from "../backoff.ts";
import { GroupReader, type GroupReaderOptions } from "./group-reader.ts";

/** Bounds of the backoff before a failed membership is replaced. */
const REPLACE_MS_MIN = 250;
const REPLACE_MS_MAX = 2_000;
/** A membership that has lasted this long resets the backoff. */
const BACKOFF_RESET_MS = 30_000;
/** Partitions that the health report names for one reason. The others are counted. */
const PARTITIONS_NAMED_MAX = 3;

interface IngestorOptions extends GroupReaderOptions {
  readonly metrics: Metrics;
}

/**
 * Reads sellers' events, in the consumer group, from the topics that exist. An offset is committed only after the store
 * has acknowledged all events before it. Events that a crash leaves uncommitted are delivered again and change nothing
 * the second time.
 */
export class Ingestor {
  readonly #options: IngestorOptions;
  readonly #stopping = new AbortController();
  readonly #running: Promise<void>;
  #reader: GroupReader | undefined;
  #trouble: string | undefined;

  /** Starts to consume at once, until `stop` is called. */
  constructor(options: IngestorOptions) {
    this.#options = options;
    this.#running = this.#consumeUntilStopped();
  }

  /** True while the group has assigned this server its share of the partitions. */
  get isConsuming(): boolean {
    return this.#reader?.isAssigned ?? false;
  }

  /** The number of partitions that make no progress. */
  get waiting(): number {
    return this.#reader?.readers.filter(({ trouble }) => trouble !== undefined).length ?? 0;
  }

  /** Current problems, one sentence each; empty while events are consumed. */
  get troubles(): string[] {
    const trouble = this.#options.watch.unreachable ?? this.#trouble;
    const troubles = this.isConsuming ? [] : [trouble ?? "the consumer has not joined its group yet"];
    return [...troubles, ...this.#readerTroubles()].map(
      (trouble) => `Sellers' events are not applied: ${trouble}`,
    );
  }

  /** Leaves the group. Resolves when no more events will be applied. */
  async stop(): Promise<void> {
    this.#stopping.abort(new Error("The server is stopping"));
    await this.#running;
  }

  /** Names the message at which a partition waits, for each reason. */
  #readerTroubles(): string[] {
    const placesByReason = new Map<string, string[]>();
    for (const { partition, trouble } of this.#reader?.readers ?? []) {
      if (trouble !== undefined) {
        const { reason, offset, key } = trouble;
        const suffix = key === undefined ? "" : ` (key ${JSON.stringify(key)})`;
        const place = `${partition.topic} partition ${partition.partition} waits at offset ${offset}${suffix}`;
        placesByReason.set(reason, [...(placesByReason.get(reason) ?? []), place]);
      }
    }
    return [...placesByReason].map(([reason, places]) => {
      const more = places.length - PARTITIONS_NAMED_MAX;
      const named = places.slice(0, PARTITIONS_NAMED_MAX).join(", ");
      return `${reason}; ${named}${more > 0 ? ` and ${more} more partitions wait` : ""}`;
    });
  }

  async #consumeUntilStopped(): Promise<void> {
    const { log, metrics } = this.#options;
    const { signal } = this.#stopping;
    const backoff = new Backoff(REPLACE_MS_MIN, REPLACE_MS_MAX);
    while (!signal.aborted) {
      const startedAt = performance.now();
      try {
        this.#reader = new GroupReader(this.#options, await this.#untilTopics(signal));
        await this.#reader.run(signal);
        this.#trouble = undefined;
      } catch (error) {
        if (signal.aborted) {
          return;
        }
        const reason = error instanceof Error ? error.message : String(error);
        if (this.#trouble !== reason) {
          log.warn({ err: error }, "The Kafka consumer failed and is being replaced");
        }
        this.#trouble = reason;
        metrics.consumersReplaced.inc();
        if (performance.now() - startedAt > BACKOFF_RESET_MS) {
          backoff.reset();
        }
        await wait(backoff.next(), undefined, { signal }).catch(() => {});
      }
    }
  }

  /** Waits until at least one of the topics exists. */
  async #untilTopics(signal: AbortSignal): Promise<string[]> {
    const { watch, topics } = this.#options;
    for (let usable = watch.usable(topics); ; usable = watch.usable(topics)) {
      if (usable.length > 0) {
        return usable;
      }
      this.#trouble = `none of the topics ${topics.join(", ")} can be read`;
      await watch.changed(signal);
    }
  }
}
