import { setTimeout as wait } from "node:timers/promises";
import type { Message } from "kafkajs";
import type { Logger } from "pino";
import type { Ledger, StockChange } from "../inventory/ledger.ts";
import type { ChangeOutbox, OutboxLease } from "../inventory/outbox.ts";
import type { Metrics } from "../ops/metrics.ts";
import type { Tracing } from "../ops/tracing.ts";
import { stockChangedJson, stockSnapshotJson } from "../wire/stock-changed.ts";
import { type Backlog, Leases } from "./leases.ts";
import type { OrderedProducer } from "./ordered-producer.ts";
import { sendSpan, withHeaders } from "./spans.ts";

/** Changes of one bucket that are read, sent and acknowledged together. */
const CHANGES_PER_READ_MAX = 250;
/**
 * Between two looks for changes where the last one found none. A look costs Redis one short script for each bucket,
 * some 0.3 % of its time in all, and a change waits 25 ms on average; a blocking read would save that, but would
 * need a connection of its own for as long as it blocks, and could not check the lease.
 */
const LOOK_INTERVAL_MS = 50;
/** Between two tries after a failure; doubles from the one to the other. */
const RETRY_MS_MIN = 100;
const RETRY_MS_MAX = 2_000;
/** How long the end may wait for what is being sent. What is cut off is sent again by the next owner. */
const STOP_MS_MAX = 2_000;

interface PublisherOptions {
  readonly outbox: ChangeOutbox;
  readonly producer: OrderedProducer;
  readonly topic: string;
  /** Unlike that of every other server. */
  readonly owner: string;
  readonly metrics: Metrics;
  readonly tracing?: Tracing | undefined;
  readonly log: Logger;
  readonly leaseMs?: number;
}

/**
 * Publishes the change stream to Kafka: at least once, each product's changes in order. A place in the stream is moved
 * past only after Kafka acknowledged what comes before it, and only by the holder of the bucket's
 * lease, so a crash at any point leads to a repetition and never to a gap.
 */
export class Publisher {
  readonly #options: PublisherOptions;
  readonly #leases: Leases;
  readonly #stopping = new AbortController();
  readonly #running: Promise<void>;
  #trouble: string | undefined;

  /** Starts to publish at once, and does not stop before it is told to. */
  constructor(options: PublisherOptions) {
    this.#options = options;
    this.#leases = new Leases(options);
    this.#running = this.#publishUntilStopped();
  }

  /** What does not work, a sentence each; empty while changes are published. */
  get troubles(): string[] {
    const trouble = this.#trouble ?? this.#leases.trouble;
    return trouble === undefined ? [] : [`Changes are not published: ${trouble}`];
  }

  /** How far publishing is behind, by all servers together. */
  get backlog(): Backlog | undefined {
    return this.#leases.backlog;
  }

