import type { Redis } from "ioredis";
import type { Logger } from "pino";
import type { HealthPart } from "../../ops/health.ts";
import { RedisRequirementError } from "../connection/client.ts";
import { type Layout, replicationIdIn } from "../connection/requirements.ts";
import type { Keys } from "../keys.ts";
import type { RedisMetrics } from "../metrics.ts";
import { decodeChange, list } from "../reply.ts";
import { fenceScript } from "../scripts.ts";

/** The newest acknowledged change of a bucket: its entry in the change stream. */
export interface AcknowledgedChange {
  readonly entryId: string;
  readonly productId: string;
  readonly version: number;
}

/** How a script begins its error reply when the bucket has another incarnation: nothing ran. */
export const FENCED = "FENCED";

/** A bucket as this server has checked it. */
interface Checked {
  /** Identifies the primary. Changes when a replica is promoted, Redis is restarted, or the slot moves. */
  readonly replicationId: string;
  readonly incarnation: string;
}

/**
 * Keeps this server from writing to a primary that it has not checked. Every batch names the data and the
 * incarnation that this server knows for each bucket it touches, and the script refuses it if the bucket has another.
 *
 * A bucket at a primary with another replication ID means a failover, a restart or a moved slot. Before anything is
 * written there, the newest acknowledged change of the bucket is looked up: if it is missing, changes were lost, which is
 * reported. Then the incarnation is raised, so that batches meant for the former primary are refused.
 *
 * One entry per bucket is enough: a replica has a prefix of what its primary wrote.
 */
export class Fence implements HealthPart {
  readonly name = "replication";
  readonly #keys: Keys;
  readonly #log: Logger;
  readonly #metrics: RedisMetrics | undefined;
  readonly #script = fenceScript();
  readonly #checked = new Map<number, Checked>();
  readonly #acknowledged = new Map<number, AcknowledgedChange>();
  readonly #checking = new Map<number, Promise<unknown>>();
  #dataId: string | undefined;
  #lostChanges: string | undefined;

  constructor(keys: Keys, log: Logger, metrics: RedisMetrics | undefined) {
    this.#keys = keys;
    this.#log = log;
    this.#metrics = metrics;
  }

  /** The data that this server works with; `undefined` before the first check. */
  get dataId(): string | undefined {
    return this.#dataId;
  }

  /** Whether this server has checked every bucket, so that each has a marker. */
  get hasCheckedAll(): boolean {
    return this.#checked.size === this.#keys.buckets;
  }

  /** What was lost in a failover or restart, if anything was. Kept until the process ends. */
  degraded(): readonly string[] {
    return this.#lostChanges === undefined ? [] : [this.#lostChanges];
  }

