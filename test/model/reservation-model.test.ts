import assert from "node:assert/strict";
import { randomInt, randomUUID } from "node:crypto";
import { after, before, describe, it, type TestContext } from "node:test";
import fc from "fast-check";
import { pino } from "pino";
import { InventoryError } from "../../server/inventory/errors.ts";
import type { InventoryStore } from "../../server/inventory/store.ts";
import { MemoryStore } from "../../server/memory/store.ts";
import { RedisStore } from "../../server/redis/store.ts";
import { need } from "../support/programs.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";
import { until } from "../support/until.ts";
import { ask, type Call, send } from "./calls.ts";
import { Auditor } from "./invariants.ts";
import {
  bursts,
  type Command,
  LONG_MS,
  PRODUCT_IDS,
  prefixed,
  program,
  RESERVATION_IDS,
} from "./programs.ts";
import { isDue, nothing, type State, step } from "./specification.ts";

// Model-based tests after Claessen and Hughes, "QuickCheck: a lightweight tool for random testing of
// Haskell programs", ICFP 2000, and Hughes, "Experiences with QuickCheck: testing the hard stuff and
// staying sane", 2016: random programs of all operations, checked against a model and by invariants.

const { FC_SEED, CHAOS_ROUNDS = "1" } = process.env;
const PROGRAMS = 150 * Number(CHAOS_ROUNDS);
const CONCURRENT_PROGRAMS = 150 * Number(CHAOS_ROUNDS);
const RUN = randomUUID().slice(0, 8);
const log = pino({ level: "silent" });

let programsRun = 0;

function seedOf(t: TestContext): number {
  const seed = FC_SEED === undefined ? randomInt(2 ** 31) : Number(FC_SEED);
  t.diagnostic(`FC_SEED=${seed}`);
  return seed;
}

/** Runs a program and then releases its reservations, because programs share a store. */
async function cleanly(stores: readonly InventoryStore[], prefix: string, body: () => Promise<void>) {
  try {
    await body();
  } finally {
    for (const { reservations } of stores) {
      for (const id of RESERVATION_IDS) {
        await reservations.release(`${prefix}.${id}`).catch(() => undefined);
      }
    }
  }
}

/** The model that runs beside the stores, with the deadlines by their clock. */
class Model {
  #state: State = nothing;

