import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { Redis } from "ioredis";
import { pino } from "pino";
import { InventoryError } from "../../server/inventory/errors.ts";
import type { Line } from "../../server/inventory/reservation.ts";
import { openPrimaries } from "../../server/redis/connection/open-primaries.ts";
import type { Primaries } from "../../server/redis/connection/primaries.ts";
import { DamagedRecords } from "../../server/redis/damaged-records.ts";
import { Keys } from "../../server/redis/keys.ts";
import type { MutationWriter } from "../../server/redis/mutations/mutation.ts";
import { Mutations } from "../../server/redis/mutations/mutations.ts";
import { PlainKeys } from "../../server/redis/plain-keys.ts";
import { ShardedReservations } from "../../server/redis/sharded/reservations.ts";
import { RedisStore } from "../../server/redis/store.ts";
import { openTestWriter } from "../support/mutation-writer.ts";
import { need } from "../support/programs.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";

// Reservations of a Cluster on real scripts, with a server that dies, or loses a message or a reply, at each step of each
// operation. Then the caller repeats its call at another server, which also repairs, after a death in either order. Exhaustive,
// so there is no seed. DYING_SERVERS=long: also with the record of the order in the bucket of one of its products.

const READ = "read";
const DAY_MS = 24 * 3_600_000;
const DUE_MS = -1_000;
/** As if every hold and every effect had waited long enough to be repaired, whatever the rounding of the clocks. */
const OVERDUE_MS = -1_000;
const SWEEPS_MAX = 10;
const DECLARED = [4, 3, 2];
const REPAIRED_FIRST = "repaired, then repeated";
const ORDERS = ["repeated, then repaired", REPAIRED_FIRST];
/** The bucket of the order's record: one of its own; in the long form, also that of a product. */
const HOMES = process.env["DYING_SERVERS"] === "long" ? [3, 0] : [3];
const keys = new Keys(4);
const log = pino({ level: "silent" });

/** What goes wrong at a step. After `dies`, the server sends nothing and gets no reply. */
const FAULTS = [
  { name: "dies before it sends", dies: true, sends: false },
  {
    name: "dies before it sends, and what it sends at the same time arrives",
    dies: true,
    sends: false,
    overtaken: true,
  },
  { name: "dies before the reply", dies: true, sends: true },
  { name: "cannot send", dies: false, sends: false },
  { name: "loses the reply", dies: false, sends: true },
] as const;

type Fault = {
  readonly dies: boolean;
  readonly sends: boolean;
  readonly overtaken?: boolean;
  /** The number of a step, from 1, or the name of an operation of the scripts. */
  readonly at: number | string;
};

/** What a server sends, step by step, with a fault at one of them. */
class Transport {
  readonly steps: string[] = [];
  readonly died = Promise.withResolvers<void>();
  readonly #fault: Fault | undefined;
  readonly #underWay = new Set<Promise<unknown>>();
  #isReached = false;
  #isDead = false;
  #isSameTurn = false;

  constructor(fault?: Fault) {
    this.#fault = fault;
  }

  get isReached(): boolean {
    return this.#isReached;
  }

  writer(writer: MutationWriter): MutationWriter {
    return replaced(writer, {
      submit: (mutation) => this.#step(mutation.name, () => writer.submit(mutation)),
    });
  }

  primaries(primaries: Primaries): Primaries {
    return replaced(primaries, {
      send: (bucket, send) => this.#step(READ, () => primaries.send(bucket, send)),
    });
  }