  /** Ends what is being sent, gives the leases up, and closes the producer. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await Promise.race([this.#running, wait(STOP_MS_MAX, undefined, { ref: false })]);
    await this.#options.producer.close();
    await this.#running;
    await this.#leases.stop();
  }

  async #publishUntilStopped(): Promise<void> {
    const { metrics, log } = this.#options;
    const { signal } = this.#stopping;
    let retryMs = RETRY_MS_MIN;
    while (!signal.aborted) {
      let waitMs = LOOK_INTERVAL_MS;
      try {
        const { full, snapshotsDue } = await this.#publishNext();
        for (const lease of snapshotsDue) {
          await this.#publishSnapshot(lease);
        }
        if (this.#trouble !== undefined) {
          log.info("Changes are published again");
          this.#trouble = undefined;
        }
        retryMs = RETRY_MS_MIN;
        waitMs = full.size > 0 ? 0 : LOOK_INTERVAL_MS;
      } catch (error) {
        if (signal.aborted) {
          break;
        }
        metrics.publishFailures.inc();
        if (this.#trouble === undefined) {
          log.warn(
            { err: error },
            "Changes cannot be published; they stay in the backlog, and are tried again",
          );
        }
        this.#trouble = error instanceof Error ? error.message : String(error);
        waitMs = retryMs;
        retryMs = Math.min(retryMs * 2, RETRY_MS_MAX);
      }
      await this.#leases.settle();
      if (waitMs > 0) {
        await wait(waitMs, undefined, { signal }).catch(() => {});
      }
    }
  }

  /**
   * Publishes the next changes of every bucket that is ours, in one send. Tells which buckets had as many as fit, so that more are
   * there, and for which a snapshot is due.
   */
  async #publishNext(): Promise<{ full: ReadonlySet<number>; snapshotsDue: OutboxLease[] }> {
    const { outbox, metrics } = this.#options;
    const read = await Promise.all(
      this.#leases.held().map(async (lease) => {
        const batch = await outbox.read(lease, CHANGES_PER_READ_MAX);
        if (batch === undefined) {
          this.#leases.lost(lease);
        }
        return { lease, entries: batch?.entries ?? [], snapshotDue: batch?.snapshotDue ?? false };
      }),
    );
    const messages = read.flatMap(({ entries }) => entries.map(({ change }) => changeMessage(change)));
    if (messages.length > 0) {
      await this.#send(messages);
    }
    await Promise.all(
      read
        .filter(({ entries }) => entries.length > 0)
        .map(async ({ lease, entries }) => {
          if (await outbox.advance(lease, entries)) {
            metrics.changesPublished.inc(entries.length);
          } else {
            this.#leases.lost(lease);
          }
        }),
    );
    const full = read.filter(({ entries }) => entries.length === CHANGES_PER_READ_MAX);
    return {
      full: new Set(full.map(({ lease }) => lease.bucket)),
      snapshotsDue: read.filter(({ snapshotDue }) => snapshotDue).map(({ lease }) => lease),
    };
  }

  async #send(messages: readonly Message[]): Promise<void> {
    const { producer, topic, tracing } = this.#options;
    if (tracing === undefined) {
      await producer.send(topic, messages);
      return;
    }
    const span = sendSpan(tracing, topic, messages.length);
    try {
      await producer.send(topic, withHeaders(messages, span.headers));
      span.end();
    } catch (error) {
      span.end(error instanceof Error ? error.name : "fault");
      throw error;
    }
  }

  /**
   * Publishes the newest state of every product of a bucket. Before each batch the changes that were
   * made until it was read are published, so that no state overtakes an older change of its product.
   */
  async #publishSnapshot(lease: OutboxLease): Promise<void> {
    const { outbox, metrics, log } = this.#options;
    log.warn(
      { bucket: lease.bucket },
      "Changes fell out of the backlog before they were published; every product's newest state is published instead",
    );
    let products = 0;
    for await (const states of outbox.snapshot(lease.bucket)) {
      do {
        this.#stopping.signal.throwIfAborted();
      } while ((await this.#publishNext()).full.has(lease.bucket));
      if (!this.#leases.held().includes(lease)) {
        return;
      }
      await this.#send(states.map(({ ledger, updateTimeMs }) => snapshotMessage(ledger, updateTimeMs)));
      products += states.length;
      metrics.snapshotProducts.inc(states.length);
    }
    if (await outbox.snapshotDone(lease)) {
      metrics.snapshots.inc();
      log.info({ bucket: lease.bucket, products }, "Every product's newest state is published");
    }
  }
}

function changeMessage(change: StockChange): Message {
  return messageOf(change.ledger, stockChangedJson(change));
}

function snapshotMessage(ledger: Ledger, updateTimeMs: number): Message {
  return messageOf(ledger, stockSnapshotJson(ledger, updateTimeMs));
}

function messageOf({ productId, version }: Ledger, value: string): Message {
  return {
    key: productId,
    value,
    headers: { MessageType: "StockChanged", eventId: `${productId}:${version}` },
  };
}
