import assert from "node:assert/strict";
import { randomInt } from "node:crypto";
import { after, before, describe, it } from "node:test";
import fc from "fast-check";
import { Redis } from "ioredis";
import { pino } from "pino";
import { EXPIRY_ACTOR } from "../../server/inventory/actor.ts";
import { applyUpsert, EMPTY_REGISTERS } from "../../server/inventory/product-event.ts";
import type { Effect, Message, Reply } from "../../server/inventory/sharded/messages.ts";
import { Bucket } from "../../server/memory/bucket.ts";
import { Operations } from "../../server/memory/operations.ts";
import { ledgerOf, Products } from "../../server/memory/products.ts";
import { openPrimaries } from "../../server/redis/connection/open-primaries.ts";
import { Keys } from "../../server/redis/keys.ts";
import { Mutations } from "../../server/redis/mutations/mutations.ts";
import { decodeDecided, mutationOf, replyTo } from "../../server/redis/sharded/steps.ts";
import { RedisStore } from "../../server/redis/store.ts";
import { openTestWriter } from "../support/mutation-writer.ts";
import { need } from "../support/programs.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";

// Random steps of the protocol of a Cluster, also such as no coordinator sends in this order: the scripts reply as the memory
// store does, over which every schedule was explored (docs/decisions/0030-reservations-across-shards.md).

const { FC_SEED } = process.env;
const PROGRAMS = 400;
const DAY_MS = 24 * 3_600_000;
const UNITS = 4;
const keys = new Keys(1);
const log = pino({ level: "silent" });
const now = () => Date.now();

/** The lines of each attempt, by its fingerprint. */
const LINES = {
  both: [
    { productId: "p1", quantity: 1 },
    { productId: "p2", quantity: 2 },
  ],
  one: [{ productId: "p1", quantity: 3 }],
  late: [{ productId: "p1", quantity: 1 }],
} as const;

const epoch = fc.constantFrom(1, 1, 1, 2, 3);
const fingerprint = fc.constantFrom("both" as const, "one" as const);
const anyFingerprint = fc.constantFrom("both" as const, "one" as const, "late" as const);
const revision = fc.integer({ min: 0, max: 3 });

/** A step of a program. `apply` has the effects of the latest reply with effects, from the n-th on. */
const command = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ step: fc.constant("hold" as const), epoch, fingerprint: anyFingerprint }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      step: fc.constant("decide" as const),
      epoch,
      fingerprint,
      ttlMs: fc.constantFrom(-1, DAY_MS),
    }),
  },
  { weight: 2, arbitrary: fc.record({ step: fc.constant("refuse" as const), epoch }) },
  {
    weight: 2,
    arbitrary: fc.record({ step: fc.constant("cancel" as const), epoch, fingerprint: anyFingerprint }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ step: fc.constant("apply" as const), from: fc.integer({ min: 0, max: 2 }) }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      step: fc.constant("commit" as const),
      isPartial: fc.boolean(),
      strict: fc.boolean(),
    }),
  },
  { weight: 2, arbitrary: fc.record({ step: fc.constant("revive" as const), epoch }) },
  { weight: 1, arbitrary: fc.constant({ step: "release" as const }) },
  { weight: 1, arbitrary: fc.constant({ step: "extend" as const }) },
  {
    weight: 2,
    arbitrary: fc.record({ step: fc.constant("return" as const), returnId: fc.constantFrom("t1", "t2") }),
  },
  { weight: 1, arbitrary: fc.record({ step: fc.constant("settle" as const), revision }) },
  { weight: 2, arbitrary: fc.constant({ step: "expire" as const }) },
  { weight: 1, arbitrary: fc.constant({ step: "read" as const }) },
);
type Command = typeof command extends fc.Arbitrary<infer C> ? C : never;
/** Steps of two reservations, of which the second one competes for the units. */
const program = fc.array(fc.tuple(fc.constantFrom("r", "r", "r", "rival"), command), {
  minLength: 8,
  maxLength: 24,
});

