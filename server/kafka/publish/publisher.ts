import { setTimeout as wait } from "node:timers/promises";
import type { Logger } from "pino";
import type { Ledger, StockChange } from "../../inventory/ledger.ts";
import type { ChangeOutbox, OutboxLease } from "../../inventory/outbox.ts";
import type { Metrics } from "../../ops/metrics.ts";
import type { Tracing } from "../../ops/tracing.ts";
import { stockChangedJson, stockSnapshotJson } from "../../wire/stock-changed.ts";
import { Backoff } from "../backoff.ts";
import { sendSpan, withHeaders } from "../spans.ts";
import { type Backlog, Leases } from "./leases.ts";
import type { OrderedProducer, ProducedMessage } from "./ordered-producer.ts";

/** Maximum number of changes of one bucket that are read, sent and acknowledged together. */
const CHANGES_PER_READ_MAX = 250;
/**
 * Polling interval while there are no changes. A poll costs Redis one short script per bucket, about 0.3 % of its time
 * in all, and a change waits 25 ms on average. A blocking read would avoid both, but would need a connection of its own
 * and could not check the lease.
 */
const POLL_INTERVAL_MS = 50;
/** Bounds of the backoff after a failure. */
const RETRY_MS_MIN = 100;
const RETRY_MS_MAX = 2_000;
/** How long `stop` waits for a send. The next owner repeats a send that was interrupted. */
const STOP_MS_MAX = 2_000;

interface PublisherOptions {
  readonly outbox: ChangeOutbox;
  readonly producer: OrderedProducer;
  readonly topic: string;
  /** Unique to this server. */
  readonly owner: string;
  readonly metrics: Metrics;
  readonly tracing?: Tracing | undefined;
  readonly log: Logger;
  readonly leaseMs?: number;
}

/**
 * Publishes the change stream to Kafka: at least once, each product's changes in order. The cursor of a bucket advances
 * only after Kafka has acknowledged the changes before it, and only for the holder of the bucket's lease, so a crash at
 * any point leads to duplicates and never to a gap.
 */
export class Publisher {
  readonly #options: PublisherOptions;
  readonly #leases: Leases;
  readonly #stopping = new AbortController();
  readonly #running: Promise<void>;
  #trouble: string | undefined;

  /** Starts to publish at once, until `stop` is called. */
  constructor(options: PublisherOptions) {
    this.#options = options;
    this.#leases = new Leases(options);
    this.#running = this.#publishUntilStopped();
  }

  /** Current problems, one sentence each; empty while changes are published. */
  get troubles(): string[] {
    const trouble = this.#trouble ?? this.#leases.trouble;
    return trouble === undefined ? [] : [`Changes are not published: ${trouble}`];
  }

  /** The backlog of all servers together. */
  get backlog(): Backlog | undefined {
    return this.#leases.backlog;
  }

  /** Finishes the current send, releases the leases, and closes the producer. */
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
    const backoff = new Backoff(RETRY_MS_MIN, RETRY_MS_MAX);
    while (!signal.aborted) {
      let waitMs = POLL_INTERVAL_MS;
      try {
        const { full, snapshotsDue } = await this.#publishNext();
        for (const lease of snapshotsDue) {
          await this.#publishSnapshot(lease);
        }
        if (this.#trouble !== undefined) {
          log.info("Publishing of changes has resumed");
          this.#trouble = undefined;
        }
        backoff.reset();
        waitMs = full.size > 0 ? 0 : POLL_INTERVAL_MS;
      } catch (error) {
        if (signal.aborted) {
          break;
        }
        metrics.publishFailures.inc();
        if (this.#trouble === undefined) {
          log.warn({ err: error }, "Changes cannot be published; they stay in the backlog and are retried");
        }
        this.#trouble = error instanceof Error ? error.message : String(error);
        waitMs = backoff.next();
      }
      await this.#leases.settle();
      if (waitMs > 0) {
        await wait(waitMs, undefined, { signal }).catch(() => {});
      }
    }
  }

  /**
   * Publishes the next changes of every leased bucket, in one send. Returns the buckets that had a full batch, and so
   * may have more, and those for which a snapshot is due.
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

  async #send(messages: readonly ProducedMessage[]): Promise<void> {
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
   * Publishes the latest state of every product of a bucket. The changes made before a batch of states was read are
   * published before the batch, so that no state overtakes an older change of its product.
   */
  async #publishSnapshot(lease: OutboxLease): Promise<void> {
    const { outbox, metrics, log } = this.#options;
    log.warn(
      { bucket: lease.bucket },
      "Changes were trimmed from the backlog before they were published; the latest state of every product is published instead",
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
      log.info({ bucket: lease.bucket, products }, "The latest state of every product is published");
    }
  }
}

function changeMessage(change: StockChange): ProducedMessage {
  return messageOf(change.ledger, stockChangedJson(change));
}

function snapshotMessage(ledger: Ledger, updateTimeMs: number): ProducedMessage {
  return messageOf(ledger, stockSnapshotJson(ledger, updateTimeMs));
}

function messageOf({ productId, version }: Ledger, value: string): ProducedMessage {
  return {
    key: productId,
    value,
    headers: { MessageType: "StockChanged", eventId: `${productId}:${version}` },
  };
}
