import assert from "node:assert/strict";
import { randomInt } from "node:crypto";
import { describe, it } from "node:test";
import { Redis } from "ioredis";
import { type AppProcess, startAppProcess } from "../support/app.ts";
import { need } from "../support/programs.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";
import { startTcpProxy, type TcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";
import { Audit } from "./audit.ts";
import { Caller, reasonsTold } from "./callers.ts";
import { OrderLoad } from "./order-load.ts";
import { randomOf } from "./orders.ts";

// Injects faults under load and then checks the ledgers, like https://jepsen.io, with the whole service under test.

/** Without CHAOS_ROUNDS, each fault is injected once, with few shoppers. */
const { CHAOS_ROUNDS, CHAOS_SEED } = process.env;
const ROUNDS = Number(CHAOS_ROUNDS ?? 1);
const SHOPPERS = CHAOS_ROUNDS === undefined ? 8 : 50;
/** Spares the processor, where several suites share it. */
const ORDER_INTERVAL_MS = CHAOS_ROUNDS === undefined ? 10 : 0;
const PRODUCTS = Array.from({ length: 8 }, (_, n) => `product-${n}`);
/** Few units, so that some orders meet a shortage, and a unit sold twice is noticed. */
const DECLARED = 150;
/** Failed calls during one fault. */
const REFUSALS = SHOPPERS / 2;
const WAIT_MS_MAX = 60_000;

/** The processes under test, and the faults to inject. */
class World extends OrderLoad {
  readonly redis: RedisServer;
  readonly lines: readonly [TcpProxy, TcpProxy];
  readonly servers: readonly [AppProcess, AppProcess];

  constructor(redis: RedisServer, lines: World["lines"], servers: World["servers"], seed: number) {
    super(
      SHOPPERS,
      servers.map(({ url }) => url),
      PRODUCTS,
      seed,
      ORDER_INTERVAL_MS,
    );
    this.redis = redis;
    this.lines = lines;
    this.servers = servers;
  }
}

interface Fault {
  readonly name: string;
  /** Injects the fault and removes it. Resolves with the number of faults. */
  readonly strike: (world: World) => Promise<number>;
}

const both = (world: World, set: (line: TcpProxy) => Promise<void>) => Promise.all(world.lines.map(set));

const FAULTS: readonly Fault[] = [
  {
    name: "a server is killed",
    strike: async ({ servers }) => {
      await servers[0].kill9();
      await servers[0].restart();
      return 1;
    },
  },
  {
    name: "Redis is killed",
    strike: async (world) => {
      await world.redis.kill9();
      await world.refusals(REFUSALS);
      await world.redis.restart();
      return 1;
    },
  },
  {
    name: "a server and Redis are killed at once",
    strike: async (world) => {
      await Promise.all([world.servers[1].kill9(), world.redis.kill9()]);
      await world.refusals(REFUSALS);
      await Promise.all([world.redis.restart(), world.servers[1].restart()]);
      return 2;
    },
  },
  {
    name: "the connection breaks after the command and before the reply",
    strike: async (world) => {
      let cuts = 0;
      for (const command of ["reserve", "commit_reservation", "release_reservation", "return_units"]) {
        const goal = cuts + world.lines.length;
        for (const line of world.lines) {
          const cut = line.cutAfterRequest((chunk) => chunk.includes(command));
          void cut.then(() => {
            cuts += 1;
          });
        }
        await until(() => cuts === goal, `both lines are cut after ${command}`, WAIT_MS_MAX);
      }
      return cuts;
    },
  },
  {
    name: "replies are lost for a while",
    strike: async (world) => {
      await both(world, (line) => line.dropReplies());
      await world.refusals(REFUSALS);
      await both(world, (line) => line.pass());
      return 1;
    },
  },
  {
    name: "the connection is frozen",
    strike: async (world) => {
      await both(world, (line) => line.freeze());
      await world.refusals(REFUSALS);
      await both(world, (line) => line.pass());
      return 1;
    },
  },
  {
    name: "Redis is frozen",
    strike: async (world) => {
      world.redis.pause();
      await world.refusals(REFUSALS);
      world.redis.resume();
      return 1;
    },
  },
  {
    name: "the connection is slow",
    strike: async (world) => {
      await both(world, (line) => line.delay(50));
      await world.progress();
      await both(world, (line) => line.pass());
      return 1;
    },
  },
];

describe("faults under load", { skip: need("redis-server").missing }, () => {
  it("no acknowledged operation is lost, none is applied twice, and the ledgers are consistent", async (t) => {
    const seed = CHAOS_SEED === undefined ? randomInt(2 ** 31) : Number(CHAOS_SEED);
    t.diagnostic(`CHAOS_SEED=${seed}`);
    await using redis = await startRedis();
    await using first = await startTcpProxy({ target: redis });
    await using second = await startTcpProxy({ target: redis });
    await using one = await startAppProcess({ REDIS_URL: first.url("redis") });
    await using two = await startAppProcess({ REDIS_URL: second.url("redis") });
    using ends = new DisposableStack();
    const world = ends.use(new World(redis, [first, second], [one, two], seed));
    const auditor = ends.use(new Caller([one.url, two.url], 0, 10_000));
    const raw = new Redis(redis.url);
    raw.on("error", () => undefined);
    ends.defer(() => raw.disconnect());
    for (const productId of PRODUCTS) {
      await auditor.ask(({ supply }, options) =>
        supply.putProduct({ productId, declared: DECLARED }, options),
      );
    }
    const audit = new Audit(auditor, [raw]);
    const check = (): Promise<void> =>
      audit.check({
        products: PRODUCTS,
        declared: DECLARED,
        orders: world.orders,
        adjustments: world.shoppers.flatMap(({ adjustments }) => adjustments),
      });

    let survived = 0;
    const random = randomOf(seed);
    const running = world.run();
    const failed = running.then(() => new Promise<never>(() => undefined));
    const strikeAll = async (): Promise<void> => {
      for (let round = 0; round < ROUNDS; round++) {
        const order = FAULTS.map((fault) => ({ fault, at: random(1_000) })).sort((a, b) => a.at - b.at);
        for (const { fault } of order) {
          await world.progress();
          const struck = await fault.strike(world);
          await world.progress();
          await world.quietly(async () => {
            await check().catch((error: unknown) => {
              throw new Error(`after "${fault.name}": ${error}`, { cause: error });
            });
          });
          survived += struck;
        }
      }
    };
    try {
      await Promise.race([strikeAll(), failed]);
    } finally {
      world.stop();
      await both(world, (line) => line.pass());
      redis.resume();
    }
    await running;
    await check();

    const { orders } = world;
    const count = (is: (order: (typeof orders)[number]) => boolean): number => orders.filter(is).length;
    t.diagnostic(`${survived} faults survived, by ${orders.length} orders of ${SHOPPERS} callers`);
    t.diagnostic(
      `${count(({ commit }) => commit === "acknowledged")} sold, ${count(({ reserve }) => reserve === "short")} short, ` +
        `${count(({ commit }) => commit === "short")} committed too late, ${world.retries} tries without an answer, ` +
        `${audit.happenedUnseen} orders went on though their callers never heard`,
    );
    t.diagnostic(`tried again: ${reasonsTold(world.callers)}`);
    t.diagnostic(`the latest expired ${audit.latestMs} ms after its deadline, outages included`);
    assert.ok(survived >= FAULTS.length);
  });
});
