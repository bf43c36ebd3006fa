import { randomBytes } from "node:crypto";
import { Redis } from "ioredis";
import { freePort } from "./free-port.ts";
import type { REDIS_SERVERS } from "./programs.ts";
import { type RedisLink, startRedisLink } from "./redis-link.ts";
import { type RedisServer, startRedis } from "./redis-server.ts";
import { Hopeless, until } from "./until.ts";

const SLOTS = 16_384;
/** Slots of these buckets are dealt to the primaries in turn, so that any number of buckets is split evenly. */
const BUCKETS = 256;
const READY_MS_MAX = 30_000;
const MOVE_MS_MAX = 30_000;
const COMMAND_MS_MAX = 2_000;
const MIGRATE_KEYS = 100;

export interface ClusterOptions {
  /** Which server; by default the one that REDIS_SERVER names, else the system's. */
  readonly server?: (typeof REDIS_SERVERS)[number];
  /** 3 unless given. */
  readonly primaries?: number;
  /** Replicas of each primary; 0 unless given. */
  readonly replicas?: number;
  /**
   * Delay of replication in each direction, ms. If given, all traffic of a node passes its link, and the nodes announce the
   * ports of the links. Traffic of clients and of the cluster bus is not delayed.
   */
  readonly replicationDelayMs?: number;
  /** `cluster-node-timeout`, ms; 1,000 unless given. */
  readonly nodeTimeoutMs?: number;
  /** `yes` unless given; then with `appendfsync always`. */
  readonly appendonly?: "yes" | "no";
  /** Further arguments of every node. */
  readonly args?: readonly string[];
}

/** One node of the cluster. */
export interface ClusterNode {
  /** Node ID, 40 hex digits. */
  readonly id: string;
  readonly server: RedisServer;
  /** `127.0.0.1:PORT`, as the node announces itself. */
  readonly address: string;
  /** The link of clients and replicas, and that of the cluster bus. Absent without `replicationDelayMs`. */
  readonly link: RedisLink | undefined;
  readonly busLink: RedisLink | undefined;
  /** A connection past the link. It reconnects; a command fails after 2 seconds. */
  readonly direct: Redis;
}

/** A Redis Cluster on loopback: real processes, every slot assigned. */
export interface RedisCluster extends AsyncDisposable {
  readonly nodes: readonly ClusterNode[];
  /** The value for REDIS_CLUSTER: addresses of all nodes. */
  readonly addresses: string;
  /** The nodes that are primaries now. */
  primaries(): Promise<ClusterNode[]>;
  /** The primary that serves a slot now, according to the newest configuration that a node which responds has. */
  primaryOf(slot: number): Promise<ClusterNode>;
  /** The replicas of a node, according to themselves. */
  replicasOf(primary: ClusterNode): Promise<ClusterNode[]>;
  /** Resolves with the new primary of a slot when it is another node than `former` and says that the cluster is ok. */
  promoted(slot: number, former: ClusterNode): Promise<ClusterNode>;
  /** Cuts the links of a node and kills it at once, as if its machine had failed. */
  kill(node: ClusterNode): Promise<void>;
  /** Restarts a node with its data, and restores its links. */
  restart(node: ClusterNode): Promise<void>;
  /** Resolves when every node is ok, all agree on the primary of each slot, and each replica is in step. */
  settled(): Promise<void>;
  /**
   * Moves a slot to another primary: atomically with CLUSTER MIGRATESLOTS where the server has it, otherwise key by key with
   * MIGRATE, during which ASK and TRYAGAIN occur. Resolves when all nodes know.
   */
  moveSlot(slot: number, to: ClusterNode): Promise<void>;
  /** Begins to move a slot key by key, and stops before the first key: a request for an absent key gets ASK. */
  beginMove(slot: number, to: ClusterNode): Promise<SlotMove>;
}

/** A slot between two primaries. */
export interface SlotMove {
  /** Moves up to `count` keys. Resolves with the number moved. */
  moveKeys(count: number): Promise<number>;
  /** Moves the remaining keys and assigns the slot to its new primary. */
  finish(): Promise<void>;
}

/**
 * Starts the cluster. The nodes find their configuration in `nodes.conf`, so no handshake is needed. A primary refuses
 * commands for 2 seconds after each start (CLUSTER_WRITABLE_DELAY in Redis's cluster.c), which is most of the start time.
 */
