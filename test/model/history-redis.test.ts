import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, describe, it, type TestContext } from "node:test";
import { pino } from "pino";
import type { InventoryStore } from "../../server/inventory/store.ts";
import { RedisStore } from "../../server/redis/store.ts";
import { need } from "../support/programs.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";
import { startTcpProxy, type TcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";
import { type Ask, Round } from "./clients.ts";
import { askOf, audit, REPEATING, ROUNDS, STRICT, seedOf, Tally, withSweeper } from "./rounds.ts";

/** Two thirds of them reach Redis through the proxy, so that a connection fault affects more than 50. */
const CLIENTS = 81;
const SHOPS = 8;
const CALLS_PER_CLIENT = 10;
/** Calls before a fault is injected, and between two faults of a kind. */
const CALLS_BETWEEN = 60;
/** Answers that an outage costs before it ends: those of half the clients behind the proxy. */
const ANSWERS_LOST = 27;
const RUN = randomUUID().slice(0, 8);
const log = pino({ level: "silent" });
const { missing } = need("redis-server");

/** The targets of faults, and the round of concurrent clients. */
interface Scene {
  readonly redis: RedisServer;
  readonly proxy: TcpProxy;
  readonly round: Round;
}

/** Each fault is injected while all clients are active. */
const FAULTS: Readonly<Record<string, (scene: Scene) => Promise<number>>> = {
  "connection cut between a command and its reply": async ({ proxy, round }) => {
    let cuts = 0;
    for (; cuts < 4; cuts++) {
      const cut = proxy.cutAfterRequest((chunk) => chunk.includes("reserve"));
      await Promise.race([cut, round.served()]);
      await round.progress(CALLS_BETWEEN);
    }
    return cuts;
  },
  "reset of all connections": async ({ proxy, round }) => {
    let resets = 0;
    for (; resets < 4; resets++) {
      proxy.resetConnections();
      await round.progress(CALLS_BETWEEN);
    }
    return resets;
  },
  "line down": async ({ proxy, round }) => {
    await proxy.cut();
    await round.losses(ANSWERS_LOST);
    await proxy.pass();
    return 1;
  },
  "line frozen": async ({ proxy, round }) => {
    await proxy.freeze();
    await round.losses(ANSWERS_LOST);
    await proxy.pass();
    return 1;
  },
  "line that loses replies": async ({ proxy, round }) => {
    await proxy.dropReplies();
    await round.losses(ANSWERS_LOST);
    await proxy.pass();
    return 1;
  },
  "slow line": async ({ proxy, round }) => {
    await proxy.delay(60);
    await round.progress(4 * CALLS_BETWEEN);
    await proxy.pass();
    return 1;
  },
  "Redis frozen": async ({ redis, round }) => {
    redis.pause();
    await round.losses(ANSWERS_LOST);
    redis.resume();
    return 1;
  },
  "Redis killed with -9": async ({ redis, round }) => {
    await redis.kill9();
    await round.losses(ANSWERS_LOST);
    await redis.restart();
    return 1;
  },
};

describe("histories of random clients of RedisStore", { skip: missing }, () => {
  let redis: RedisServer;
  let proxy: TcpProxy;
  /** Three servers: the first connects to Redis directly, the others through the proxy. */
  const stores: RedisStore[] = [];
  const asks: Ask[] = [];
  const storeOf = new Map<Ask, InventoryStore>();

  before(async () => {
    redis = await startRedis();
    proxy = await startTcpProxy({ target: redis });
    for (const url of [redis.url, proxy.url("redis"), proxy.url("redis")]) {
      const store = new RedisStore({ endpoint: { url }, log });
      stores.push(store);
      await store.start(5_000);
      const ask = askOf(store);
      asks.push(ask);
      storeOf.set(ask, store);
    }
  });
  after(async () => {
    for (const store of stores) {
      await store.close();
    }
    await proxy?.close();
    await redis?.stop();
  });

  function ready(ask: Ask): Promise<unknown> {
    const store = storeOf.get(ask);
    return until(async () => (await store?.unreadyReason()) === undefined, "the store is ready again");
  }

  /** Runs one round with a fault, and checks its history and its final state. */
  async function play(t: TestContext, tally: Tally, strike?: (round: Round) => Promise<void>): Promise<void> {
    const round = new Round({
      ...{ name: `${RUN}.${randomUUID().slice(0, 4)}`, seed: seedOf(t), asks },
      ...{ clients: CLIENTS, shops: SHOPS, callsPerClient: CALLS_PER_CLIENT, recovered: ready },
    });
    const [direct] = stores;
    assert.ok(direct);
    await withSweeper(direct, async () => {
      await round.stock();
      const served = round.serve();
      await strike?.(round);
      await served;
    });
    await Promise.all(asks.map(ready));
    await round.look();
    await audit(direct, round);
    // A stall of the machine for a second loses responses, too.
    const isUntroubled = strike === undefined && round.lost === 0;
    tally.judge(round, isUntroubled ? STRICT : REPEATING);
  }

  it("are linearizable on three servers", async (t) => {
    const tally = new Tally(CLIENTS);
    for (let n = 0; n < 2 * ROUNDS; n++) {
      await play(t, tally);
    }
    t.diagnostic(String(tally));
  });

  for (const [name, strike] of Object.entries(FAULTS)) {
    it(`are linearizable after: ${name}`, async (t) => {
      const tally = new Tally(CLIENTS);
      for (let n = 0; n < ROUNDS; n++) {
        await play(t, tally, async (round) => {
          await round.progress(CALLS_BETWEEN);
          assert.equal(round.isServed, false, "the clients were done before the fault struck");
          tally.fault(name, await strike({ redis, proxy, round }));
        });
      }
      t.diagnostic(String(tally));
    });
  }
});