/** So that every run has one: random programs seldom come this far. */
const LATE_COMMIT: [string, Command][] = (
  [
    { step: "hold", epoch: 1, fingerprint: "both" },
    { step: "decide", epoch: 1, fingerprint: "both", ttlMs: -1 },
    { step: "expire" },
    { step: "commit", isPartial: true, strict: false },
    { step: "apply", from: 0 },
    { step: "hold", epoch: 2, fingerprint: "late" },
    { step: "revive", epoch: 2 },
    { step: "revive", epoch: 2 },
    { step: "apply", from: 0 },
    { step: "return", returnId: "t1" },
    { step: "revive", epoch: 2 },
    { step: "refuse", epoch: 2 },
    { step: "apply", from: 0 },
    { step: "settle", revision: 3 },
  ] satisfies Command[]
).map((given) => ["r", given]);

/** A repeated effect must not make a hold look decided that was taken after it. */
const REPEATED_EFFECT: [string, Command][] = (
  [
    { step: "hold", epoch: 1, fingerprint: "both" },
    { step: "decide", epoch: 1, fingerprint: "both", ttlMs: -1 },
    { step: "expire" },
    { step: "revive", epoch: 2 },
    { step: "apply", from: 0 },
    { step: "hold", epoch: 2, fingerprint: "both" },
    { step: "apply", from: 0 },
  ] satisfies Command[]
).map((given) => ["r", given]);

describe("steps of reservations in the scripts and in the memory store", {
  skip: need("redis-server").missing,
}, () => {
  let redis: RedisServer;
  let store: RedisStore;
  let mutations: Mutations;
  let client: Redis;

  before(async () => {
    redis = await startRedis({ appendonly: "no" });
    const endpoint = { url: redis.url };
    client = new Redis(redis.url);
    store = new RedisStore({ endpoint, log, keys });
    await store.start(10_000);
    const primaries = openPrimaries({ endpoint, keys, log });
    const writer = await openTestWriter(primaries, keys, log);
    mutations = new Mutations(writer, keys, {});
    closePrimaries = () => primaries.close();
  });
  let closePrimaries = (): void => {};
  after(async () => {
    mutations?.close();
    closePrimaries();
    await store?.close();
    client?.disconnect();
    await redis?.stop();
  });

  it("have the same replies and ledgers after random steps", async (t) => {
    const seed = FC_SEED === undefined ? randomInt(2 ** 31) : Number(FC_SEED);
    t.diagnostic(`FC_SEED=${seed}`);
    const statuses = new Map<string, number>();
    let programs = 0;
    await fc.assert(
      fc.asyncProperty(program, async (commands) => {
        const prefix = `${seed}.${programs++}.`;
        await runOnBoth(commands, prefix, statuses);
      }),
      { seed, numRuns: PROGRAMS, examples: [[LATE_COMMIT], [REPEATED_EFFECT]] },
    );
    t.diagnostic(
      [...statuses]
        .map(([status, count]) => `${status} ${count}`)
        .toSorted()
        .join(", "),
    );
    for (const status of [
      "hold superseded",
      "hold short",
      "decide refused",
      "commit expired",
      "revive ok",
      "return ok",
      "refuse decided",
    ]) {
      assert.ok(statuses.has(status), `no step ended with: ${status}`);
    }
  });

  async function runOnBoth(
    commands: readonly (readonly [id: string, given: Command])[],
    prefix: string,
    statuses: Map<string, number>,
  ): Promise<void> {
    const productIds = ["p1", "p2"].map((id) => prefix + id);
    const products = new Products(now, 100, () => {});
    const bucket = new Bucket(products, new Operations(now, DAY_MS), now, DAY_MS);
    for (const productId of productIds) {
      const event = { productId, declared: UNITS, details: undefined, updateTimeMicros: 1 };
      await store.putProduct(event);
      const product = products.findOrCreate(productId);
      products.change(product, { cause: "declared" }, () => {
        product.registers = applyUpsert(EMPTY_REGISTERS, event, 1).registers;
      });
    }
    const effectsOf = new Map<string, readonly Effect[]>();
    for (const [index, [id, given]] of commands.entries()) {
      const reservationId = prefix + id;
      const effects = effectsOf.get(reservationId) ?? [];
      const where = `step ${index}, ${id}, ${JSON.stringify(given)}`;
      if (given.step === "expire") {
        const expected = bucket.decisions
          .expireDue(10, EXPIRY_ACTOR)
          .map(({ record, effects: owed }) => [record.reservationId, owed] as const);
        assert.deepEqual(await expireInRedis(prefix), new Map(expected), where);
        for (const [expired, owed] of expected) effectsOf.set(expired, owed);
        continue;
      }
      const message = messageOf(given, reservationId, prefix, effects);
      if (message === undefined) continue;
      const expected = bucket.take(message);
      const found = replyTo(message, await mutations.run(mutationOf(message, keys)));
      assert.deepEqual(comparable(message.step, found), comparable(message.step, expected), where);
      const status = `${given.step} ${expected.status}`;
      statuses.set(status, (statuses.get(status) ?? 0) + 1);
      if ("effects" in expected && expected.effects.length > 0) {
        effectsOf.set(reservationId, expected.effects);
      }
    }
    for (const reservationId of [`${prefix}r`, `${prefix}rival`]) {
      const isIn = async (set: string) => (await client.zscore(set, reservationId)) !== null;
      assert.deepEqual(
        { undecided: await isIn(keys.undecided(0)), owed: await isIn(keys.owed(0)) },
        {
          undecided: bucket.holds.undecided.has(reservationId),
          owed: bucket.decisions.owed.has(reservationId),
        },
        `what is left to do for ${reservationId}`,
      );
    }
    for (const productId of productIds) {
      const { reserved, sold, version } = ledgerOf(products.known(productId));
      const { declareTimeMicros: _, ...ledger } = await store.getLedger(productId);
      assert.deepEqual({ ...ledger, reserved, sold, version }, ledger, `the ledger of ${productId}`);
    }
  }

  /** The effects of the reservations of this program that expired. Other programs may have left reservations that are due. */
  async function expireInRedis(prefix: string): Promise<ReadonlyMap<string, readonly Effect[]>> {
    const reply = await mutations.run({
      name: "expire_home",
      keys: [keys.deadlines(0), keys.owed(0)],
      args: [1_000, DAY_MS * 2],
      products: 1,
      isIdempotent: true,
      actor: EXPIRY_ACTOR,
    });
    reply.text();
    const expired = new Map<string, readonly Effect[]>();
    for (let id = reply.optionalText(); id !== undefined; id = reply.optionalText()) {
      const { effects } = decodeDecided(id, reply.text());
      if (id.startsWith(prefix)) {
        expired.set(id, effects);
      }
    }
    return expired;
  }
});