export async function startRedisCluster(options: ClusterOptions = {}): Promise<RedisCluster> {
  const { primaries = 3, replicas = 0, nodeTimeoutMs = 1_000 } = options;
  await using starting = new AsyncDisposableStack();
  const plans: Plan[] = [];
  for (let index = 0; index < primaries * (1 + replicas); index++) {
    const [port, busPort] = [await freePort(), await freePort()];
    const isLinked = options.replicationDelayMs !== undefined;
    plans.push({
      id: randomBytes(20).toString("hex"),
      port,
      busPort,
      announcedPort: isLinked ? await freePort() : port,
      announcedBusPort: isLinked ? await freePort() : busPort,
      primary: index < primaries ? undefined : plans[index % primaries],
      slots: index < primaries ? slotsOf(index, primaries) : "",
    });
  }
  const started = await Promise.all(
    plans.map((plan) =>
      startNode(plan, plans, options, [
        ...["--cluster-node-timeout", String(nodeTimeoutMs)],
        ...(replicas > 0 ? ["--min-replicas-to-write", "1", "--min-replicas-max-lag", "2"] : []),
      ]),
    ),
  );
  for (const { server } of started) starting.use(server);
  const nodes: ClusterNode[] = [];
  for (const [index, { id, server }] of started.entries()) {
    const plan = plans[index];
    if (plan === undefined) throw new Error(`Node ${index} has no plan`);
    const direct = starting.adopt(new Redis(server.url, DIRECT), (client) => client.disconnect());
    direct.on("error", () => undefined);
    let link: RedisLink | undefined;
    let busLink: RedisLink | undefined;
    if (options.replicationDelayMs !== undefined) {
      link = starting.use(await startRedisLink(plan.announcedPort, plan.port));
      busLink = starting.use(await startRedisLink(plan.announcedBusPort, plan.busPort));
      link.set("replica", { kind: "delay", ms: options.replicationDelayMs });
    }
    nodes.push({ id, server, direct, link, busLink, address: `127.0.0.1:${plan.announcedPort}` });
  }
  const cluster = new Cluster(nodes, nodes.length > primaries);
  await cluster.settled();
  const ends = starting.move();
  return Object.assign(cluster, { [Symbol.asyncDispose]: () => ends.disposeAsync() });
}

const DIRECT = {
  maxRetriesPerRequest: 0,
  commandTimeout: COMMAND_MS_MAX,
  enableReadyCheck: false,
  disconnectTimeout: 100,
  retryStrategy: () => 50,
} as const;

/** What a node is to be, before it starts. */
interface Plan {
  readonly id: string;
  readonly port: number;
  readonly busPort: number;
  readonly announcedPort: number;
  readonly announcedBusPort: number;
  readonly primary: Plan | undefined;
  /** In the notation of `nodes.conf`; empty for a replica. */
  readonly slots: string;
}

async function startNode(
  plan: Plan,
  plans: readonly Plan[],
  options: ClusterOptions,
  args: readonly string[],
): Promise<{ id: string; server: RedisServer }> {
  const server = await startRedis({
    ...(options.server === undefined ? {} : { server: options.server }),
    ...(options.appendonly === undefined ? {} : { appendonly: options.appendonly }),
    port: plan.port,
    files: { "nodes.conf": configurationOf(plan, plans) },
    args: [
      ...["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"],
      ...["--cluster-port", String(plan.busPort), "--cluster-announce-ip", "127.0.0.1"],
      ...["--cluster-announce-port", String(plan.announcedPort)],
      ...["--cluster-announce-bus-port", String(plan.announcedBusPort)],
      ...["--cluster-require-full-coverage", "no", "--cluster-allow-replica-migration", "no"],
      ...["--cluster-replica-validity-factor", "1", "--repl-ping-replica-period", "1"],
      ...["--repl-diskless-sync-delay", "0"],
      ...args,
      ...(options.args ?? []),
    ],
  });
  return { id: plan.id, server };
}

/** The `nodes.conf` of one node (format: clusterLoadConfig in Redis's cluster.c). */
function configurationOf(self: Plan, plans: readonly Plan[]): string {
  const lines = plans.map((plan) => {
    const address = `127.0.0.1:${plan.announcedPort}@${plan.announcedBusPort}`;
    const role = plan.primary === undefined ? "master" : "slave";
    const flags = plan === self ? `myself,${role}` : role;
    // Each primary has an epoch of its own; a replica shows that of its primary.
    const epoch = plans.indexOf(plan.primary ?? plan) + 1;
    return `${plan.id} ${address} ${flags} ${plan.primary?.id ?? "-"} 0 0 ${epoch} connected ${plan.slots}`.trimEnd();
  });
  return `${lines.join("\n")}\nvars currentEpoch ${plans.length} lastVoteEpoch 0\n`;
}

