import type { Redis } from "ioredis";
import type { Logger } from "pino";
import type { HealthPart } from "../../ops/health.ts";
import { RESPONSE_MS_MAX } from "../connection/client.ts";
import { type ClusterPrimaries, redirected, unassigned } from "../connection/cluster-primaries.ts";
import { warnOfDurability } from "../connection/durability.ts";
import { isErrorReply, redirectionOf } from "../connection/error-replies.ts";
import type { Layout } from "../connection/requirements.ts";
import type { Owner } from "../connection/slot-map.ts";
import type { Keys } from "../keys.ts";
import type { BucketCounts } from "../metrics.ts";
import type { ReplyReader } from "../reply.ts";
import type { BatchOptions } from "./batch.ts";
import type { Fence } from "./fence.ts";
import type { Mutation, MutationWriter } from "./mutation.ts";
import { PrimaryWriter } from "./primary-writer.ts";
import { WriteConnections } from "./write-connections.ts";

/** Delay before a mutation is sent again that no node could run, ms. */
const RETRY_MS = 20;
/** How long a mutation waits for the primary of its bucket to become known, ms. */
const UNKNOWN_MS_MAX = 300;
/** How long batches in flight to a node that is no longer a primary may take, ms. */
const RETIRE_MS = RESPONSE_MS_MAX;

/** The node is no longer the primary of any bucket. What was rejected with this was not sent. */
class PrimaryRetired extends Error {
  override readonly name = "PrimaryRetired";
}

interface ClusterWriterOptions {
  readonly primaries: ClusterPrimaries;
  readonly acks: number;
  readonly fence: Fence;
  readonly keys: Keys;
  readonly log: Logger;
  readonly batch: BatchOptions;
}

/**
 * Sends mutations to the primaries of a Redis Cluster. A mutation that no node has run, because its bucket is at another node or
 * not served at the moment, is sent again until the response timeout. Other failures are those of `PrimaryWriter`.
 */
export class ClusterWriter implements MutationWriter, HealthPart {
  readonly name = "cluster";
  readonly firstReady: Promise<unknown>;
  readonly #options: ClusterWriterOptions;
  /** By the name of the node. */
  readonly #writers = new Map<string, PrimaryWriter>();
  /** Why a node refused the last probe. */
  readonly #probeFailures = new Map<string, string>();
  /** Why a bucket must not be written. */
  readonly #refusedBuckets = new Map<number, string>();
  readonly #warnedOf = new Set<string>();
  readonly #stopFollowing: () => void;
  #isClosed = false;

