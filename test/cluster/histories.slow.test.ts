import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, describe, it, type TestContext } from "node:test";
import type { StockChange } from "../../server/inventory/ledger.ts";
import type { InventoryStore } from "../../server/inventory/store.ts";
import { type Ask, Round } from "../model/clients.ts";
import { askOf, audit, ROUNDS, seedOf, withSweeper } from "../model/rounds.ts";
import { need } from "../support/programs.ts";
import { type ClusterNode, type RedisCluster, startRedisCluster } from "../support/redis-cluster.ts";
import { until } from "../support/until.ts";
import { ACKS, type ClusterStore, openClusterStore, REPLICAS } from "./cluster-stores.ts";
import { judgeApart } from "./judge.ts";

const CLIENTS = 60;
const SHOPS = 6;
const CALLS_PER_CLIENT = 10;
/** Calls before a fault is injected, and between two faults of a kind. */
const CALLS_BETWEEN = 50;
/** Responses that an outage costs before it ends. */
const RESPONSES_LOST = 15;
const SERVERS = 3;
/** More than a round makes of one product. */
const CHANGES_KEPT = 10_000;
/** A node that was killed takes writes 2 seconds after its restart, on an idle machine. */
const READY_MS_MAX = 30_000;
const SETTLED_MS_MAX = 20_000;
const RUN = randomUUID().slice(0, 8);

interface Scene {
  readonly node: ClusterNode;
  readonly cluster: RedisCluster;
  readonly round: Round;
}

/** Each fault is injected while all clients are active. */
const FAULTS: Readonly<Record<string, (scene: Scene) => Promise<unknown>>> = {
  "connections cut between a step and its reply": async ({ node, round }) => {
    for (const step of ["hold", "decide", "commit", "release"]) {
      const cut = node.link?.cutAfterRequest((chunk) => chunk.includes(`"${step}"`));
      await Promise.race([cut, round.served()]);
      await round.progress(CALLS_BETWEEN / 2);
    }
  },
  "a node whose line is down": async ({ node, round }) => {
    node.link?.cut();
    await round.losses(RESPONSES_LOST);
    node.link?.restore();
  },
  "a frozen node": async ({ node, round }) => {
    node.server.pause();
    await round.losses(RESPONSES_LOST);
    node.server.resume();
  },
  "a node killed with -9": async ({ node, cluster, round }) => {
    await cluster.kill(node);
    await round.losses(RESPONSES_LOST);
    await cluster.restart(node);
    await cluster.settled();
  },
};

describe("histories of random clients of a Cluster", { skip: need("redis-server").missing }, () => {
  let cluster: RedisCluster;
  const servers: ClusterStore[] = [];
  const asks: Ask[] = [];
  const storeOf = new Map<Ask, InventoryStore>();

  before(async () => {
    cluster = await startRedisCluster({ replicas: REPLICAS, replicationDelayMs: 0 });
    for (let n = 0; n < SERVERS; n++) {
      const server = await openClusterStore(cluster, { changesKept: CHANGES_KEPT, acks: ACKS });
      servers.push(server);
      const ask = askOf(server.store);
      asks.push(ask);
      storeOf.set(ask, server.store);
    }
  });
  after(async () => {
    for (const { store } of servers) await store.close();
    await cluster?.[Symbol.asyncDispose]();
  });

  function ready(ask: Ask): Promise<unknown> {
    const store = storeOf.get(ask);
    return until(
      async () => (await store?.unreadyReason()) === undefined,
      "the store is ready again",
      READY_MS_MAX,
    );
  }

  /** Runs one round with a fault, and checks its history and its final state. */
  async function play(t: TestContext, strike?: (round: Round) => Promise<unknown>): Promise<void> {
    const [first] = servers;
    assert.ok(first);
    const round = new Round({
      ...{ name: `${RUN}.${randomUUID().slice(0, 4)}`, seed: seedOf(t), asks },
      ...{ clients: CLIENTS, shops: SHOPS, callsPerClient: CALLS_PER_CLIENT, recovered: ready },
    });
    await withSweeper(first.store, async () => {
      await round.stock();
      const served = round.serve();
      await strike?.(round);
      await served;
      await Promise.all(asks.map(ready));
      await until(() => first.state.isSettled(), "every effect has reached the ledgers", SETTLED_MS_MAX);
    });
    await round.look();
    await audit(first.store, round, { holdsByBucket: true });
    await first.state.check((productId) => first.store.getLedger(productId));
    const judgement = await judgeApart(round.history, (productId) => changesOf(first.store, productId));
    t.diagnostic(`${round.calls} calls, ${round.lost} results lost: ${JSON.stringify(judgement)}`);
  }

  it("are linearizable per reservation and per product on three servers", async (t) => {
    for (let n = 0; n < ROUNDS; n++) await play(t);
  });

  for (const [name, strike] of Object.entries(FAULTS)) {
    it(`are linearizable per reservation and per product after: ${name}`, async (t) => {
      for (let n = 0; n < ROUNDS; n++) {
        await play(t, async (round) => {
          await round.progress(CALLS_BETWEEN);
          assert.equal(round.isServed, false, "the clients were done before the fault struck");
          const node = cluster.nodes[n % cluster.nodes.length];
          assert.ok(node);
          await strike({ node, cluster, round });
        });
      }
    });
  }
});

/** Oldest first. */
async function changesOf(store: InventoryStore, productId: string): Promise<readonly StockChange[]> {
  return (await store.listChanges(productId, { limit: CHANGES_KEPT, beforeVersion: undefined })).reverse();
}