/** The slots of one primary: those of every n-th bucket, and an equal part of the others. */
function slotsOf(index: number, primaries: number): string {
  const ranges: string[] = [];
  let first: number | undefined;
  for (let slot = 0; slot <= SLOTS; slot++) {
    const isOwn = slot < SLOTS && ownerOf(slot, primaries) === index;
    if (isOwn) first ??= slot;
    if (isOwn || first === undefined) continue;
    ranges.push(first === slot - 1 ? String(first) : `${first}-${slot - 1}`);
    first = undefined;
  }
  return ranges.join(" ");
}

const bucketBySlot = new Map(Array.from({ length: BUCKETS }, (_, bucket) => [slotOfBucket(bucket), bucket]));

function ownerOf(slot: number, primaries: number): number {
  const bucket = bucketBySlot.get(slot);
  return bucket === undefined ? Math.floor((slot * primaries) / SLOTS) : bucket % primaries;
}

/** The slot of the tag `{bNN}`. */
export function slotOfBucket(bucket: number): number {
  return slotOf(`b${String(bucket).padStart(2, "0")}`);
}

/** CRC-16/XMODEM modulo 16,384: the slot of a key without a hash tag (Redis Cluster specification, appendix A). */
function slotOf(key: string): number {
  let crc = 0;
  for (const byte of Buffer.from(key)) {
    crc ^= byte << 8;
    for (let bit = 0; bit < 8; bit++) crc = ((crc << 1) ^ (crc & 0x8000 ? 0x1021 : 0)) & 0xffff;
  }
  return crc % SLOTS;
}

/** A node as one node sees it: a line of CLUSTER NODES. */
interface NodeView {
  readonly id: string;
  readonly isSelf: boolean;
  readonly isPrimary: boolean;
  readonly primaryId: string;
  readonly epoch: number;
  readonly slots: readonly (readonly [number, number])[];
}

function viewsIn(text: string): NodeView[] {
  const lines = text.split("\n").filter((line) => line !== "");
  return lines.map((line) => {
    const [id = "", , flags = "", primaryId = "", , , epoch = "0", , ...slots] = line.split(" ");
    return {
      id,
      isSelf: flags.split(",").includes("myself"),
      isPrimary: flags.split(",").includes("master"),
      primaryId,
      epoch: Number(epoch),
      slots: slots
        .filter((slot) => !slot.startsWith("["))
        .map((slot): [number, number] => {
          const [first = "", last = first] = slot.split("-");
          return [Number(first), Number(last)];
        }),
    };
  });
}

function serves(view: NodeView, slot: number): boolean {
  return view.isPrimary && view.slots.some(([first, last]) => first <= slot && slot <= last);
}

class Cluster implements Omit<RedisCluster, typeof Symbol.asyncDispose> {
  readonly nodes: readonly ClusterNode[];
  readonly addresses: string;
  readonly #hasReplicas: boolean;

  constructor(nodes: readonly ClusterNode[], hasReplicas: boolean) {
    this.nodes = nodes;
    this.addresses = nodes.map(({ address }) => address).join(",");
    this.#hasReplicas = hasReplicas;
  }

  async primaries(): Promise<ClusterNode[]> {
    const views = await this.#selfViews();
    return this.nodes.filter(({ id }) =>
      views.some((view) => view.id === id && view.isPrimary && view.slots.length > 0),
    );
  }