  constructor(options: ClusterWriterOptions) {
    this.#options = options;
    const { map } = options.primaries;
    this.#stopFollowing = map.onChange(() => this.#follow());
    this.#follow();
    this.firstReady = map.firstKnown.then(() =>
      Promise.all([...this.#writers.values()].map(({ firstReady }) => firstReady)),
    );
    this.firstReady.catch(() => {});
    options.batch.instruments.metrics?.countBuckets(() => this.#counts());
  }

  async submit(mutation: Mutation): Promise<ReplyReader> {
    const bucket = this.#options.keys.bucketIn(mutation.keys[0] ?? "");
    if (bucket === undefined) {
      throw new Error(`The operation ${mutation.name} has no key of a bucket`);
    }
    const submittedAt = performance.now();
    for (;;) {
      const writer = this.#writerOf(bucket);
      const waitedMs = performance.now() - submittedAt;
      try {
        if (writer !== undefined) {
          return await writer.submit(mutation, submittedAt);
        }
        if (waitedMs > UNKNOWN_MS_MAX || this.#isClosed) {
          throw unassigned(`bucket ${bucket}`);
        }
      } catch (error) {
        const kind = error instanceof PrimaryRetired ? "MOVED" : redirectionOf(error)?.kind;
        if (kind === undefined) {
          throw error;
        }
        if (this.#isClosed || performance.now() - submittedAt >= RESPONSE_MS_MAX) {
          throw redirected(error);
        }
        if (kind === "MOVED") {
          continue;
        }
      }
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }

  get queued(): number {
    return [...this.#writers.values()].reduce((sum, { queued }) => sum + queued, 0);
  }

  get unreadyReason(): string | undefined {
    const reasons = [...this.#writers.values()].map(({ unreadyReason }) => unreadyReason);
    return reasons.length === 0
      ? "No node of the Redis Cluster is known"
      : reasons.includes(undefined)
        ? undefined
        : reasons[0];
  }

  async probe(run: (bucket: number) => Promise<unknown>): Promise<void> {
    const nodes = [...this.#options.primaries.map.byOwner];
    const outcomes = await Promise.allSettled(nodes.map(([, { buckets }]) => run(buckets[0] ?? 0)));
    this.#probeFailures.clear();
    for (const [index, outcome] of outcomes.entries()) {
      const [name] = nodes[index] ?? [];
      if (outcome.status === "rejected" && name !== undefined) {
        this.#probeFailures.set(name, reasonOf(outcome.reason));
      }
    }
    const first = outcomes[0];
    if (first?.status === "rejected" && this.#probeFailures.size === nodes.length) {
      throw first.reason;
    }
  }

  noteErrorReply(text: string): void {
    // A reply inside that of a script is no redirection, so any node's connection counts it.
    [...this.#writers.values()][0]?.noteErrorReply(text);
  }

  degraded(): readonly string[] {
    const nodes = this.#counts().flatMap(({ node, buckets, unavailable }) =>
      unavailable === 0 || node === ""
        ? []
        : [
            `Redis Cluster: ${unavailable} of ${buckets} buckets of node ${node} are unavailable: ${this.#probeFailures.get(node) ?? this.#writers.get(node)?.unreadyReason ?? "refused"}`,
          ],
    );
    const unassignedBuckets = this.#unavailableOf("");
    const refused = [...this.#refusedBuckets].map(
      ([bucket, reason]) => `Redis Cluster: bucket ${bucket} is unavailable: ${reason}`,
    );
    return [
      ...nodes,
      ...(unassignedBuckets.length === 0
        ? []
        : [`Redis Cluster: no node is known to serve the buckets ${unassignedBuckets.join(", ")}`]),
      ...refused,
    ];
  }

  details(): unknown {
    const { map } = this.#options.primaries;
    return {
      buckets: this.#options.keys.buckets,
      nodes: Object.fromEntries(
        [...map.byOwner].map(([name, { buckets }]) => [
          name,
          { buckets: buckets.length, unavailable: this.#unavailableOf(name) },
        ]),
      ),
      unassigned: this.#unavailableOf(""),
    };
  }

  close(): void {
    this.#isClosed = true;
    this.#stopFollowing();
    for (const writer of this.#writers.values()) {
      writer.close();
    }
  }

  #counts(): BucketCounts[] {
    const nodes = [...this.#options.primaries.map.byOwner].map(([node, { buckets }]) => ({
      node,
      buckets: buckets.length,
      unavailable: this.#unavailableOf(node).length,
    }));
    const unassignedCount = this.#unavailableOf("").length;
    return [
      ...nodes,
      ...(unassignedCount === 0
        ? []
        : [{ node: "", buckets: unassignedCount, unavailable: unassignedCount }]),
    ];
  }

  /** The buckets of a node that cannot be written now; those without a node if its name is empty. */
  #unavailableOf(node: string): number[] {
    const { map } = this.#options.primaries;
    const isNodeUnavailable =
      node === "" || this.#probeFailures.has(node) || (this.#writers.get(node)?.isUnavailable ?? true);
    return Array.from({ length: this.#options.keys.buckets }, (_, bucket) => bucket).filter(
      (bucket) =>
        (map.ownerOf(bucket)?.name ?? "") === node && (isNodeUnavailable || this.#refusedBuckets.has(bucket)),
    );
  }

  #writerOf(bucket: number): PrimaryWriter | undefined {
    const owner = this.#options.primaries.map.ownerOf(bucket);
    return owner && this.#writers.get(owner.name);
  }

  /** Opens a writer for each new primary, and closes those of nodes that are none any more. */
  #follow(): void {
    const { byOwner } = this.#options.primaries.map;
    for (const [name, { owner }] of byOwner) {
      if (!this.#writers.has(name)) {
        this.#writers.set(name, this.#open(owner));
      }
    }
    for (const [name, writer] of this.#writers) {
      if (!byOwner.has(name)) {
        this.#writers.delete(name);
        writer.retire(new PrimaryRetired(`${name} is no longer a primary`), RETIRE_MS);
      }
    }
  }

  #open(owner: Owner): PrimaryWriter {
    const { primaries, acks, fence, keys, batch } = this.#options;
    return new PrimaryWriter({
      connections: new WriteConnections({
        acks,
        node: owner.name,
        open: (name, prepare) => primaries.openTo(name, owner, prepare),
        confirmation: primaries.confirmation,
        instruments: batch.instruments,
        prepare: (client, replicationId) => this.#prepare(owner, client, replicationId),
        checkBuckets: (client, replicationId, buckets) => this.#check(client, replicationId, buckets),
      }),
      fence,
      keys,
      batch,
      isOne: false,
      onFenced: (bucket) => fence.forget(bucket),
    });
  }

  /** Checks the buckets of a node early, so that their first mutations need not wait for that. */
  async #prepare(owner: Owner, client: Redis, replicationId: string): Promise<void> {
    const { primaries, fence, acks, log } = this.#options;
    const layout = await primaries.checkLayout(client, fence.dataId);
    const buckets = primaries.map.byOwner.get(owner.name)?.buckets ?? [];
    const refused = await this.#check(client, replicationId, buckets, layout);
    const down = [...refused.values()].find((error) => redirectionOf(error)?.kind === "CLUSTERDOWN");
    if (down !== undefined) {
      // For some seconds after its start, and in a minority partition. It serves no bucket.
      throw down;
    }
    if (!layout.hasMarkers && fence.hasCheckedAll) {
      await primaries.recordMarkers();
    }
    if (!this.#warnedOf.has(replicationId)) {
      this.#warnedOf.add(replicationId);
      await warnOfDurability(client, acks, log, owner.name);
    }
  }

  async #check(
    client: Redis,
    replicationId: string,
    buckets: readonly number[],
    known?: Layout,
  ): Promise<ReadonlyMap<number, unknown>> {
    const { primaries, fence } = this.#options;
    const unchecked = buckets.filter((bucket) => !fence.isChecked(bucket, replicationId));
    const refused = new Map<number, unknown>();
    if (unchecked.length === 0) {
      return refused;
    }
    const layout = known ?? (await primaries.checkLayout(client, fence.dataId));
    try {
      await fence.check(client, layout, unchecked);
    } catch {
      // Some of them fail. The others must not.
      const outcomes = await Promise.allSettled(
        unchecked.map((bucket) => fence.check(client, layout, [bucket])),
      );
      for (const [index, outcome] of outcomes.entries()) {
        if (outcome.status === "rejected") {
          refused.set(unchecked[index] ?? 0, outcome.reason);
        }
      }
    }
    for (const bucket of unchecked) {
      this.#noteRefusal(bucket, refused.get(bucket));
    }
    return refused;
  }

  /** Keeps the reason if it is not an error reply or a broken connection, which pass: the bucket's data is not what it must be. */
  #noteRefusal(bucket: number, error: unknown): void {
    if (error instanceof Error && error.name === "RedisRequirementError") {
      this.#options.log.error({ bucket }, error.message);
      this.#refusedBuckets.set(bucket, error.message);
    } else if (!isErrorReply(error)) {
      this.#refusedBuckets.delete(bucket);
    }
  }
}

function reasonOf(error: unknown): string {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  return cause instanceof Error ? cause.message : String(cause);
}