  details(): unknown {
    const primaries = new Set([...this.#checked.values()].map(({ replicationId }) => replicationId));
    return { primaries: [...primaries], suspect: this.#lostChanges !== undefined };
  }

  /** Whether this server has checked a bucket at the primary with this replication ID. */
  isChecked(bucket: number, replicationId: string): boolean {
    return this.#checked.get(bucket)?.replicationId === replicationId;
  }

  /** Makes the bucket unchecked: a primary has refused it, because another server has raised its incarnation. */
  forget(bucket: number): void {
    const known = this.#checked.get(bucket);
    if (known !== undefined) {
      this.#checked.set(bucket, { ...known, replicationId: "" });
    }
  }

  /** Notes the newest change of a bucket that was acknowledged to a caller. */
  acknowledged(bucket: number, change: AcknowledgedChange): void {
    const known = this.#acknowledged.get(bucket);
    if (known === undefined || isLater(change.entryId, known.entryId)) {
      this.#acknowledged.set(bucket, change);
    }
  }

  /** The markers of the buckets that these keys belong to, and what a script must find in each. */
  expectation(keys: readonly string[]): { readonly keys: string[]; readonly args: string[] } {
    const buckets = new Set(keys.map((key) => this.#keys.bucketIn(key)));
    buckets.delete(undefined);
    const touched = [...buckets] as number[];
    return {
      keys: touched.map((bucket) => this.#keys.marker(bucket)),
      args: touched.map((bucket) => `${this.#dataId}:${this.#checked.get(bucket)?.incarnation}`),
    };
  }

  /**
   * Checks buckets at the primary that `client` is connected to, and reads the incarnation of each; by default all buckets.
   * Resolves with whether any of them was not checked at this primary before. Rejects with `RedisRequirementError` if
   * one holds other data or has lost its marker, and with the error reply if one is at another primary. Checks of the same
   * bucket run one after the other.
   */
  async check(client: Redis, layout: Layout, buckets: readonly number[] = this.#all()): Promise<boolean> {
    const earlier = Promise.allSettled(buckets.map((bucket) => this.#checking.get(bucket)));
    const checked = earlier.then(() => this.#check(client, layout, buckets));
    const settled = checked.then(
      () => {},
      () => {},
    );
    for (const bucket of buckets) {
      this.#checking.set(bucket, settled);
    }
    return checked;
  }

  #all(): number[] {
    return Array.from({ length: this.#keys.buckets }, (_, bucket) => bucket);
  }

  async #check(client: Redis, layout: Layout, buckets: readonly number[]): Promise<boolean> {
    const replicationId = replicationIdIn(await client.info("replication"));
    const isUnchecked = (bucket: number) => this.#checked.get(bucket)?.replicationId !== replicationId;
    const moved = buckets.filter((bucket) => this.#checked.has(bucket) && isUnchecked(bucket));
    const isNew = buckets.some(isUnchecked);
    await this.#compare(client, moved);
    const replies = await this.#readMarkers(client, buckets, (bucket) => [
      layout.dataId,
      replicationId,
      layout.hasMarkers || this.#checked.has(bucket) ? "1" : "0",
    ]);
    for (const [bucket, reply] of replies) {
      const [status, value] = list(reply).map(String);
      if (status !== "ok") {
        throw new RedisRequirementError(refusalText(bucket, status === "empty" ? undefined : value, layout));
      }
      this.#checked.set(bucket, { replicationId, incarnation: String(value) });
    }
    this.#dataId = layout.dataId;
    if (moved.length > 0) {
      this.#metrics?.failedOver();
      this.#log.warn(
        { replicationId, buckets: moved },
        "Redis has another primary, or was restarted; its data was checked",
      );
    }
    return isNew;
  }

  /** Runs the script for each bucket. Its first call caches it. */
  async #readMarkers(
    client: Redis,
    buckets: readonly number[],
    args: (bucket: number) => string[],
  ): Promise<Map<number, unknown>> {
    const { source, sha1 } = this.#script;
    const [first, ...rest] = buckets;
    const replies = new Map<number, unknown>();
    if (first !== undefined) {
      replies.set(first, await client.eval(source, 1, this.#keys.marker(first), ...args(first)));
    }
    const others = await Promise.all(
      rest.map((bucket) => client.evalsha(sha1, 1, this.#keys.marker(bucket), ...args(bucket))),
    );
    for (const [index, bucket] of rest.entries()) {
      replies.set(bucket, others[index]);
    }
    return replies;
  }

  /**
   * Looks for the newest acknowledged change of each bucket. Logs each loss once; the health report keeps it until restart.
   */
  async #compare(client: Redis, buckets: readonly number[]): Promise<void> {
    for (const bucket of buckets) {
      const change = this.#acknowledged.get(bucket);
      if (change !== undefined && !(await this.#hasChange(client, bucket, change))) {
        const { entryId, productId, version } = change;
        this.#acknowledged.delete(bucket);
        this.#lostChanges = `Redis lost acknowledged changes: version ${version} of product ${productId} (bucket ${bucket}) is missing after a failover or restart`;
        this.#metrics?.setSuspect();
        this.#log.error({ bucket, productId, version, entryId }, this.#lostChanges);
      }
    }
  }

  async #hasChange(
    client: Redis,
    bucket: number,
    { entryId, productId, version }: AcknowledgedChange,
  ): Promise<boolean> {
    const [found] = await client.xrange(this.#keys.changes(bucket), entryId, entryId);
    return found === undefined
      ? // The stream may have been trimmed up to here; the ledger has every change.
        Number(await client.hget(this.#keys.ledger(productId), "V")) >= version
      : isChange(found, productId, version);
  }
}

function refusalText(bucket: number, found: string | undefined, { dataId }: Layout): string {
  return found === undefined
    ? `Bucket ${bucket} has lost its data: its marker is missing at this primary, and other buckets hold the data ${dataId}; restore it, or accept the bucket as it is (see "An empty bucket" in docs/operations.md)`
    : `This Redis holds the data ${found} in some buckets and ${dataId} in others; restore one of them`;
}

function isChange(entry: unknown, productId: string, version: number): boolean {
  const { ledger } = decodeChange(entry);
  return ledger.productId === productId && ledger.version === version;
}

/** Whether a stream ID, `<ms>-<sequence>`, is later than another one. */
function isLater(one: string, other: string): boolean {
  const [ms = 0, sequence = 0] = one.split("-").map(Number);
  const [otherMs = 0, otherSequence = 0] = other.split("-").map(Number);
  return ms > otherMs || (ms === otherMs && sequence > otherSequence);
}
