import { isErrorReply } from "../connection/error-replies.ts";
import { instrumented } from "../instruments.ts";
import type { Keys } from "../keys.ts";
import type { ReplyReader } from "../reply.ts";
import { mutationScript } from "../scripts.ts";
import { NotReplicated } from "./acknowledgement.ts";
import { BatchCodec, type BatchOptions } from "./batch.ts";
import { callLimits } from "./call-limits.ts";
import { Coalescer, Failure } from "./coalescer.ts";
import { FENCED, type Fence } from "./fence.ts";
import type { Mutation, MutationWriter } from "./mutation.ts";
import type { WriteConnections } from "./write-connections.ts";

/** Maximum operations of one script call, and products they may touch in total: about 2 ms of Redis's time. */
const MUTATIONS_PER_CALL_MAX = 64;
const PRODUCTS_PER_CALL_MAX = 128;
/** A batch in a Cluster may have so many times as much, because it is divided among calls for many buckets. */
const FULL_CALLS_PER_CLUSTER_BATCH = 4;

interface PrimaryWriterOptions {
  readonly connections: WriteConnections;
  readonly fence: Fence;
  readonly keys: Keys;
  readonly batch: BatchOptions;
  /** Whether one script call may touch all buckets. */
  readonly isOne: boolean;
  /** Called after the primary has refused a bucket, because its incarnation is another one. Nothing ran. */
  readonly onFenced: (bucket: number) => void;
}

/** The mutations of one script call, by their index in the batch. */
interface Call {
  readonly bucket: number;
  readonly indexes: number[];
  products: number;
}

/**
 * Sends mutations to one primary. Those that arrive together share a batch: one script call, or in a Cluster at least one for each
 * bucket, in one pipeline, acknowledged together. Each mutation is atomic by itself, and has an outcome of its own.
 */
export class PrimaryWriter implements MutationWriter {
  readonly #coalescer: Coalescer<Mutation, ReplyReader>;
  readonly #connections: WriteConnections;
  readonly #options: PrimaryWriterOptions;
  readonly #codec: BatchCodec;
  readonly #script = mutationScript();

  constructor(options: PrimaryWriterOptions) {
    this.#options = options;
    this.#connections = options.connections;
    this.#codec = new BatchCodec(options.fence, options.keys, options.batch);
    const fullCalls = options.isOne ? 1 : FULL_CALLS_PER_CLUSTER_BATCH;
    this.#coalescer = new Coalescer({
      send: (batch) => this.#send(batch),
      weightOf: (mutation) => mutation.products,
      batchItemsMax: MUTATIONS_PER_CALL_MAX * fullCalls,
      batchWeightMax: PRODUCTS_PER_CALL_MAX * fullCalls,
      inFlightMax: options.connections.capacity,
      fullInFlightMax: options.connections.fullCapacity,
      shouldResend: (mutation, error) => this.#shouldResend(mutation, error),
      ...instrumented("mutations", ({ name }) => name, options.batch.instruments),
      ...callLimits(options.connections),
    });
  }

  /** `submittedAt` is the time (`performance.now()`) from which the response timeout counts. */
  submit(mutation: Mutation, submittedAt?: number): Promise<ReplyReader> {
    return this.#coalescer.submit(mutation, submittedAt);
  }

  get queued(): number {
    return this.#coalescer.queued;
  }

  get firstReady(): Promise<unknown> {
    return this.#connections.firstReady;
  }

  get unreadyReason(): string | undefined {
    return this.#connections.unreadyReason;
  }

  /** Whether the outage has lasted so long that mutations are rejected at once. */
  get isUnavailable(): boolean {
    return this.#connections.unavailability !== undefined;
  }

  async probe(run: (bucket: number) => Promise<unknown>): Promise<void> {
    await run(0);
  }

  noteErrorReply(text: string): void {
    this.#connections.noteErrorReply(text);
  }

  close(): void {
    this.#coalescer.close();
    this.#connections.close();
  }

  /** Rejects what was not sent, and everything from now on, with `error`. What is in flight has `ms` to end. */
  retire(error: Error, ms: number): void {
    this.#coalescer.close(error);
    setTimeout(() => this.#connections.close(), ms).unref();
  }

  #bucketOf({ keys }: Mutation): number {
    return this.#options.keys.bucketIn(keys[0] ?? "") ?? 0;
  }

  /** Divides a batch into script calls: one, or in a Cluster one for each bucket, and more for a bucket with many mutations. */
  #callsOf(batch: readonly Mutation[]): Call[] {
    const calls: Call[] = [];
    const latest = new Map<number, Call>();
    batch.forEach((mutation, index) => {
      const bucket = this.#options.isOne ? 0 : this.#bucketOf(mutation);
      let call = latest.get(bucket);
      if (
        call === undefined ||
        call.indexes.length >= MUTATIONS_PER_CALL_MAX ||
        call.products + mutation.products > PRODUCTS_PER_CALL_MAX
      ) {
        call = { bucket, indexes: [], products: 0 };
        latest.set(bucket, call);
        calls.push(call);
      }
      call.indexes.push(index);
      call.products += mutation.products;
    });
    return calls;
  }

  async #send(batch: readonly Mutation[]): Promise<(ReplyReader | Failure)[]> {
    const calls = this.#callsOf(batch);
    const replies = await this.#connections.run(
      this.#script,
      calls.map(({ bucket, indexes }) => ({
        bucket,
        encode: () =>
          this.#codec.encode(
            indexes.map((index) => batch[index] as Mutation),
            this.#connections.waitsForReplicas,
          ),
      })),
    );
    const results: (ReplyReader | Failure)[] = [];
    for (const [position, { indexes }] of calls.entries()) {
      const outcome = replies[position];
      const decoded = outcome?.status === "fulfilled" ? this.#codec.decode(outcome.value) : [];
      if (outcome?.status === "fulfilled" && decoded.length !== indexes.length) {
        throw new Error(`${indexes.length} operations were sent and ${decoded.length} replies were received`);
      }
      indexes.forEach((index, nth) => {
        results[index] =
          decoded[nth] ?? new Failure(outcome?.status === "rejected" ? outcome.reason : undefined);
      });
    }
    return results;
  }

  #shouldResend(mutation: Mutation, error: unknown): boolean {
    if (isErrorReply(error) && error.message.startsWith(FENCED)) {
      this.#options.onFenced(this.#bucketOf(mutation));
      return true;
    }
    return mutation.isIdempotent && !isErrorReply(error) && !(error instanceof NotReplicated);
  }
}
