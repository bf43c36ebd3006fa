import { Redis } from "ioredis";
import type { Logger } from "pino";
import type { Keys } from "../keys.ts";
import type { RedisMetrics } from "../metrics.ts";
import { RedisRequirementError } from "./client.ts";
import { type ClusterNode, decodeClusterNodes, serves } from "./cluster-nodes.ts";
import { type ClusterEndpoint, CONNECT_MS_MAX, formatAddress, type HostAndPort } from "./endpoint.ts";
import { isErrorReply, redirectionOf } from "./error-replies.ts";
import { keySlot } from "./key-slot.ts";

/** How long a node may take to describe the Cluster, ms. Short, because a mutation may wait for it within its response timeout. */
const ANSWER_MS_MAX = 200;
/** Shortest interval between two refreshes, ms. */
const REFRESH_MS_MIN = 1_000;
/** Interval between refreshes while nothing asks for one, ms. */
const REFRESH_MS = 5_000;
const RECONNECT_MS = 200;

/** A primary, by its address. */
export interface Owner {
  /** `host:port`, by which connections, metrics and the log name the node. */
  readonly name: string;
  readonly address: HostAndPort;
}

interface SlotMapOptions {
  readonly endpoint: ClusterEndpoint;
  readonly password: string | undefined;
  readonly keys: Keys;
  readonly log: Logger;
  readonly metrics: RedisMetrics | undefined;
}

/**
 * Which primary serves which bucket. Asks every known primary with CLUSTER NODES, because a partitioned node has an old view:
 * of two claims to a slot, the one with the greater epoch counts. Refreshes at most once a second: periodically, after an
 * error reply of a node that does not serve a slot, and after a lost connection.
 */
export class SlotMap {
  /** Resolves when the primaries are first known. Rejects with `RedisRequirementError` if a seed node is not in Cluster mode. */
  readonly firstKnown: Promise<void>;
  readonly #options: SlotMapOptions;
  /** The slot of each bucket. */
  readonly #slots: readonly number[];
  readonly #first = Promise.withResolvers<void>();
  readonly #listeners = new Set<() => void>();
  readonly #clients = new Map<string, Redis>();
  readonly #timer: NodeJS.Timeout;
  #owners: (Owner | undefined)[];
  /** Nodes with slots, as they were last described, the newest claims first; of equal ones, what a node says of itself. */
  #claims: readonly ClusterNode[] = [];
  /** Slots that a node has said to be elsewhere since the last refresh. */
  readonly #moves = new Map<number, Owner>();
  /** Primaries that hold slots. */
  #primaries: readonly ClusterNode[] = [];
  #nextRefresh: NodeJS.Timeout | undefined;
  #refreshedAt = Number.NEGATIVE_INFINITY;
  #refreshing: Promise<void> | undefined;
  #isClosed = false;

  constructor(options: SlotMapOptions) {
    this.#options = options;
    const { keys } = options;
    this.#slots = Array.from({ length: keys.buckets }, (_, bucket) => keySlot(keys.marker(bucket)));
    this.#owners = this.#slots.map(() => undefined);
    this.firstKnown = this.#first.promise;
    this.firstKnown.catch(() => {});
    this.#timer = setInterval(() => this.refresh(), REFRESH_MS);
    this.#timer.unref();
    this.refresh();
  }

  /** The primary of a bucket. `undefined` before it is known, and if no node serves the slot. */
  ownerOf(bucket: number): Owner | undefined {
    return this.#owners[bucket];
  }

  /** The primary of any key. */
  ownerOfKey(key: string): Owner | undefined {
    return this.#ownerOfSlot(keySlot(key));
  }

  /** The buckets of each primary, by its name. */
  get byOwner(): ReadonlyMap<string, { readonly owner: Owner; readonly buckets: readonly number[] }> {
    const byName = new Map<string, { owner: Owner; buckets: number[] }>();
    for (const [bucket, owner] of this.#owners.entries()) {
      if (owner !== undefined) {
        const known = byName.get(owner.name);
        if (known === undefined) {
          byName.set(owner.name, { owner, buckets: [bucket] });
        } else {
          known.buckets.push(bucket);
        }
      }
    }
    return byName;
  }