  result(call: Call): string {
    const { state, result } = step(this.#state, call);
    this.#state = state;
    return result;
  }

  lapse(reservationId: string): void {
    this.#state = step(this.#state, { kind: "lapse", reservationId }).state;
  }

  /** Expires due reservations. Returns their number. */
  sweep(reservationIds: readonly string[]): number {
    const due = reservationIds.filter((id) => isDue(this.#state, id));
    for (const reservationId of due) {
      this.#state = step(this.#state, { kind: "sweep", reservationId }).state;
    }
    return due.length;
  }
}

/** Every store must give the model's results, and the stores must agree on everything else but times. */
async function runOnAll(
  stores: readonly InventoryStore[],
  commands: readonly Command[],
  prefix: string,
  calls: Map<string, number>,
): Promise<void> {
  const model = new Model();
  const ours = RESERVATION_IDS.map((id) => `${prefix}.${id}`);
  const lookAround: Command[] = [
    ...PRODUCT_IDS.flatMap((productId): Command[] => [
      { kind: "ledger", productId },
      { kind: "stock", productId },
    ]),
    ...RESERVATION_IDS.map((reservationId): Command => ({ kind: "get", reservationId })),
  ];
  for (const [index, command] of [...commands, ...lookAround].entries()) {
    const given = prefixed(command, prefix);
    const where = `command ${index}, ${JSON.stringify(given)}`;
    if (given.kind === "expireDue") {
      // The order under a limit is up to the store, so all due ones expire.
      const expected = model.sweep(ours);
      for (const store of stores) {
        assert.equal(await sweep(store, given.limit), expected, `${where} expires others`);
      }
      continue;
    }
    const expected = model.result(given);
    for (const store of stores) {
      assert.equal(await ask(store, given), expected, `${where} has another result than specified`);
    }
    calls.set(
      `${given.kind} ${outcomeOf(expected)}`,
      (calls.get(`${given.kind} ${outcomeOf(expected)}`) ?? 0) + 1,
    );
    if (given.kind === "reserve" || given.kind === "extend") {
      if (await haveLapsed(stores, given.reservationId)) {
        model.lapse(given.reservationId);
      }
    }
  }
  const seen = await Promise.all(stores.map((store) => everythingOf(store, prefix)));
  for (const other of seen.slice(1)) {
    assert.deepEqual(other, seen[0]);
  }
}

function outcomeOf(result: string): string {
  return /"code":"(\w+)"/.exec(result)?.[1] ?? "ok";
}

async function sweep(store: InventoryStore, limit: number): Promise<number> {
  let expired = 0;
  for (;;) {
    const { length: count } = await store.reservations.expireDue(limit);
    assert.ok(count <= limit, `${count} expired, where ${limit} are the most`);
    assert.ok(expired <= RESERVATION_IDS.length, "the sweeper finds no end");
    expired += count;
    if (count === 0) {
      return expired;
    }
  }
}

/** Waits for a deadline that is near, so that the clocks of all stores agree on it. */
async function haveLapsed(stores: readonly InventoryStore[], reservationId: string): Promise<boolean> {
  const deadlines = await Promise.all(
    stores.map((store) =>
      store.reservations.get(reservationId).then(
        ({ state, expireTimeMs = 0 }) => (state === "active" ? expireTimeMs : 0),
        () => 0,
      ),
    ),
  );
  const latest = Math.max(...deadlines);
  if (latest === 0 || latest > Date.now() + LONG_MS / 2) {
    return false;
  }
  await until(() => Date.now() > latest, "the deadline has passed");
  return true;
}

/** What two stores must have in common besides the model: messages, changes, and the presence of times. */
async function everythingOf(store: InventoryStore, prefix: string): Promise<unknown> {
  const productIds = PRODUCT_IDS.map((id) => `${prefix}.${id}`);
  const reservationIds = RESERVATION_IDS.map((id) => `${prefix}.${id}`);
  const notHeld = [{ productId: `${prefix}.p1`, quantity: 9 }];
  const looks = [
    ...productIds.map((id) => () => changesOf(store, id)),
    ...productIds.map((id) => () => store.getLedger(id)),
    ...reservationIds.map((id) => () => store.reservations.get(id)),
    ...reservationIds.map((id) => () => store.reservations.extend(id, LONG_MS)),
    ...reservationIds.map(
      (id) => () => store.reservations.commit({ reservationId: id, lines: notHeld, strict: true }),
    ),
  ];
  const seen: unknown[] = [];
  for (const look of looks) {
    seen.push(await withoutTimes(look()));
  }
  return seen;
}

/** Oldest first. Consecutive expiries are merged, because their order is up to the store. */
async function changesOf(store: InventoryStore, productId: string): Promise<unknown[]> {
  const page = { limit: 100, beforeVersion: undefined };
  const changes: { cause: string; delta: number; referenceId: string; ledger: unknown }[] = [];
  for (const change of (await store.listChanges(productId, page)).reverse()) {
    const last = changes.at(-1);
    if (last?.cause === "expired" && change.cause === "expired") {
      last.delta += change.delta;
      last.referenceId = [...last.referenceId.split(" "), change.referenceId].sort().join(" ");
      last.ledger = change.ledger;
    } else {
      changes.push({ ...change });
    }
  }
  return changes;
}

async function withoutTimes(result: Promise<unknown>): Promise<unknown> {
  const value = await result.catch((error: unknown) => {
    if (!(error instanceof InventoryError)) {
      throw error;
    }
    const { code, message, violations, shortage } = error;
    return { code, message, violations, shortage };
  });
  const text = JSON.stringify(value, (key, inner: unknown) =>
    /TimeMs$/.test(key) && typeof inner === "number" ? "(a time)" : inner,
  );
  return JSON.parse(text);
}

/** Sends each burst concurrently, in turn through each of the stores, which share one Redis or are one store. */
async function runConcurrently(
  stores: readonly InventoryStore[],
  groups: readonly (readonly Command[])[],
  prefix: string,
): Promise<void> {
  const [first] = stores;
  assert.ok(first);
  const auditor = new Auditor(
    first,
    PRODUCT_IDS.map((id) => `${prefix}.${id}`),
    RESERVATION_IDS.map((id) => `${prefix}.${id}`),
  );
  for (const [round, group] of groups.entries()) {
    const under = group.map((command, index) => {
      const store = stores[index % stores.length] ?? first;
      const given = prefixed(command, prefix);
      return given.kind === "expireDue" ? store.reservations.expireDue(given.limit) : send(store, given);
    });
    for (const outcome of await Promise.allSettled(under)) {
      if (outcome.status === "rejected" && !isRefusal(outcome.reason)) {
        throw outcome.reason;
      }
    }
    await auditor.check().catch((error: unknown) => {
      throw new Error(`After burst ${round} a rule is broken`, { cause: error });
    });
  }
}

function isRefusal(reason: unknown): boolean {
  return (
    reason instanceof InventoryError && reason.code !== "STORE_UNAVAILABLE" && reason.code !== "OVERLOADED"
  );
}

async function assertAllAgree(t: TestContext, stores: readonly InventoryStore[]): Promise<void> {
  const calls = new Map<string, number>();
  await fc.assert(
    fc.asyncProperty(program, async (commands) => {
      const prefix = `${RUN}.${++programsRun}`;
      const all = [new MemoryStore(), ...stores];
      await cleanly(all, prefix, () => runOnAll(all, commands, prefix, calls));
    }),
    { seed: seedOf(t), numRuns: PROGRAMS },
  );
  const outcomes = [...calls].sort(([a], [b]) => (a < b ? -1 : 1)).map(([what, count]) => `${what} ${count}`);
  t.diagnostic(outcomes.join(", "));
}

async function assertInvariants(t: TestContext, storesOf: () => readonly InventoryStore[]): Promise<void> {
  await fc.assert(
    fc.asyncProperty(bursts, async (groups) => {
      const prefix = `${RUN}.${++programsRun}`;
      const stores = storesOf();
      await cleanly(stores.slice(0, 1), prefix, () => runConcurrently(stores, groups, prefix));
    }),
    { seed: seedOf(t), numRuns: CONCURRENT_PROGRAMS },
  );
}

describe("random programs on MemoryStore", () => {
  it("have the specified results, command by command", (t) => assertAllAgree(t, []));

  it("preserve every invariant when run concurrently", (t) => assertInvariants(t, () => [new MemoryStore()]));
});

const { missing } = need("redis-server");

describe("random programs on RedisStore", { skip: missing }, () => {
  let redis: RedisServer;
  const servers: RedisStore[] = [];
  before(async () => {
    redis = await startRedis({ appendonly: "no" });
    for (let n = 0; n < 2; n++) {
      const store = new RedisStore({ endpoint: { url: redis.url }, log });
      servers.push(store);
      await store.start(5_000);
    }
  });
  after(async () => {
    for (const store of servers) {
      await store.close();
    }
    await redis?.stop();
  });

  it("have the specified results and those of MemoryStore, command by command", (t) =>
    assertAllAgree(t, servers.slice(0, 1)));

  it("preserve every invariant when run concurrently on two servers of one Redis", (t) =>
    assertInvariants(t, () => servers));
});
