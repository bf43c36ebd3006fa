import { randomUUID } from "node:crypto";
import { Cluster } from "ioredis";
import type { ChangeKey } from "../../inventory/change-history.ts";
import { Keys, LAYOUT_VERSION, UNFINISHED_COPY } from "../keys.ts";
import type { Client } from "./clients.ts";
import { convertReference, convertReservation, mergeReference } from "./convert.ts";
import { type NamedKey, scanLedger, scanNode } from "./ledger-keys.ts";
import { readStream, readText, writeText } from "./records.ts";
import { CopyRefusedError, type Source } from "./source.ts";
import { inGroups } from "./tally.ts";

/** Keys that are copied at once, and histories, each of which may have thousands of changes. */
const KEYS_AT_ONCE = 500;
const HISTORIES_AT_ONCE = 25;

/** Where the ledger is copied to. */
export class Target {
  readonly client: Client;
  readonly keys: Keys;
  /** Whether it is a Redis Cluster. */
  readonly isSharded: boolean;

  constructor(client: Client, buckets: number) {
    this.client = client;
    this.keys = new Keys(buckets);
    this.isSharded = client instanceof Cluster;
  }

  /** Rejects with `CopyRefusedError` if there is a ledger. Keys that do not belong to one may be there. */
  async checkEmpty(): Promise<void> {
    for await (const { named, unknown } of scanLedger(this.client)) {
      const [found] = [...named.map(({ key }) => key), ...unknown];
      if (found !== undefined) {
        throw new CopyRefusedError(`The target is not empty: it has the key ${JSON.stringify(found)}`);
      }
    }
    if ((await this.client.exists(this.keys.layout())) === 1) {
      throw new CopyRefusedError(`The target is not empty: it has the key ${this.keys.layout()}`);
    }
  }

  /** Copies the source. Until `finish`, servers refuse the target. */
  async copy(source: Source): Promise<void> {
    await this.client.hset(this.keys.layout(), {
      version: UNFINISHED_COPY,
      buckets: this.keys.buckets,
      data: randomUUID(),
    });
    const collections = await source.client.hgetall(source.keys.collections());
    if (Object.keys(collections).length > 0) {
      await this.client.hset(this.keys.collections(), collections);
    }
    for await (const { named } of scanNode(source.client, "{b*}:*")) {
      const histories = named.filter(({ kind }) => kind === "h");
      const references = named.filter(({ kind }) => kind === "ref");
      const others = named.filter(({ kind }) => kind !== "h" && kind !== "ref");
      await inGroups(others, KEYS_AT_ONCE, (key) => this.#copyKey(key, source));
      await inGroups(histories, HISTORIES_AT_ONCE, (key) => this.#copyHistory(key, source));
      // Those with the same ID may become one record.
      const byId = [...Map.groupBy(references, ({ name }) => name).values()];
      await inGroups(byId, KEYS_AT_ONCE, async (sameId) => {
        for (const key of sameId) {
          await this.#copyReference(key, source);
        }
      });
    }
  }

  /** Lets publishers send the newest state of every product, after changes that were not published. */
  async requestSnapshots(): Promise<void> {
    const buckets = [...Array(this.keys.buckets).keys()];
    await Promise.all(buckets.map((bucket) => this.client.hset(this.keys.outbox(bucket), "due", "0-0")));
  }

  /** Makes the target usable. */
  async finish(): Promise<void> {
    await this.client.hset(this.keys.layout(), "version", LAYOUT_VERSION);
  }

  async #copyKey(key: NamedKey, source: Source): Promise<void> {
    const { client, keys } = this;
    switch (key.kind) {
      case "p": {
        const fields = await source.client.hgetall(key.key);
        await Promise.all([
          client.hset(keys.ledger(key.name), fields),
          client.sadd(keys.products(keys.bucketOf(key.name)), key.name),
        ]);
        return;
      }
      case "d": {
        const details = await readText(source.client, key.key);
        await (details && writeText(client, keys.details(key.name), details));
        return;
      }
      case "r":
        return this.#copyReservation(key, source);
      case "op": {
        const operation = await source.operationOf(key);
        const record = await readText(source.client, key.key);
        if (operation?.ownerId !== undefined && record !== undefined) {
          const { kind, ownerId, id } = operation;
          await writeText(client, keys.operation(kind, ownerId, id), record);
        }
        return;
      }
      default:
        throw new Error(`The key ${JSON.stringify(key.key)} is copied elsewhere`);
    }
  }

  async #copyReservation({ key, name }: NamedKey, source: Source): Promise<void> {
    const record = await readText(source.client, key);
    if (record === undefined) {
      return;
    }
    const { text, deadlineMs, holds } = convertReservation(name, record.text, this);
    await Promise.all([
      writeText(this.client, this.keys.reservation(name), { ...record, text }),
      ...[...holds].map(([bucket, hold]) =>
        writeText(this.client, this.keys.hold(bucket, name), { ...record, text: hold }),
      ),
    ]);
    if (deadlineMs !== undefined) {
      await this.client.zadd(this.keys.deadlines(this.keys.bucketOf(name)), deadlineMs, name);
    }
  }

  async #copyHistory({ key, name }: NamedKey, source: Source): Promise<void> {
    const history = this.keys.history(name);
    // A scan may visit a key twice.
    await this.client.del(history);
    for await (const entries of readStream(source.client, key)) {
      await Promise.all(entries.map(([id, fields]) => this.client.xadd(history, id, ...fields)));
    }
  }

  async #copyReference({ key, name }: NamedKey, source: Source): Promise<void> {
    const record = await readText(source.client, key);
    if (record === undefined) {
      return;
    }
    for (const [targetKey, changes] of convertReference(name, record.text, this.keys)) {
      await this.#mergeReference(targetKey, changes, record.ttlMs);
    }
  }

  async #mergeReference(
    key: string,
    changes: readonly ChangeKey[],
    ttlMs: number | undefined,
  ): Promise<void> {
    const known = await readText(this.client, key);
    await writeText(this.client, key, {
      text: mergeReference(known?.text, changes),
      ttlMs: known === undefined ? ttlMs : Math.max(known.ttlMs ?? 0, ttlMs ?? 0) || undefined,
    });
  }
}
