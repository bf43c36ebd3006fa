import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Redis } from "ioredis";
import { freePort } from "./free-port.ts";
import { need } from "./programs.ts";
import { type RedisLink, startRedisLink } from "./redis-link.ts";
import { type RedisServer, startRedis } from "./redis-server.ts";
import { type ServerProcess, startServerProcess } from "./server-process.ts";
import { until } from "./until.ts";

export const MASTER_NAME = "inventory";
const SENTINELS = 3;
const READY_MS_MAX = 30_000;

export interface FailoverOptions {
  /** 2 unless given. */
  readonly replicas?: number;
  /** Delay of replication in each direction, ms; 1 unless given. Client traffic is not delayed. */
  readonly replicationDelayMs?: number;
  /** Time without a response after which the Sentinels replace a primary, ms; 1,000 unless given. */
  readonly downAfterMs?: number;
  /** Further arguments of every node. */
  readonly args?: readonly string[];
}

/** A Redis node behind its link. Peers and clients know only the port of the link. */
export interface FailoverNode {
  readonly server: RedisServer;
  readonly link: RedisLink;
  /** `127.0.0.1:PORT` of the link. */
  readonly address: string;
}

/** A primary with replicas and three Sentinels, on loopback. */
export interface FailoverGroup extends AsyncDisposable {
  readonly nodes: readonly FailoverNode[];
  /** The value for REDIS_SENTINELS. */
  readonly sentinels: string;
  /** The node that the Sentinels name as primary now. */
  primary(): Promise<FailoverNode>;
  /** Resolves with the new primary once the Sentinels name another one than `former` and it takes writes. */
  promoted(former: FailoverNode): Promise<FailoverNode>;
  /** Orders a failover from a Sentinel, as before work on the primary. Resolves when it has begun. */
  failover(): Promise<void>;
  /** Resolves when the Sentinels see `count` replicas in step with the primary. */
  replicating(count: number): Promise<void>;
}

/** Starts the group; resolves when every replica is in step and the Sentinels know each other and all nodes. */
export async function startFailoverGroup(options: FailoverOptions = {}): Promise<FailoverGroup> {
  const { replicas = 2, replicationDelayMs = 1, downAfterMs = 1_000, args = [] } = options;
  await using starting = new AsyncDisposableStack();
  const nodes: FailoverNode[] = [];
  for (let index = 0; index <= replicas; index++) {
    const port = await freePort();
    const primary = nodes[0];
    const server = starting.use(
      await startRedis({
        args: [
          ...["--replica-announce-ip", "127.0.0.1", "--replica-announce-port", String(port)],
          ...["--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"],
          ...["--min-replicas-to-write", "1", "--min-replicas-max-lag", "2"],
          ...(primary === undefined ? [] : ["--replicaof", `127.0.0.1 ${primary.link.port}`]),
          ...args,
        ],
      }),
    );
    const link = starting.use(await startRedisLink(port, server.port));
    link.set("replica", { kind: "delay", ms: replicationDelayMs });
    nodes.push({ server, link, address: `127.0.0.1:${port}` });
  }
  const dir = starting.adopt(await mkdtemp(join(tmpdir(), "inventory-sentinel-")), (path) =>
    rm(path, { recursive: true, force: true }),
  );
  const first = nodes[0];
  if (first === undefined) throw new Error("A group needs a primary");
  const ports: number[] = [];
  for (let index = 0; index < SENTINELS; index++) {
    const port = await freePort();
    ports.push(port);
    starting.adopt(await startSentinel(dir, port, first.link.port, downAfterMs), (process) => process.end());
  }
  const sentinels = ports.map((port) => `127.0.0.1:${port}`);
  const asks = ports.map((port) =>
    starting.adopt(new Redis({ port, host: "127.0.0.1", enableReadyCheck: false }), (client) =>
      client.disconnect(),
    ),
  );
  for (const client of asks) client.on("error", () => undefined);
  // Sentinels look for nodes every 10 s, and announce themselves every 2 s. Do not wait for that at the start.
  await Promise.all(
    asks.map((client) =>
      until(
        () => client.call("SENTINEL", "DEBUG", "INFO-PERIOD", "500", "PUBLISH-PERIOD", "300"),
        "a Sentinel answers",
      ),
    ),
  );

  const primaryOf = async (client: Redis): Promise<FailoverNode | undefined> => {
    const [, port] = ((await client.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME)) ??
      []) as string[];
    return nodes.find(({ link }) => String(link.port) === port);
  };
  const named = async (): Promise<FailoverNode | undefined> => {
    const votes = await Promise.all(asks.map(primaryOf));
    return votes.find(
      (vote) => vote !== undefined && votes.filter((other) => other === vote).length * 2 > SENTINELS,
    );
  };
  const group: FailoverGroup = {
    nodes,
    sentinels: sentinels.join(","),
    primary: () => until(named, "most Sentinels name one primary", READY_MS_MAX),
    promoted: (former) =>
      until(
        async () => {
          const node = await named();
          if (node === undefined || node === former) return false;
          return (await roleOf(node)) === "master" && node;
        },
        "the Sentinels promote a replica",
        READY_MS_MAX,
      ),
    failover: async () => {
      await asks[0]?.call("SENTINEL", "FAILOVER", MASTER_NAME);
    },
    replicating: async (count) => {
      await until(
        async () => {
          const known = await Promise.all(
            asks.map((client) => client.call("SENTINEL", "REPLICAS", MASTER_NAME) as Promise<string[][]>),
          );
          return known.every((list) => list.filter(isInStep).length >= count);
        },
        `the Sentinels see ${count} replicas in step`,
        READY_MS_MAX,
      );
    },
    [Symbol.asyncDispose]: () => ends.disposeAsync(),
  };
  await until(
    async () => {
      const others = await Promise.all(
        asks.map((client) => client.call("SENTINEL", "SENTINELS", MASTER_NAME) as Promise<unknown[]>),
      );
      return others.every((list) => list.length === SENTINELS - 1);
    },
    "the Sentinels know each other",
    READY_MS_MAX,
  );
  await group.replicating(replicas);
  const ends = starting.move();
  return group;
}

function isInStep(flat: readonly string[]): boolean {
  const fields = new Map<string, string>();
  for (let i = 0; i + 1 < flat.length; i += 2) fields.set(flat[i] ?? "", flat[i + 1] ?? "");
  return fields.get("flags") === "slave" && fields.get("master-link-status") === "ok";
}

async function roleOf({ server }: FailoverNode): Promise<string> {
  const client = new Redis(server.url, { retryStrategy: null });
  client.on("error", () => undefined);
  try {
    const [role] = (await client.role()) as [string];
    return role;
  } finally {
    client.disconnect();
  }
}

async function startSentinel(
  dir: string,
  port: number,
  primaryPort: number,
  downAfterMs: number,
): Promise<ServerProcess> {
  const config = join(dir, `${port}.conf`);
  await writeFile(
    config,
    [
      `port ${port}`,
      "bind 127.0.0.1",
      `dir ${dir}`,
      `sentinel monitor ${MASTER_NAME} 127.0.0.1 ${primaryPort} 2`,
      `sentinel down-after-milliseconds ${MASTER_NAME} ${downAfterMs}`,
      `sentinel failover-timeout ${MASTER_NAME} 6000`,
      `sentinel parallel-syncs ${MASTER_NAME} 2`,
      "",
    ].join("\n"),
  );
  return startServerProcess({
    command: need("redis-server").path,
    args: [config, "--sentinel"],
    logFile: join(dir, `${port}.log`),
  });
}