  /** Resolves when what was sent has taken effect. */
  async idle(): Promise<void> {
    while (this.#underWay.size > 0) await Promise.allSettled(this.#underWay);
    await turn();
  }

  async #step<T>(name: string, send: () => Promise<T>): Promise<T> {
    if (this.#isDead && !this.#isSameTurn) return new Promise<never>(() => {});
    this.steps.push(name);
    const fault = this.#fault;
    const isFault = !this.#isReached && (fault?.at === name || fault?.at === this.steps.length);
    if (fault === undefined || !isFault) return this.#sent(send);
    this.#isReached = true;
    if (fault.dies) {
      this.#isDead = true;
      this.#isSameTurn = fault.overtaken === true;
      queueMicrotask(() => {
        this.#isSameTurn = false;
        this.died.resolve();
      });
    }
    if (fault.sends) await this.#sent(send);
    if (fault.dies) return new Promise<never>(() => {});
    throw new InventoryError("STORE_UNAVAILABLE", "The test lets this step fail");
  }

  #sent<T>(send: () => Promise<T>): Promise<T> {
    const sent = send();
    const ended = sent
      .then(
        () => {},
        () => {},
      )
      .finally(() => this.#underWay.delete(ended));
    this.#underWay.add(ended);
    return sent;
  }
}

function replaced<T extends object>(target: T, methods: Partial<T>): T {
  return new Proxy(target, {
    get: (_, name) => {
      const value: unknown = Reflect.get(methods, name) ?? Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

/** The IDs of one case: products in the buckets 0, 1 and 2, and the order at home in one of the buckets. */
interface Ids {
  readonly products: readonly string[];
  readonly order: string;
  readonly rival: string;
}

interface Operation {
  readonly name: string;
  readonly prepare?: (the: Preparation, ids: Ids) => Promise<unknown>;
  readonly call: (server: ShardedReservations, ids: Ids) => Promise<unknown>;
}

interface Preparation {
  /** A server without faults. */
  readonly server: ShardedReservations;
  /** Makes a call by a server that dies before it sends an operation of this name. */
  dying(at: string, call: (server: ShardedReservations) => Promise<unknown>): Promise<void>;
}

const linesOf = ({ products }: Ids, quantities: readonly number[]): Line[] =>
  products
    .map((productId, index) => ({ productId, quantity: quantities[index] ?? 0 }))
    .filter(({ quantity }) => quantity > 0);
const CART = [2, 1, 1];

const reserve =
  (quantities: readonly number[], ttlMs = DAY_MS, name: "order" | "rival" = "order") =>
  (server: ShardedReservations, ids: Ids) =>
    server.reserve({ reservationId: ids[name], lines: linesOf(ids, quantities), ttlMs });
const commit =
  (quantities: readonly number[] = [], strict = false) =>
  (server: ShardedReservations, ids: Ids) =>
    server.commit({ reservationId: ids.order, lines: linesOf(ids, quantities), strict });
const release = (server: ShardedReservations, { order }: Ids) => server.release(order);
const giveBack =
  (returnId: string, quantities: readonly number[]) => (server: ShardedReservations, ids: Ids) =>
    server.return({ reservationId: ids.order, returnId, lines: linesOf(ids, quantities) });
const expire = async (server: ShardedReservations, { order }: Ids) => {
  await server.expireDue(100);
  return server.get(order);
};
const repair = async (server: ShardedReservations, { order }: Ids) => {
  await server.repair.sweep(OVERDUE_MS, OVERDUE_MS);
  return server.get(order);
};

type Call = Operation["call"];
const following =
  (...calls: readonly Call[]) =>
  async ({ server }: Preparation, ids: Ids) => {
    for (const call of calls) {
      await call(server, ids);
      await server.settled();
    }
  };
const reserved = reserve(CART);
const due = reserve(CART, DUE_MS);
/** Expired, and the server that expired it has applied nothing. */
const expiredUnsettled = async (the: Preparation, ids: Ids) => {
  await due(the.server, ids);
  await the.dying("apply_effects", (server) => server.expireDue(100));
};

const OPERATIONS: readonly Operation[] = [
  { name: "reserve in three buckets", call: reserved },
  { name: "reserve in two buckets", call: reserve([1, 0, 2]) },
  { name: "reserve, short in one bucket", call: reserve([2, 1, 3]) },
  { name: "reserve under an ID with other contents", prepare: following(reserved), call: reserve([1, 2, 0]) },
  { name: "reserve after a release of the ID", prepare: following(release), call: reserved },
  {
    name: "reserve after an attempt that nobody decided",
    prepare: (the, ids) => the.dying("decide", (server) => reserve([1, 2, 0])(server, ids)),
    call: reserved,
  },
  { name: "commit, strict", prepare: following(reserved), call: commit([], true) },
  { name: "commit in part", prepare: following(reserved), call: commit([1, 0, 1]) },
  { name: "commit, strict, after expiry", prepare: following(due, expire), call: commit([], true) },
  { name: "late commit", prepare: following(due, expire), call: commit() },
  {
    name: "late commit in part, of an expiry that nobody applied",
    prepare: expiredUnsettled,
    call: commit([1, 1]),
  },
  {
    name: "late commit, short in one bucket",
    prepare: following(due, expire, reserve([0, 0, 2], DAY_MS, "rival")),
    call: commit(),
  },
  { name: "release", prepare: following(reserved), call: release },
  { name: "release of an expiry that nobody applied", prepare: expiredUnsettled, call: release },
  {
    name: "extend",
    prepare: following(reserved),
    call: (server, { order }) => server.extend(order, 2 * DAY_MS),
  },
  { name: "return", prepare: following(reserved, commit()), call: giveBack("return", [1, 1]) },
  {
    name: "second return, of a commit that nobody applied",
    prepare: async (the, ids) => {
      await following(reserved)(the, ids);
      await the.dying("apply_effects", (server) => commit()(server, ids));
      await giveBack("first", [1])(the.server, ids);
    },
    call: giveBack("return", [1, 1]),
  },
  { name: "expiry", prepare: following(due), call: expire },
  {
    name: "repair of holds that nobody decided",
    prepare: (the, ids) => the.dying("decide", (server) => reserved(server, ids)),
    call: repair,
  },
  {
    name: "repair of holds that were decided",
    prepare: following(reserved),
    call: repair,
  },
  {
    name: "repair of effects that nobody applied",
    prepare: async (the, ids) => {
      await following(reserved)(the, ids);
      await the.dying("apply_effects", (server) => commit([1, 1])(server, ids));
    },
    call: repair,
  },
];

describe("reservations across buckets, with a server that fails at each step", {
  skip: need("redis-server").missing,
}, () => {
  let redis: RedisServer;
  let client: Redis;
  let store: RedisStore;
  let writer: MutationWriter;
  let primaries: Primaries;
  let cases = 0;

  before(async () => {
    redis = await startRedis({ appendonly: "no" });
    client = new Redis(redis.url);
    const endpoint = { url: redis.url };
    store = new RedisStore({ endpoint, log, keys });
    await store.start(10_000);
    primaries = openPrimaries({ endpoint, keys, log });
    writer = await openTestWriter(primaries, keys, log);
    await primaries.firstReady;
  });
  after(async () => {
    writer?.close();
    primaries?.close();
    await store?.close();
    client?.disconnect();
    await redis?.stop();
  });

  /** A server whose repairs run only when the test calls them. */
  function open(transport = new Transport()): ShardedReservations {
    const mutations = new Mutations(transport.writer(writer), keys, {});
    const server = new ShardedReservations({
      keys,
      mutations,
      plainKeys: new PlainKeys(keys, primaries, mutations),
      primaries: transport.primaries(primaries),
      damagedRecords: new DamagedRecords(log, undefined),
      readLedgers: (ids) => store.batchGetLedgers(ids),
    });
    server.repair.close();
    return server;
  }

  async function makeIds(home: number): Promise<Ids> {
    const prefix = `${++cases}`;
    const products = DECLARED.map((_, bucket) => idIn(bucket, `${prefix}.product`));
    await Promise.all(
      products.map((productId, index) =>
        store.putProduct({ productId, details: undefined, declared: DECLARED[index], updateTimeMicros: 1 }),
      ),
    );
    return { products, order: idIn(home, `${prefix}.order`), rival: idIn(home, `${prefix}.rival`) };
  }

  /** Makes a call, with what follows its answer, by a server with a fault. Resolves with the answer, if there is one. */
  async function runWith(
    transport: Transport,
    call: (server: ShardedReservations) => Promise<unknown>,
  ): Promise<string | undefined> {
    const server = open(transport);
    let answer: string | undefined;
    const ended = answerOf(call(server)).then((given) => {
      answer = given;
      return server.settled();
    });
    await Promise.race([ended, transport.died.promise]);
    await transport.idle();
    return answer;
  }

  const the = (server: ShardedReservations): Preparation => ({
    server,
    dying: async (at, call) => {
      const transport = new Transport({ dies: true, sends: false, at });
      await runWith(transport, call);
      assert.ok(transport.isReached, `the operation ${at} was reached`);
    },
  });

  async function repairAll(server: ShardedReservations, ids: Ids): Promise<void> {
    for (let sweep = 0; sweep < SWEEPS_MAX; sweep += 1) {
      await server.repair.sweep(OVERDUE_MS, OVERDUE_MS);
      if ((await unfinished(ids)).length === 0) return;
    }
    assert.deepEqual(await unfinished(ids), [], "what remains undecided or owed");
  }

  async function unfinished({ order, rival }: Ids): Promise<string[]> {
    const sets = Array.from({ length: keys.buckets }, (_, bucket) => [
      keys.undecided(bucket),
      keys.owed(bucket),
    ]);
    const members = await Promise.all(sets.flat().map((set) => client.zrange(set, "0", "-1")));
    return members.flat().filter((id) => id === order || id === rival);
  }

  /** Checks that holds, records and ledgers agree. Returns what each product has declared, reserved and sold. */
  async function check({ products, order, rival }: Ids): Promise<string> {
    const units: string[] = [];
    const found = await Promise.all(
      [order, rival].map((id) => Promise.all([unitsOfRecord(id), unitsOfHolds(id)])),
    );
    for (const productId of products) {
      const sum = { reserved: 0, sold: 0 };
      for (const [ofRecord, ofHolds] of found) {
        const [held, soldOfOrder] = ofHolds.get(productId) ?? [0, 0];
        const expected = ofRecord.get(productId) ?? [0, 0];
        assert.deepEqual([held, soldOfOrder], expected, `holds and record of ${productId}`);
        sum.reserved += held;
        sum.sold += soldOfOrder;
      }
      const { declared, reserved, sold } = await store.getLedger(productId);
      assert.deepEqual({ reserved, sold }, sum, `ledger and holds of ${productId}`);
      units.push(`${declared} declared, ${reserved} reserved, ${sold} sold`);
    }
    return units.join("; ");
  }

  type Units = ReadonlyMap<string, readonly [held: number, sold: number]>;

  async function unitsOfRecord(id: string): Promise<Units> {
    const text = await client.get(keys.reservation(id));
    if (text === null || text.startsWith("refused ")) return new Map();
    const {
      state,
      lines,
      left = [],
    } = JSON.parse(text) as {
      state: string;
      lines?: [string, number, number][] | Record<string, never>;
      left?: number[];
    };
    return new Map(
      (Array.isArray(lines) ? lines : []).map(([productId, , quantity], index) => [
        productId,
        [state === "active" ? quantity : 0, state === "committed" ? (left[index] ?? 0) : 0],
      ]),
    );
  }

  async function unitsOfHolds(id: string): Promise<Units> {
    const units = new Map<string, [number, number]>();
    const buckets = Array.from({ length: keys.buckets }, (_, bucket) => bucket);
    for (const text of await Promise.all(buckets.map((bucket) => client.get(keys.hold(bucket, id))))) {
      const { lines = [] } = JSON.parse(text ?? "{}") as { lines?: [string, number, number][] };
      // Lua writes an empty list as an empty object.
      if (!Array.isArray(lines)) continue;
      for (const [productId, held, sold] of lines) units.set(productId, [held, sold]);
    }
    return units;
  }

  for (const { name, prepare, call } of OPERATIONS) {
    it(name, async (t) => {
      for (const home of HOMES) {
        const server = open();
        const expected = await undisturbed(home);
        t.diagnostic(`home in bucket ${home}: ${expected.steps.join(", ")}`);
        for (let at = 1; at <= expected.steps.length; at += 1) {
          // Death at a read is death before the next step.
          const isRead = expected.steps[at - 1] === READ;
          for (const fault of FAULTS.filter(({ dies }) => !(dies && isRead))) {
            for (const order of fault.dies ? ORDERS : ORDERS.slice(0, 1)) {
              const where = `home in bucket ${home}, step ${at} ${expected.steps[at - 1]}, ${fault.name}, ${order}`;
              const ids = await makeIds(home);
              await prepare?.(the(server), ids);
              const transport = new Transport({ ...fault, at });
              try {
                const answer = await runWith(transport, (failing) => call(failing, ids));
                assert.ok(transport.isReached, "the step was reached");
                const isAnswered = answer !== undefined && !answer.includes("STORE_UNAVAILABLE");
                if (isAnswered) assert.equal(plain(answer, ids), expected.answer, "the answer");
                if (order === REPAIRED_FIRST) {
                  await repairAll(server, ids);
                  await check(ids);
                }
                const repeated = await answerOf(call(server, ids));
                assert.equal(plain(repeated, ids), expected.answer, "the answer to the repetition");
                await server.settled();
                await repairAll(server, ids);
                assert.equal(await check(ids), expected.units, "the units in the end");
              } catch (error) {
                if (error instanceof Error) error.message = `${where}: ${error.message}`;
                throw error;
              }
            }
          }
        }
        async function undisturbed(inBucket: number) {
          const ids = await makeIds(inBucket);
          await prepare?.(the(server), ids);
          const transport = new Transport();
          const answer = await runWith(transport, (failing) => call(failing, ids));
          await repairAll(server, ids);
          return { answer: plain(answer ?? "", ids), steps: transport.steps, units: await check(ids) };
        }
      }
    });
  }
});

function idIn(bucket: number, prefix: string): string {
  for (let n = 0; ; n += 1) {
    if (keys.bucketOf(`${prefix}.${n}`) === bucket) return `${prefix}.${n}`;
  }
}

/** The outcome of a call, without times. */
async function answerOf(call: Promise<unknown>): Promise<string> {
  try {
    return JSON.stringify(await call, (name, value: unknown) =>
      name.endsWith("TimeMs") ? undefined : value,
    );
  } catch (error) {
    assert.ok(error instanceof InventoryError, String(error));
    return `${error.code} ${error.message} ${JSON.stringify(error.shortage ?? "")}`;
  }
}

/** An answer without the IDs of its case. */
function plain(answer: string, { products, order, rival }: Ids): string {
  return [...products, order, rival].reduce((text, id, index) => text.replaceAll(id, `<${index}>`), answer);
}
