import assert from "node:assert/strict";
import { randomInt } from "node:crypto";
import { describe, it, type TestContext } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { Redis } from "ioredis";
import { Audit } from "../e2e/audit.ts";
import { Caller, reasonsTold } from "../e2e/callers.ts";
import { OrderLoad } from "../e2e/order-load.ts";
import { type AppProcess, startAppProcess } from "../support/app.ts";
import { need } from "../support/programs.ts";
import { type FailoverGroup, type FailoverNode, startFailoverGroup } from "../support/redis-failover.ts";
import { until } from "../support/until.ts";

// A primary, a replica or the network between them fails under load; then the ledgers are compared with the responses that callers got.

/** Without FAILOVER_ROUNDS, one round of each fault. */
const { FAILOVER_ROUNDS, FAILOVER_SEED } = process.env;
const ROUNDS = Number(FAILOVER_ROUNDS ?? 1);
/** Few, because the check after each round reads all orders. */
const SHOPPERS = 8;
/** Spares the processor, where several suites share it. */
const ORDER_INTERVAL_MS = FAILOVER_ROUNDS === undefined ? 10 : 0;
const PRODUCTS = Array.from({ length: 8 }, (_, n) => `failover-${n}`);
const DECLARED = 2_000;
const ROUNDS_PER_GROUP = 5;
const WAIT_MS_MAX = 60_000;
/** How much longer a frozen or partitioned primary stays so after another one was promoted, ms: its clients go on calling. */
const OVERLAP_MS = 500;

interface Fault {
  readonly name: string;
  /** How many rounds of it belong to one round of the suite. */
  readonly weight: number;
  /** Whether another primary must be promoted. */
  readonly isFailover: boolean;
  /** Makes the fault; the returned function undoes it. */
  readonly strike: (group: FailoverGroup, primary: FailoverNode) => Promise<() => Promise<void>>;
}

const FAULTS: readonly Fault[] = [
  {
    name: "the primary and its link die together",
    weight: 5,
    isFailover: true,
    strike: async (_group, { link, server }) => {
      link.cut();
      await server.kill9();
      return async () => {
        await server.restart();
        link.restore();
      };
    },
  },
  {
    name: "the primary freezes until it is replaced, and thaws",
    weight: 2,
    isFailover: true,
    strike: async (_group, { server }) => {
      server.pause();
      return async () => server.resume();
    },
  },
  {
    name: "a replica is killed",
    weight: 2,
    isFailover: false,
    strike: async (group, primary) => {
      const replica = group.nodes.find((node) => node !== primary);
      assert.ok(replica);
      replica.link.cut();
      await replica.server.kill9();
      return async () => {
        await replica.server.restart();
        replica.link.restore();
      };
    },
  },
  {
    name: "the primary is partitioned from its peers, and clients still reach it",
    weight: 2,
    isFailover: true,
    strike: async (_group, { link }) => {
      link.set("replica", { kind: "freeze" });
      link.set("sentinel", { kind: "freeze" });
      return async () => {
        link.set("replica", { kind: "delay", ms: 1 });
        link.set("sentinel", { kind: "pass" });
      };
    },
  },
  {
    name: "only the Sentinels lose the primary",
    weight: 1,
    isFailover: true,
    strike: async (_group, { link }) => {
      link.set("sentinel", { kind: "freeze" });
      return async () => link.set("sentinel", { kind: "pass" });
    },
  },
  {
    name: "an operator orders a failover",
    weight: 1,
    isFailover: true,
    strike: async (group) => {
      await group.failover();
      return async () => undefined;
    },
  },
];

interface Outcome {
  readonly orders: number;
  /** Milliseconds from each fault until a mutation that began after it was acknowledged. */
  readonly recoveryMs: readonly number[];
  /** Reads of shoppers during all of it, and how many failed. */
  readonly reads: { total: number; failed: number };
}