function messageOf(
  given: Exclude<Command, { step: "expire" }>,
  reservationId: string,
  prefix: string,
  effects: readonly Effect[],
): Message | undefined {
  const place = { bucket: 0, reservationId };
  const linesOf = (name: keyof typeof LINES) =>
    LINES[name].map(({ productId, quantity }) => ({ productId: prefix + productId, quantity }));
  const actor = undefined;
  switch (given.step) {
    case "hold":
      return { ...given, ...place, lines: linesOf(given.fingerprint), effects: [], actor };
    case "decide":
      return { ...given, ...place, lines: linesOf(given.fingerprint) };
    case "apply": {
      const applied = effects.slice(given.from);
      return applied.length === 0 ? undefined : { step: "apply", ...place, effects: applied };
    }
    case "commit":
      return {
        step: "commit",
        ...place,
        strict: given.strict,
        lines: given.isPartial ? linesOf("late") : [],
        actor,
      };
    case "revive":
      return { ...given, ...place, fingerprint: "late", lines: linesOf("late"), actor };
    case "return":
      return {
        ...given,
        ...place,
        fingerprint: "one unit",
        lines: linesOf("late").map((line) => ({ ...line, onHand: UNITS })),
        actor,
      };
    case "extend":
      return { ...given, ...place, ttlMs: DAY_MS };
    case "cancel":
    case "release":
      return { ...given, ...place, actor };
    default:
      return { ...given, ...place };
  }
}

/** A reply without times: each store has its own clock. Only `read` needs the fingerprint of the reservation. */
function comparable(step: Message["step"], reply: Reply): unknown {
  if (!("reservation" in reply)) {
    return reply;
  }
  const { fingerprint: contents = undefined, ...rest } = { fingerprint: undefined, ...reply };
  return {
    ...rest,
    ...(step === "read" && { contents }),
    reservation: { ...reply.reservation, createTimeMs: 0, expireTimeMs: 0, endTimeMs: 0 },
  };
}
