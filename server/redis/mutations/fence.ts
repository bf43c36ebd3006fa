import type { Redis } from "ioredis";
import type { Logger } from "pino";
import type { HealthPart } from "../../ops/health.ts";
import { RedisRequirementError } from "../connection/client.ts";
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

/**
 * Keeps this server from writing to a primary that it has not checked. Every batch names the data and the
 * incarnation that this server knows for each bucket it touches, and the script refuses it if the bucket has another.
 *
 * A new connection to a primary with another replication ID means a failover or a restart. Before anything is written
 * there, the newest acknowledged change of each bucket is looked up: what is missing was lost, and is reported. Then
 * the incarnation is raised, so that batches meant for the former primary are refused.
 *
 * One entry per bucket is enough: a replica has a prefix of what its primary wrote.
 */
export class Fence implements HealthPart {
  readonly name = "replication";
  readonly #keys: Keys;
  readonly #log: Logger;
  readonly #metrics: RedisMetrics | undefined;
  readonly #script = fenceScript();
  readonly #incarnations = new Map<number, string>();
  readonly #acknowledged = new Map<number, AcknowledgedChange>();
  #dataId: string | undefined;
  #replicationId: string | undefined;
  #lostChanges: string | undefined;
  #checking: Promise<void> = Promise.resolve();

  constructor(keys: Keys, log: Logger, metrics: RedisMetrics | undefined) {
    this.#keys = keys;
    this.#log = log;
    this.#metrics = metrics;
  }

  /** The data that this server works with; `undefined` before the first connection. */
  get dataId(): string | undefined {
    return this.#dataId;
  }

  /** What was lost in a failover or restart, if anything was. Kept until the process ends. */
  degraded(): readonly string[] {
    return this.#lostChanges === undefined ? [] : [this.#lostChanges];
  }

  details(): unknown {
    return { primary: this.#replicationId ?? null, suspect: this.#lostChanges !== undefined };
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
      args: touched.map((bucket) => `${this.#dataId}:${this.#incarnations.get(bucket)}`),
    };
  }

  /**
   * Checks the primary that `client` is connected to, and reads the incarnation of every bucket. Rejects if it holds other
   * data. Resolves with whether this primary was not known before. Checks of several connections run one after the other.
   */
  check(client: Redis, dataId: string): Promise<boolean> {
    const checked = this.#checking.then(() => this.#check(client, dataId));
    this.#checking = checked.then(
      () => {},
      () => {},
    );
    return checked;
  }

  async #check(client: Redis, dataId: string): Promise<boolean> {
    const replicationId = /^master_replid:(\w+)/m.exec(await client.info("replication"))?.[1] ?? "";
    const isAnother = this.#replicationId !== undefined && this.#replicationId !== replicationId;
    if (isAnother) {
      await this.#compare(client);
    }
    const markers = Array.from({ length: this.#keys.buckets }, (_, bucket) => this.#keys.marker(bucket));
    const args = [dataId, replicationId];
    const [status, ...incarnations] = list(
      await client.eval(this.#script.source, markers.length, ...markers, ...args),
    );
    if (status !== "ok") {
      throw new RedisRequirementError(
        `This Redis holds the data ${String(incarnations[0])} in some buckets and ${dataId} in others; restore one of them`,
      );
    }
    for (const [bucket, incarnation] of incarnations.entries()) {
      this.#incarnations.set(bucket, String(incarnation));
    }
    const isNew = this.#replicationId !== replicationId;
    this.#dataId = dataId;
    this.#replicationId = replicationId;
    if (isAnother) {
      this.#metrics?.failedOver();
      this.#log.warn({ replicationId }, "Redis has another primary, or was restarted; its data was checked");
    }
    return isNew;
  }

  /**
   * Looks for the newest acknowledged change of each bucket. Logs each loss once; the health report keeps it until restart.
   */
  async #compare(client: Redis): Promise<void> {
    for (const [bucket, change] of this.#acknowledged) {
      const { entryId, productId, version } = change;
      const [found] = await client.xrange(this.#keys.changes(bucket), entryId, entryId);
      const isThere =
        found === undefined
          ? // The stream may have been trimmed up to here; the ledger has every change.
            Number(await client.hget(this.#keys.ledger(productId), "V")) >= version
          : isChange(found, productId, version);
      if (!isThere) {
        this.#acknowledged.delete(bucket);
        this.#lostChanges = `Redis lost acknowledged changes: version ${version} of product ${productId} (bucket ${bucket}) is missing after a failover or restart`;
        this.#metrics?.setSuspect();
        this.#log.error({ bucket, productId, version, entryId }, this.#lostChanges);
      }
    }
  }
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