async function failOver(
  t: TestContext,
  acks: number,
  plan: readonly Fault[],
  replicationDelayMs: number,
): Promise<Outcome> {
  const seed = FAILOVER_SEED === undefined ? randomInt(2 ** 31) : Number(FAILOVER_SEED);
  t.diagnostic(`FAILOVER_SEED=${seed}`);
  await using ends = new AsyncDisposableStack();
  const args = acks === 0 ? ["--min-replicas-to-write", "0"] : [];
  const group = ends.use(await startFailoverGroup({ replicationDelayMs, args }));
  const environment = {
    REDIS_SENTINELS: group.sentinels,
    REDIS_ACKS: String(acks),
    LOG_LEVEL: "info",
  };
  const servers: AppProcess[] = [];
  for (let n = 0; n < 2; n++) servers.push(ends.use(await startAppProcess(environment)));
  const urls = servers.map(({ url }) => url);
  const load = ends.use(new OrderLoad(SHOPPERS, urls, PRODUCTS, seed, ORDER_INTERVAL_MS));
  const auditor = ends.use(new Caller(urls, 0, 10_000));
  for (const productId of PRODUCTS) {
    await auditor.ask(({ supply }, options) => supply.putProduct({ productId, declared: DECLARED }, options));
  }

  const check = async (what: string): Promise<void> => {
    const primary = await group.primary();
    const redis = new Redis(primary.server.url);
    redis.on("error", () => undefined);
    try {
      await new Audit(auditor, [redis]).check({
        products: PRODUCTS,
        declared: DECLARED,
        orders: load.orders,
        adjustments: load.shoppers.flatMap(({ adjustments }) => adjustments),
      });
    } catch (error) {
      throw new Error(`after "${what}": ${error}`, { cause: error });
    } finally {
      redis.disconnect();
    }
  };

  const reads = { total: 0, failed: 0 };
  let isReading = true;
  const reader = new Caller(urls, 0, 2_000);
  ends.defer(() => reader[Symbol.dispose]());
  const reading = (async () => {
    while (isReading) {
      reads.total += 1;
      await reader
        .ask(({ stock }, options) => stock.getStock({ productId: PRODUCTS[0] ?? "" }, options), 1)
        .catch(() => {
          reads.failed += 1;
        });
      await pause(10);
    }
  })();

  const recoveryMs: number[] = [];
  const running = load.run();
  running.catch(() => undefined);
  let adjustments = 0;
  const strike = async ({ name, isFailover, strike: act }: Fault): Promise<void> => {
    await load.progress();
    const former = await group.primary();
    const struckAt = performance.now();
    const undo = await act(group, former);
    // Neither a fault nor its repair may be needed for writes to go on.
    const adjustmentId = `recovery-${adjustments++}`;
    await auditor.ask(({ supply }, options) =>
      supply.countStock({ productId: "failover-probe", countId: adjustmentId, count: 1 }, options),
    );
    recoveryMs.push(Math.round(performance.now() - struckAt));
    if (isFailover) {
      await group.promoted(former);
      await pause(OVERLAP_MS);
    }
    await undo();
    await group.replicating(group.nodes.length - 1);
    await load.progress();
    await load.quietly(() => check(name));
  };
  await auditor.ask(({ supply }, options) =>
    supply.putProduct({ productId: "failover-probe", declared: 1 }, options),
  );
  try {
    await Promise.race([
      (async () => {
        for (const fault of plan) await strike(fault);
      })(),
      running.then(() => new Promise<never>(() => undefined)),
    ]);
  } finally {
    load.stop();
    isReading = false;
    for (const { server, link } of group.nodes) {
      server.resume();
      link.set("replica", { kind: "pass" });
      link.set("sentinel", { kind: "pass" });
    }
    await reading;
    await running.catch(() => undefined);
  }
  await running;
  await check("all faults");
  t.diagnostic(`retried: ${reasonsTold(load.callers)}`);
  return { orders: load.orderCount, recoveryMs, reads };
}

/** Parts of a number of rounds: each has a group of its own, since every check reads all of its orders. */
function inParts(rounds: number): number[] {
  const parts = Math.ceil(rounds / ROUNDS_PER_GROUP);
  return Array.from({ length: parts }, (_, n) => Math.min(ROUNDS_PER_GROUP, rounds - n * ROUNDS_PER_GROUP));
}

describe("failover of a primary with replicas", { skip: need("redis-server").missing }, () => {
  const plans: readonly { readonly name: string; readonly parts: readonly (readonly Fault[])[] }[] =
    FAILOVER_ROUNDS === undefined
      ? [{ name: "each fault once", parts: [FAULTS] }]
      : FAULTS.map((fault) => ({
          name: `${ROUNDS * fault.weight} rounds of: ${fault.name}`,
          parts: inParts(ROUNDS * fault.weight).map((rounds) => Array.from({ length: rounds }, () => fault)),
        }));
  for (const { name, parts } of plans) {
    it(`${name}: nothing acknowledged is lost, nothing is done twice`, async (t) => {
      const outcomes: Outcome[] = [];
      for (const plan of parts) outcomes.push(await failOver(t, 1, plan, 1));
      const recoveryMs = outcomes.flatMap((outcome) => outcome.recoveryMs).sort((a, b) => a - b);
      const orders = outcomes.reduce((sum, outcome) => sum + outcome.orders, 0);
      const reads = outcomes.reduce((sum, outcome) => sum + outcome.reads.total, 0);
      const failedReads = outcomes.reduce((sum, outcome) => sum + outcome.reads.failed, 0);
      t.diagnostic(`${recoveryMs.length} rounds, ${orders} orders, ${reads} reads of shoppers`);
      t.diagnostic(`writes accepted again after ${recoveryMs.join(", ")} ms`);
      assert.equal(recoveryMs.length, parts.flat().length);
      assert.equal(failedReads, 0, "shoppers' reads never stop");
    });
  }

  it("without acknowledgements the same suite finds lost orders", async (t) => {
    const [fault] = FAULTS;
    assert.ok(fault);
    const isFound = await until(
      async () => {
        try {
          await failOver(t, 0, [fault], 20);
          return false;
        } catch (error) {
          t.diagnostic(String(error).slice(0, 200));
          return true;
        }
      },
      "the ledgers are wrong once",
      WAIT_MS_MAX * 4,
    );
    assert.ok(isFound);
  });
});
