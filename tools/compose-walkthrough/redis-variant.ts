import { setTimeout as sleep } from "node:timers/promises";
import { end, type Failure } from "./failures.ts";
import { eventually } from "./wait.ts";
import type { Walk } from "./walk.ts";

const RECOVERED_MS_MAX = 90_000;
const SETTLE_MS = 1_500;
const GROUP = ["redis-1", "redis-2", "redis-3"] as const;
const SENTINELS = ["sentinel-1", "sentinel-2", "sentinel-3"] as const;
const CLUSTER = ["cluster-1", "cluster-2", "cluster-3", "cluster-4", "cluster-5", "cluster-6"] as const;

/** What Redis is in a walk-through. */
export interface RedisVariant {
  /** The Compose files. */
  readonly files: readonly string[];
  /** Its services, in the order in which they are stopped. */
  readonly services: readonly string[];
  /** What is done to its services under reads and orders. */
  readonly failures: (walk: Walk) => readonly Failure[];
}

/** `cluster`: a Redis Cluster. Without a name: one primary with replicas and Sentinels. */
export function redisVariant(name: string | undefined): RedisVariant {
  if (name === undefined) {
    return {
      files: ["docker-compose.yml"],
      services: [...GROUP, ...SENTINELS],
      failures: groupFailures,
    };
  }
  if (name !== "cluster") throw new Error(`There is no variant ${name}; there is cluster`);
  return {
    files: ["docker-compose.yml", "docker-compose.cluster.yml"],
    services: CLUSTER,
    failures: clusterFailures,
  };
}

function groupFailures(walk: Walk): Failure[] {
  const { engine } = walk;
  const start = async (service: string) => engine.do(["start", await engine.container(service)]);
  const primary = (kind: "stop" | "kill"): Failure => ({
    name: `Redis primary: ${kind}`,
    keepsReads: true,
    act: async () => {
      const former = await namedPrimary(walk);
      await end(walk, former, kind);
      const next = await eventually(
        async () => {
          const named = await namedPrimary(walk);
          return named !== former && named;
        },
        "another primary is named",
        RECOVERED_MS_MAX,
      );
      await start(former);
      await eventually(
        async () => (await roleOf(walk, former)) === "slave",
        `${former} is a replica of ${next}`,
        RECOVERED_MS_MAX,
      );
      await eventually(
        async () => (await replicasOf(walk, next)) === 2,
        `${next} has two replicas`,
        RECOVERED_MS_MAX,
      );
    },
  });
  return [
    {
      name: "Redis replica: kill",
      keepsReads: true,
      act: async () => {
        const named = await namedPrimary(walk);
        const replica = GROUP.find((node) => node !== named) ?? "";
        await end(walk, replica, "kill");
        await sleep(SETTLE_MS);
        await start(replica);
        await eventually(async () => (await replicasOf(walk, named)) === 2, "it is back", RECOVERED_MS_MAX);
      },
    },
    {
      name: "sentinel-1: kill",
      keepsReads: true,
      act: async () => {
        await end(walk, "sentinel-1", "kill");
        await sleep(SETTLE_MS);
        await start("sentinel-1");
        await eventually(() => engine.isHealthy("sentinel-1"), "sentinel-1 is healthy", RECOVERED_MS_MAX);
      },
    },
    primary("kill"),
    primary("stop"),
    primary("kill"),
  ];
}