  primaryOf(slot: number): Promise<ClusterNode> {
    return until(
      async () => {
        const claims = (await this.#selfViews()).filter((view) => serves(view, slot));
        const newest = claims.toSorted((a, b) => b.epoch - a.epoch)[0];
        return this.nodes.find(({ id }) => id === newest?.id);
      },
      `a node serves slot ${slot}`,
      READY_MS_MAX,
    );
  }

  async replicasOf(primary: ClusterNode): Promise<ClusterNode[]> {
    const views = await this.#selfViews();
    return this.nodes.filter(({ id }) =>
      views.some((view) => view.id === id && view.primaryId === primary.id),
    );
  }

  promoted(slot: number, former: ClusterNode): Promise<ClusterNode> {
    return until(
      async () => {
        const primary = await this.primaryOf(slot);
        return primary !== former && (await isOk(primary)) && primary;
      },
      `another node than ${former.address} serves slot ${slot}`,
      READY_MS_MAX,
    );
  }

  async kill(node: ClusterNode): Promise<void> {
    node.link?.cut();
    node.busLink?.cut();
    await node.server.kill9();
  }

  async restart(node: ClusterNode): Promise<void> {
    await node.server.restart();
    node.link?.restore();
    node.busLink?.restore();
  }

  async settled(): Promise<void> {
    await until(
      async () => {
        const states = await Promise.all(this.nodes.map(isOk));
        const inStep = await Promise.all(this.nodes.map((node) => this.#isInStep(node)));
        const maps = await Promise.all(this.nodes.map(slotMapOf));
        return [...states, ...inStep].every(Boolean) && maps.every((map) => map === maps[0]);
      },
      "the nodes of the cluster agree",
      READY_MS_MAX,
    );
  }

  async moveSlot(slot: number, to: ClusterNode): Promise<void> {
    const from = await this.primaryOf(slot);
    if (from === to) return;
    if (await migratesSlots(from)) {
      await migrateSlot(from, to, slot);
      await this.#known(slot, to);
    } else {
      await (await this.beginMove(slot, to)).finish();
    }
  }

  async beginMove(slot: number, to: ClusterNode): Promise<SlotMove> {
    const from = await this.primaryOf(slot);
    await to.direct.cluster("SETSLOT", slot, "IMPORTING", from.id);
    await from.direct.cluster("SETSLOT", slot, "MIGRATING", to.id);
    const moveKeys = async (count: number): Promise<number> => {
      const keys = await from.direct.cluster("GETKEYSINSLOT", slot, count);
      if (keys.length === 0) return 0;
      const { host, port } = to.server;
      await from.direct.call("MIGRATE", host, port, "", 0, COMMAND_MS_MAX, "KEYS", ...keys);
      return keys.length;
    };
    return {
      moveKeys,
      finish: async () => {
        while ((await moveKeys(MIGRATE_KEYS)) > 0) {}
        // The new primary first: otherwise both could refuse the slot.
        for (const node of [to, from]) await node.direct.cluster("SETSLOT", slot, "NODE", to.id);
        await this.#known(slot, to);
      },
    };
  }

  async #known(slot: number, to: ClusterNode): Promise<void> {
    await until(
      async () => {
        const views = await Promise.all(this.nodes.map(viewsOf));
        return views.every((seen) => seen.find((view) => serves(view, slot))?.id === to.id);
      },
      `all nodes know that ${to.address} serves slot ${slot}`,
      MOVE_MS_MAX,
    );
  }

  /** Each node as it sees itself, of those that respond. */
  async #selfViews(): Promise<NodeView[]> {
    const seen = await Promise.all(this.nodes.map((node) => viewsOf(node).catch(() => [])));
    return seen.flatMap((views) => views.filter(({ isSelf }) => isSelf));
  }

  async #isInStep(node: ClusterNode): Promise<boolean> {
    if (!this.#hasReplicas) return true;
    const info = await node.direct.info("replication");
    return info.includes("role:slave")
      ? info.includes("master_link_status:up")
      : /slave0:.*state=online/.test(info);
  }
}

async function isOk({ direct }: ClusterNode): Promise<boolean> {
  return String(await direct.cluster("INFO")).includes("cluster_state:ok");
}

async function viewsOf({ direct }: ClusterNode): Promise<NodeView[]> {
  return viewsIn(String(await direct.cluster("NODES")));
}

/** Which node serves which slots, as one node sees it, as text to compare. */
async function slotMapOf(node: ClusterNode): Promise<string> {
  const primaries = (await viewsOf(node)).filter(({ isPrimary, slots }) => isPrimary && slots.length > 0);
  return JSON.stringify(primaries.map(({ id, slots }) => [id, slots]).sort());
}

async function migratesSlots({ direct }: ClusterNode): Promise<boolean> {
  const [info] = (await direct.command("INFO", "CLUSTER|MIGRATESLOTS")) as unknown[];
  return info !== null && info !== undefined;
}

/** Valkey 9: the source copies the slot and its changes to the target, and hands it over in one step. */
async function migrateSlot(from: ClusterNode, to: ClusterNode, slot: number): Promise<void> {
  await from.direct.call("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", to.id);
  await until(
    async () => {
      const jobs = (await from.direct.call("CLUSTER", "GETSLOTMIGRATIONS")) as unknown[][];
      const job = jobs.map(fieldsOf).find((fields) => fields.get("slot_ranges") === `${slot}-${slot}`);
      const state = job?.get("state");
      if (state === "failed" || state === "cancelled") {
        throw new Hopeless(`the move of slot ${slot} has ${state}: ${job?.get("message")}`);
      }
      return state === "success";
    },
    `slot ${slot} is moved to ${to.address}`,
    MOVE_MS_MAX,
  );
}

function fieldsOf(flat: readonly unknown[]): Map<string, string> {
  const fields = new Map<string, string>();
  for (let i = 0; i + 1 < flat.length; i += 2) fields.set(String(flat[i]), String(flat[i + 1]));
  return fields;
}
