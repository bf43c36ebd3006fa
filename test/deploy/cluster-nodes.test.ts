import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { promisify } from "node:util";
import { Redis } from "ioredis";
import { parseNodes } from "../../tools/cluster-plan/nodes.ts";
import { planRanges } from "../../tools/cluster-plan/slots.ts";
import { freePort, isFree } from "../support/free-port.ts";
import { need } from "../support/programs.ts";
import { type ServerProcess, startServerProcess } from "../support/server-process.ts";
import { Hopeless, until } from "../support/until.ts";

// The scripts of deploy/redis, which Compose, Kubernetes and docs/deployment.md use, with real nodes on loopback.

const run = promisify(execFile);
const scripts = join(import.meta.dirname, "../../deploy/redis");
const SETTLE_MS_MAX = 60_000;
const SLOTS = planRanges(64, 3).map(({ first, last }) => `${first}-${last}`);

describe("the nodes of a Redis Cluster", { skip: need("redis-server").missing }, () => {
  let folder: string;
  let ports: number[];
  const processes = new Map<number, ServerProcess>();
  const clients = new Map<number, Redis>();

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "inventory-cluster-nodes-"));
    ports = [];
    for (let node = 0; node < 6; node++) ports.push(await freeNodePort());
    for (const port of ports) await startNode(port);
  });
  after(async () => {
    for (const client of clients.values()) client.disconnect();
    for (const node of processes.values()) await node.end();
    if (folder !== undefined) await rm(folder, { recursive: true, force: true });
  });

  const nodes = (): string => ports.map((port) => `127.0.0.1:${port}`).join(" ");
  const dataOf = (port: number): string => join(folder, String(port));

  async function startNode(port: number): Promise<void> {
    await mkdir(dataOf(port), { recursive: true });
    const node = await startServerProcess({
      command: "sh",
      args: [join(scripts, "start-cluster-node.sh")],
      env: {
        ...process.env,
        ...{ NODE: "localhost", NODES: nodes(), PORT: String(port) },
        ...{ DATA: dataOf(port), ADDRESS: "127.0.0.1" },
      },
      logFile: join(folder, `${port}.log`),
      removeOnCrash: folder,
    });
    processes.set(port, node);
    const client = clients.get(port) ?? new Redis(port, { retryStrategy: () => 50 });
    client.on("error", () => undefined);
    clients.set(port, client);
    await until(
      async () => {
        if (!node.running()) throw new Hopeless(node.describe());
        return (await client.ping()) === "PONG";
      },
      `${port} responds`,
      SETTLE_MS_MAX,
    );
  }

  function clientOf(port: number): Redis {
    const client = clients.get(port);
    assert.ok(client, `${port}`);
    return client;
  }

  async function create(): Promise<string> {
    const env = { ...process.env, NODES: nodes(), SLOTS: SLOTS.join(" "), WAIT_SECONDS_MAX: "60" };
    return (await run("sh", [join(scripts, "create-cluster.sh")], { env })).stdout;
  }

  const nodesOf = async (port: number): Promise<string> =>
    String(await clientOf(port).call("CLUSTER", "NODES"));
  /** The port of the primary of each replica. */
  async function primaryOf(port: number): Promise<number | undefined> {
    const [role, , primaryPort] = (await clientOf(port).call("ROLE")) as [string, unknown, number];
    return role === "slave" ? primaryPort : undefined;
  }

  it("completes a creation that was interrupted", async () => {
    // As if it had been killed after the first of the ADDSLOTSRANGE.
    const [first = 0] = ports;
    const [start = "", end = ""] = SLOTS[0]?.split("-") ?? [];
    await clientOf(first).call("CLUSTER", "ADDSLOTSRANGE", start, end);
    await create();
    const primaries = parseNodes(await nodesOf(first));
    assert.deepEqual(
      primaries.map(({ address, ranges }) => [
        address,
        ranges.map(({ first: from, last: to }) => `${from}-${to}`).join(),
      ]),
      SLOTS.map((range, index) => [`127.0.0.1:${ports[index]}`, range]),
    );
    for (const [index, port] of ports.entries()) {
      assert.equal(await primaryOf(port), index < 3 ? undefined : ports[index - 3], `role of node ${index}`);
      assert.match(await nodesOf(port), new RegExp(`:${first}@\\d+,localhost[, ]`), "the name is announced");
    }
  });

  it("changes nothing in a cluster that exists", async () => {
    const before = await clientOf(ports[0] ?? 0).call("CLUSTER", "INFO");
    const output = await create();
    const epoch = (info: unknown) => /cluster_current_epoch:\d+/.exec(String(info))?.[0];
    assert.equal(epoch(await clientOf(ports[0] ?? 0).call("CLUSTER", "INFO")), epoch(before));
    assert.doesNotMatch(output, /is added|is a replica of|are assigned/);
  });

  it("a primary that lost its data is replaced, and added again as a replica", async () => {
    const [, second = 0, , , fifth = 0] = ports;
    const id = String(await clientOf(second).call("CLUSTER", "MYID"));
    await processes.get(second)?.end();
    await rm(join(dataOf(second), "appendonlydir"), { recursive: true });
    await startNode(second);
    assert.notEqual(await clientOf(second).call("CLUSTER", "MYID"), id, "it has another identity");
    await until(async () => (await primaryOf(fifth)) === undefined, "its replica is promoted", SETTLE_MS_MAX);
    await until(
      async () => /cluster_state:ok/.test(String(await clientOf(fifth).call("CLUSTER", "INFO"))),
      "all slots are served",
      SETTLE_MS_MAX,
    );
    for (const port of ports) if (port !== second) await clientOf(port).call("CLUSTER", "FORGET", id);
    await create();
    assert.equal(await primaryOf(second), fifth);
  });

  it("runs with settings that lose no acknowledged write", async () => {
    const config = async (name: string) =>
      ((await clientOf(ports[0] ?? 0).config("GET", name)) as string[])[1];
    const text = await readFile(join(scripts, "cluster.conf"), "utf8");
    const settings = [...text.matchAll(/^(cluster-\S+) (\S+)$/gm)].map(([, name = "", value = ""]) => [
      name,
      value,
    ]);
    assert.equal(settings.length, 6);
    settings.push(["appendfsync", "always"], ["min-replicas-to-write", "1"], ["min-replicas-max-lag", "2"]);
    settings.push(["repl-ping-replica-period", "1"], ["maxmemory-policy", "noeviction"]);
    for (const [name = "", value] of settings) assert.equal(await config(name), value, name);
  });
});

/** A free port whose port of the cluster bus, 10,000 above, is free as well. */
async function freeNodePort(): Promise<number> {
  for (;;) {
    const port = await freePort();
    if (await isFree(port + 10_000)) return port;
  }
}