function clusterFailures(walk: Walk): Failure[] {
  const { engine } = walk;
  const start = async (service: string) => engine.do(["start", await engine.container(service)]);
  /** Waits until the node is a replica in step, and every node sees a complete cluster. */
  const returned = async (node: string): Promise<void> => {
    await eventually(async () => isReplicaInStep(walk, node), `${node} is a replica`, RECOVERED_MS_MAX);
    await eventually(() => isComplete(walk), "the cluster is complete", RECOVERED_MS_MAX);
  };
  /** Waits until another node than `former` has its slots. */
  const replaced = (former: string, slots: string) =>
    eventually(
      async () =>
        (await primaries(walk, former)).some((each) => each.node !== former && each.slots === slots),
      `the replica of ${former} is promoted`,
      RECOVERED_MS_MAX,
    );
  const primary = (position: number, kind: "stop" | "kill"): Failure => ({
    name: `primary ${position + 1} of 3: ${kind}`,
    keepsReads: true,
    act: async () => {
      const { node, slots } = await primaryAt(walk, position);
      await end(walk, node, kind);
      await replaced(node, slots);
      await start(node);
      await returned(node);
    },
  });
  return [
    {
      name: "replica: kill",
      keepsReads: true,
      act: async () => {
        const own = (await primaries(walk)).map(({ node }) => node);
        const replica = CLUSTER.find((node) => !own.includes(node)) ?? "";
        await end(walk, replica, "kill");
        await sleep(SETTLE_MS);
        await start(replica);
        await returned(replica);
      },
    },
    ...[0, 1, 2].map((position) => primary(position, "kill")),
    primary(0, "stop"),
    {
      name: "primary 2 of 3: its volume lost",
      keepsReads: true,
      act: async () => {
        const { node, slots } = await primaryAt(walk, 1);
        const container = await engine.container(node);
        const volume = container.replace(/[_-]\d+$/, "").replace(new RegExp(`[_-]${node}$`), `_${node}-data`);
        await engine.do(["rm", "--force", container]);
        await engine.do(["volume", "rm", volume]);
        await engine.compose(["up", "-d", "--no-build", "--no-deps", node], walk.variables);
        await replaced(node, slots);
        await start("cluster-create");
        await returned(node);
      },
    },
  ];
}

async function namedPrimary({ engine }: Walk): Promise<string> {
  const command = ["redis-cli", "-p", "26379", "sentinel", "get-master-addr-by-name", "inventory"];
  const [name = ""] = (await engine.exec("sentinel-2", command)).split("\n");
  return name;
}

async function roleOf({ engine }: Walk, node: string): Promise<string | undefined> {
  return (await engine.exec(node, ["redis-cli", "role"])).split("\n")[0];
}

async function replicasOf({ engine }: Walk, node: string): Promise<number> {
  const info = await engine.exec(node, ["redis-cli", "info", "replication"]);
  return [...info.matchAll(/^slave\d+:.*state=online/gm)].length;
}

/** The primaries that serve slots, in the order of the slots, as a node other than `except` sees them. */
async function primaries(
  { engine }: Walk,
  except?: string,
): Promise<{ readonly node: string; readonly slots: string }[]> {
  for (const witness of CLUSTER.filter((node) => node !== except)) {
    const { code, stdout } = await engine.try([
      "exec",
      await engine.container(witness),
      ...["redis-cli", "cluster", "nodes"],
    ]);
    if (code !== 0) continue;
    return stdout
      .trim()
      .split("\n")
      .flatMap((line) => {
        const [, place = "", flags = "", , , , , , ...slots] = line.split(" ");
        const [, node = ""] = place.split(",");
        const isServing = /\bmaster\b/.test(flags) && !/fail/.test(flags) && slots.length > 0;
        return isServing ? [{ node, slots: slots.join(" ") }] : [];
      })
      .toSorted((a, b) => Number.parseInt(a.slots, 10) - Number.parseInt(b.slots, 10));
  }
  throw new Error("No node of the cluster responds");
}

async function primaryAt(walk: Walk, position: number): Promise<{ node: string; slots: string }> {
  const found = (await primaries(walk))[position];
  if (found === undefined) throw new Error(`There is no primary ${position + 1}`);
  return found;
}

async function isReplicaInStep({ engine }: Walk, node: string): Promise<boolean> {
  return /^master_link_status:up/m.test(await engine.exec(node, ["redis-cli", "info", "replication"]));
}

async function isComplete({ engine }: Walk): Promise<boolean> {
  for (const node of CLUSTER) {
    const info = await engine.exec(node, ["redis-cli", "cluster", "info"]);
    if (!/^cluster_state:ok/m.test(info) || !/^cluster_slots_ok:16384/m.test(info)) return false;
  }
  return true;
}
