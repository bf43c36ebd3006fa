import { Cluster } from "ioredis";
import { startRedisCluster } from "../support/redis-cluster.ts";
import { startTcpProxy } from "../support/tcp-proxy.ts";

// node test/cluster/resend.ts: how often ioredis's Cluster applies one INCR whose reply is lost, by its options.

const TRIES = 9;
const OPTIONS = [
  {},
  { redisOptions: { maxRetriesPerRequest: 0 } },
  { retryDelayOnFailover: 0, redisOptions: { maxRetriesPerRequest: 0 } },
];

await using cluster = await startRedisCluster({ primaries: 1, appendonly: "no" });
const [node] = cluster.nodes;
if (node === undefined) throw new Error("The cluster has no node");
await using proxy = await startTcpProxy({ target: { port: node.server.port } });
await node.direct.config("SET", "cluster-announce-port", String(proxy.port));
for (const [index, options] of OPTIONS.entries()) {
  let doubled = 0;
  for (let n = 0; n < TRIES; n++) {
    const key = `resend-${index}-${n}`;
    const client = new Cluster([{ host: "127.0.0.1", port: proxy.port }], options);
    client.on("error", () => undefined);
    await client.set(key, 0);
    const cut = proxy.cutAfterRequest((chunk) => chunk.toString().toLowerCase().includes("incr"));
    await client.incr(key).catch(() => undefined);
    await cut;
    if (Number(await node.direct.get(key)) > 1) doubled += 1;
    client.disconnect();
  }
  process.stdout.write(`${JSON.stringify(options)}: twice in ${doubled} of ${TRIES}\n`);
}
