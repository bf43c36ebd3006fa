import type { Redis } from "ioredis";
import type { ChangeKey } from "../../inventory/change-history.ts";
import { Keys } from "../keys.ts";
import { decodeReference } from "../reference-record.ts";
import { decodeChange } from "../reply.ts";
import { outboxScript } from "../scripts.ts";
import { type NamedKey, type OperationName, parseOperation } from "./ledger-keys.ts";

const LAYOUTS_READ: readonly string[] = ["2", "3"];

/** Why the copy cannot start. The message says what to do. */
export class CopyRefusedError extends Error {
  override readonly name = "CopyRefusedError";
}

/** The ledger that is copied. It is only read, and must not change meanwhile. */
export class Source {
  readonly client: Redis;
  readonly keys: Keys;
  readonly layoutVersion: number;
  readonly isSharded = false;
  /** The reservation of each return, of layout 2. Filled by the inspection. */
  readonly ownersOfReturns = new Map<string, string>();
  readonly #outbox = outboxScript();

  private constructor(client: Redis, keys: Keys, layoutVersion: number) {
    this.client = client;
    this.keys = keys;
    this.layoutVersion = layoutVersion;
  }

  /** Reads the layout. Rejects with `CopyRefusedError` if this release does not know it. */
  static async open(client: Redis): Promise<Source> {
    const info = await client.info("replication", "cluster");
    if (info.includes("cluster_enabled:1")) {
      throw new CopyRefusedError(
        "The source is a Redis Cluster; only the ledger of one primary can be copied",
      );
    }
    if (info.includes("role:slave")) {
      throw new CopyRefusedError(
        "The source is a replica, which changes while it is read; detach it with REPLICAOF NO ONE, or copy a restored backup",
      );
    }
    const [version, buckets] = await client.hmget("{b00}:layout", "version", "buckets");
    if (!LAYOUTS_READ.includes(version ?? "")) {
      throw new CopyRefusedError(
        `The source has key layout ${version ?? "none"}; the layouts ${LAYOUTS_READ.join(" and ")} can be copied`,
      );
    }
    return new Source(client, new Keys(Number(buckets)), Number(version));
  }

  /** The newest change of each bucket. Two equal readings mean that nothing has changed in between. */
  async newestChanges(): Promise<string> {
    const buckets = [...Array(this.keys.buckets).keys()];
    const newest = await Promise.all(
      buckets.map(async (bucket) => {
        const [entry] = await this.client.xrevrange(this.keys.changes(bucket), "+", "-", "COUNT", 1);
        return entry?.[0] ?? "";
      }),
    );
    return newest.join();
  }

  /** Changes that no publisher has sent yet. */
  async unpublished(): Promise<number> {
    const { source } = this.#outbox;
    const buckets = [...Array(this.keys.buckets).keys()];
    const replies = await Promise.all(
      buckets.map((bucket) =>
        this.client.eval(source, 2, this.keys.outbox(bucket), this.keys.changes(bucket), "backlog"),
      ),
    );
    return replies.reduce<number>((sum, reply) => sum + Number((reply as unknown[])[1]), 0);
  }

  /**
   * An operation with its owner; the owner is `undefined` if it cannot be found. Layout 2 has no owner in the key: that of a
   * count or adjustment is found through the record of its changes, that of a return through its reservation.
   */
  async operationOf(key: NamedKey): Promise<OperationName | undefined> {
    const operation = parseOperation(key.name, this.layoutVersion);
    if (operation === undefined || operation.ownerId !== undefined) {
      return operation;
    }
    return {
      ...operation,
      ownerId:
        operation.kind === "return"
          ? this.ownersOfReturns.get(operation.id)
          : await this.#correctedProduct(operation),
    };
  }

  /** The product of a count or adjustment. Returns have a reference too, possibly with the same ID: the cause tells. */
  async #correctedProduct({ kind, id }: OperationName): Promise<string | undefined> {
    const buckets = [...Array(this.keys.buckets).keys()];
    const records = await Promise.all(
      buckets.map(async (bucket) => {
        const text = await this.client.get(this.keys.reference(bucket, id));
        const changes = text === null ? [] : decodeReference(text);
        return changes.filter(({ productId }) => this.keys.bucketOf(productId) === bucket);
      }),
    );
    const candidates = records.flat();
    const causes = await Promise.all(candidates.map((change) => this.#causeOf(change, id)));
    const wanted = kind === "count" ? "counted" : "adjusted";
    const found = candidates.filter((_, index) => causes[index] === wanted);
    const untold = candidates.filter((_, index) => causes[index] === undefined);
    const products = new Set((found.length > 0 ? found : untold).map(({ productId }) => productId));
    return products.size === 1 ? [...products][0] : undefined;
  }

  /** The cause of a change of this reference. `undefined` if the history does not have it any more. */
  async #causeOf({ productId, version }: ChangeKey, id: string): Promise<string | undefined> {
    const entryId = `${version}-0`;
    const [entry] = await this.client.xrange(this.keys.history(productId), entryId, entryId);
    if (entry === undefined) {
      return undefined;
    }
    const { cause, referenceId } = decodeChange(entry);
    return referenceId === id ? cause : "";
  }
}