  /** Calls `listener` whenever a bucket has another primary, until the returned function is called. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Reads the map again, now or as soon as the shortest interval has passed. */
  refresh(): void {
    if (this.#isClosed || this.#nextRefresh !== undefined || this.#refreshing !== undefined) {
      return;
    }
    const waitMs = Math.max(0, this.#refreshedAt + REFRESH_MS_MIN - performance.now());
    this.#nextRefresh = setTimeout(() => {
      this.#nextRefresh = undefined;
      this.#refreshedAt = performance.now();
      this.#refreshing = this.#refresh().finally(() => {
        this.#refreshing = undefined;
      });
    }, waitMs);
    this.#nextRefresh.unref();
  }

  /**
   * Notes an error reply of a node. `MOVED <slot> <host>:<port>` names the primary, without host if it is that of `from`, the node
   * that replied. The redirection counts at once; the next refresh confirms it.
   */
  noteErrorReply(text: string, from: HostAndPort | undefined): void {
    const redirection = redirectionOf(new Error(text));
    if (redirection === undefined) {
      return;
    }
    const [, slotText, host = "", port] = /^MOVED (\d+) (.*):(\d+)$/.exec(redirection.text) ?? [];
    if (slotText !== undefined) {
      this.#moved(Number(slotText), { host: host === "" ? (from?.host ?? "") : host, port: Number(port) });
    }
    this.refresh();
  }

  /**
   * Whether a majority of the primaries, the node itself included, name the node with this ID as a primary that they reach.
   * A majority elects the replica that replaces a primary, and each elector considers the primary failed.
   */
  async confirms(nodeId: string): Promise<boolean> {
    const answers = await this.#ask(this.#primaries.map(({ address }) => address));
    const confirming = answers.filter((nodes) =>
      nodes.some(
        ({ id, isPrimary, isFailing, slots }) => id === nodeId && isPrimary && !isFailing && slots.length > 0,
      ),
    );
    return confirming.length * 2 > this.#primaries.length;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  close(): void {
    this.#isClosed = true;
    clearInterval(this.#timer);
    clearTimeout(this.#nextRefresh);
    this.#listeners.clear();
    for (const client of this.#clients.values()) {
      client.disconnect();
    }
  }

  async #refresh(): Promise<void> {
    const { endpoint } = this.#options;
    const known = this.#primaries.map(({ address }) => address);
    let answers = await this.#ask(known);
    if (answers.length === 0) {
      answers = await this.#ask(endpoint.addresses);
    }
    if (this.#isClosed || answers.length === 0) {
      return;
    }
    this.#claims = answers
      .flat()
      .filter(({ isPrimary, slots }) => isPrimary && slots.length > 0)
      .toSorted((a, b) => b.epoch - a.epoch || Number(b.isSelf) - Number(a.isSelf));
    this.#moves.clear();
    const newest = new Map(this.#claims.toReversed().map((node) => [node.id, node]));
    this.#primaries = [...newest.values()].filter(({ id, slots }) =>
      slots.some(([first]) => this.#claims.find((claim) => serves(claim, first))?.id === id),
    );
    this.#closeUnused();
    this.#setOwners(this.#slots.map((slot) => this.#ownerOfSlot(slot)));
    this.#first.resolve();
  }

  /** Asks nodes how they see the Cluster. Resolves with the answers that come in time. */
  async #ask(addresses: readonly HostAndPort[]): Promise<ClusterNode[][]> {
    const answers = await Promise.allSettled(
      addresses.map(async (address) =>
        decodeClusterNodes(String(await this.#clientOf(address).call("CLUSTER", "NODES")), address),
      ),
    );
    return answers.flatMap((answer, index) => {
      if (answer.status === "fulfilled") {
        return [answer.value];
      }
      this.#onUnanswered(addresses[index], answer.reason);
      return [];
    });
  }

  #onUnanswered(node: HostAndPort | undefined, error: unknown): void {
    this.#options.log.debug({ err: error, node }, "A node did not describe the Redis Cluster");
    if (isErrorReply(error) && error.message.includes("cluster support disabled")) {
      this.#first.reject(
        new RedisRequirementError(
          `REDIS_CLUSTER names ${node === undefined ? "a node" : formatAddress(node)}, which is not in Cluster mode; set REDIS_URL to use a single Redis`,
        ),
      );
    }
  }

  #moved(slot: number, found: HostAndPort): void {
    const known = this.#primaries.find(
      ({ address, ip }) => address.port === found.port && (ip === found.host || address.host === found.host),
    );
    this.#moves.set(slot, ownerAt(known?.address ?? found));
    this.#setOwners(this.#slots.map((each) => this.#ownerOfSlot(each)));
  }

  #ownerOfSlot(slot: number): Owner | undefined {
    const claim = this.#claims.find((node) => serves(node, slot));
    return this.#moves.get(slot) ?? (claim && ownerAt(claim.address));
  }

  #setOwners(owners: (Owner | undefined)[]): void {
    const changed = owners.flatMap((owner, bucket) =>
      owner?.name === this.#owners[bucket]?.name ? [] : [bucket],
    );
    if (changed.length === 0) {
      return;
    }
    const isFirst = this.#owners.every((owner) => owner === undefined);
    this.#owners = owners;
    const nodes = Object.fromEntries([...this.byOwner].map(([name, { buckets }]) => [name, buckets.length]));
    const { log, metrics } = this.#options;
    if (isFirst) {
      log.info({ nodes }, "Found the primaries of the Redis Cluster");
    } else {
      metrics?.topologyChanged();
      log.warn({ buckets: changed, nodes }, "Buckets have other primaries in the Redis Cluster");
    }
    // A copy: a listener that still cannot go on listens again, and a Set would call what was added during the iteration.
    for (const listener of [...this.#listeners]) {
      listener();
    }
  }

  #closeUnused(): void {
    const used = new Set(this.#primaries.map(({ address }) => formatAddress(address)));
    for (const [name, client] of this.#clients) {
      if (!used.has(name)) {
        client.disconnect();
        this.#clients.delete(name);
      }
    }
  }

  #clientOf(address: HostAndPort): Redis {
    const name = formatAddress(address);
    let client = this.#clients.get(name);
    if (client === undefined) {
      const { endpoint, password } = this.#options;
      client = new Redis({
        ...address,
        ...(endpoint.username !== undefined && { username: endpoint.username }),
        ...(password !== undefined && { password }),
        ...(endpoint.tls && { tls: {} }),
        connectionName: "inventory-topology",
        connectTimeout: CONNECT_MS_MAX,
        commandTimeout: ANSWER_MS_MAX,
        enableReadyCheck: false,
        // Rejects what waits for a node that is unreachable.
        maxRetriesPerRequest: 0,
        retryStrategy: () => RECONNECT_MS,
      });
      client.on("error", (err) => this.#options.log.debug({ err, node: name }, "A node is unreachable"));
      client.on("close", () => this.refresh());
      this.#clients.set(name, client);
    }
    return client;
  }
}

function ownerAt(address: HostAndPort): Owner {
  return { name: formatAddress(address), address };
}
