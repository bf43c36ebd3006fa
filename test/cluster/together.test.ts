import assert from "node:assert/strict";
import { randomInt, randomUUID } from "node:crypto";
import { after, before, describe, it, type TestContext } from "node:test";
import fc from "fast-check";
import { Redis } from "ioredis";
import { pino } from "pino";
import type { StockChange } from "../../server/inventory/ledger.ts";
import type { InventoryStore } from "../../server/inventory/store.ts";
import { BUCKETS_DEFAULT, Keys } from "../../server/redis/keys.ts";
import type { ReservationForm } from "../../server/redis/open-reservations.ts";
import { RedisStore } from "../../server/redis/store.ts";
import { withoutReleasedHolds } from "../inventory/reservation-fixture.ts";
import { ask, type Call } from "../model/calls.ts";
import { type Command, LONG_MS, PRODUCT_IDS, prefixed, program, RESERVATION_IDS } from "../model/programs.ts";
import { need } from "../support/programs.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";
import { until } from "../support/until.ts";
import { ClusterState } from "./cluster-state.ts";
import { ACKS, type ClusterStore, openClusterStore, settling, startCluster } from "./cluster-stores.ts";

// Reservations made bucket by bucket, on a Cluster and on one primary, against those made in one script call, on one primary. Random programs must
// have the same results, but for the versions of products: a refused reservation may leave that units were held and released.

const { FC_SEED, CHAOS_ROUNDS = "1" } = process.env;
const PROGRAMS = 20 * Number(CHAOS_ROUNDS);
const RUN = randomUUID().slice(0, 8);
const keys = new Keys(BUCKETS_DEFAULT);
let programsRun = 0;

describe("random programs", { skip: need("redis-server").missing }, () => {
  let redis: RedisServer;
  let together: RedisStore;

  before(async () => {
    redis = await startRedis({ appendonly: "no" });
    together = await openOnPrimary(redis, "together");
  });
  after(async () => {
    await together?.close();
    await redis?.stop();
  });

  it("have the same results on a Cluster and on one primary", async (t) => {
    await using cluster = await startCluster();
    const { store, state } = await openClusterStore(cluster, { acks: ACKS });
    try {
      await runPrograms(t, together, { store, state });
    } finally {
      await store.close();
    }
  });

  it("have the same results on one primary, bucket by bucket and in one script call", async (t) => {
    await using primary = await startRedis({ appendonly: "no" });
    const direct = new Redis(primary.url);
    const store = await openOnPrimary(primary, "sharded");
    try {
      const state = new ClusterState({ primaryOf: async () => ({ direct }) }, keys);
      await runPrograms(t, together, { store, state });
    } finally {
      await store.close();
      direct.disconnect();
    }
  });
});

async function openOnPrimary(redis: RedisServer, reservations: ReservationForm): Promise<RedisStore> {
  const log = pino({ level: "silent" });
  const store = new RedisStore({ endpoint: { url: redis.url }, log, keys, reservations });
  await store.start(5_000);
  return store;
}

async function runPrograms(
  t: TestContext,
  together: RedisStore,
  apart: Pick<ClusterStore, "store" | "state">,
): Promise<void> {
  const seed = FC_SEED === undefined ? randomInt(2 ** 31) : Number(FC_SEED);
  t.diagnostic(`FC_SEED=${seed}`);
  const results = new Map<string, number>();
  await fc.assert(
    fc.asyncProperty(program, async (commands) => {
      const prefix = `${RUN}.${++programsRun}`;
      const stores = [together, settling(apart.store)] as const;
      await runOnBoth(stores, commands, prefix, results);
      await apart.state.check((productId) => apart.store.getLedger(productId));
    }),
    { seed, numRuns: PROGRAMS },
  );
  t.diagnostic(
    [...results]
      .map(([result, count]) => `${result} ${count}`)
      .sort()
      .join(", "),
  );
}

async function runOnBoth(
  stores: readonly [InventoryStore, InventoryStore],
  commands: readonly Command[],
  prefix: string,
  results: Map<string, number>,
): Promise<void> {
  for (const [index, command] of commands.entries()) {
    const given = withoutVersion(prefixed(command, prefix));
    const where = `command ${index}, ${JSON.stringify(given)}`;
    const [expected, actual] = [await resultOf(stores[0], given), await resultOf(stores[1], given)];
    assert.equal(actual, expected, where);
    const kind = `${given.kind} ${/"code":"(\w+)"/.exec(expected)?.[1] ?? "ok"}`;
    results.set(kind, (results.get(kind) ?? 0) + 1);
    if (given.kind === "reserve" || given.kind === "extend") await haveLapsed(stores, given.reservationId);
  }
  const [expected, actual] = [await everythingOf(stores[0], prefix), await everythingOf(stores[1], prefix)];
  assert.deepEqual(actual, expected);
  // Programs share the stores.
  for (const { reservations } of stores) {
    for (const id of RESERVATION_IDS) await reservations.release(`${prefix}.${id}`).catch(() => undefined);
  }
}

/** Expects no version: versions differ after a refused reservation. */
function withoutVersion<T extends Command>(command: T): T {
  return command.kind === "count" ? { ...command, expectedVersion: undefined } : command;
}

async function resultOf(store: InventoryStore, given: Command): Promise<string> {
  if (given.kind !== "expireDue") return (await ask(store, given)).replace(/,?"version":\d+/, "");
  // Which ones expire under a limit is up to the store, so all do.
  let expired = 0;
  for (let count = -1; count !== 0; ) {
    ({ length: count } = await store.reservations.expireDue(given.limit));
    expired += count;
  }
  return `${expired} expired`;
}

/** Waits for a deadline that is near, so that both stores agree on it. */
async function haveLapsed(stores: readonly InventoryStore[], reservationId: string): Promise<void> {
  for (const { reservations } of stores) {
    const found = await reservations.get(reservationId).catch(() => undefined);
    const { state, expireTimeMs = 0 } = found ?? {};
    if (state === "active" && expireTimeMs < Date.now() + LONG_MS / 2) {
      await until(() => Date.now() > expireTimeMs, "the deadline has passed");
    }
  }
}

/** Ledgers, reservations, and changes as a multiset by cause, reference and units. */
async function everythingOf(store: InventoryStore, prefix: string): Promise<unknown> {
  const calls = [
    ...PRODUCT_IDS.map((id): Call => ({ kind: "ledger", productId: `${prefix}.${id}` })),
    ...RESERVATION_IDS.map((id): Call => ({ kind: "get", reservationId: `${prefix}.${id}` })),
  ];
  const found: unknown[] = [];
  for (const call of calls) found.push(await resultOf(store, call));
  for (const id of PRODUCT_IDS) {
    const page = { limit: 100, beforeVersion: undefined };
    const changes = await store.listChanges(`${prefix}.${id}`, page).catch(() => []);
    found.push(unitsIn(withoutReleasedHolds(changes.reverse())));
  }
  return found;
}

function unitsIn(changes: readonly StockChange[]): readonly string[] {
  return changes.map(({ cause, referenceId, delta }) => `${cause} ${referenceId} ${delta}`).sort();
}
