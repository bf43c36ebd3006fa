import assert from "node:assert/strict";
import { randomInt, randomUUID } from "node:crypto";
import { after, before, describe, it } from "node:test";
import fc from "fast-check";
import type { ReferenceQuery } from "../../server/inventory/change-history.ts";
import type { Delivery } from "../../server/inventory/delivery.ts";
import { InventoryError } from "../../server/inventory/errors.ts";
import type { StockChange } from "../../server/inventory/ledger.ts";
import type { InventoryStore } from "../../server/inventory/store.ts";
import { MemoryStore } from "../../server/memory/store.ts";
import type { MakeStore, StoreUnderTest } from "./store-contract.ts";

interface AgreementOptions {
  /** Random by default; a failure prints it. */
  readonly seed?: number;
  /** The number of programs. Default: 200. */
  readonly programs?: number;
}

/** One call of the contract, sent to both stores. IDs get a prefix that is unique to the program. */
type Command =
  | {
      readonly kind: "put";
      readonly product: number;
      readonly time: EventTime;
      readonly declared: number | undefined;
      readonly name: string | undefined;
      readonly delivery: Delivery | undefined;
    }
  | {
      readonly kind: "collection";
      readonly product: number;
      readonly time: number;
      /** Absent: a deletion. */
      readonly name: string | undefined;
      readonly delivery: Delivery | undefined;
    }
  | { readonly kind: "collections" }
  | { readonly kind: "delete"; readonly product: number; readonly time: EventTime }
  | {
      readonly kind: "count";
      readonly product: number;
      readonly count: number;
      readonly expectedVersion: number | undefined;
      readonly operation: number;
      readonly reason: string;
    }
  | {
      readonly kind: "adjust";
      readonly product: number;
      readonly delta: number;
      readonly operation: number;
      readonly reason: string;
    }
  | { readonly kind: "safety"; readonly product: number; readonly safety: number }
  | { readonly kind: "stock" | "ledger"; readonly product: number }
  | { readonly kind: "batch" | "ledgers"; readonly products: readonly number[] }
  | {
      readonly kind: "changes";
      readonly product: number;
      readonly limit: number;
      readonly beforeVersion: number | undefined;
    }
  | { readonly kind: "find"; readonly operation: number; readonly ofProduct: number | undefined };

/** µs after a time long past, or the store's clock. */
type EventTime = number | "unsaid" | "too far ahead";

const PRODUCTS = 3;
const BASE_MICROS = 1_700_000_000_123_456;
/** Later than every explicit time of a program, earlier than every clock. */
const PROGRAMS_END_MICROS = BASE_MICROS + 1_000;
const AHEAD_MS = 3_600_000;
const RUN = randomUUID().slice(0, 8);
const { FC_SEED } = process.env;

// Narrow ranges, so that ties, repetitions, reused IDs and matching versions are common.
const product = fc.nat(PRODUCTS - 1);
const operation = fc.nat(7);
const reason = fc.constantFrom("", "", "broken “glass”");
const version = fc.option(fc.nat(12), { nil: undefined, freq: 3 });
const units = fc.oneof(
  { weight: 4, arbitrary: fc.nat(12) },
  fc.constantFrom(2_147_483_646, 2_147_483_647, 1_000_000_007),
);
const delta = fc.oneof(
  { weight: 5, arbitrary: fc.integer({ min: -8, max: 8 }).filter((value) => value !== 0) },
  fc.constantFrom(2_147_483_647, -2_147_483_647),
);
const time: fc.Arbitrary<EventTime> = fc.oneof(
  { weight: 12, arbitrary: fc.nat(8) },
  fc.constantFrom<EventTime[]>("unsaid", "too far ahead"),
);
const name = fc.option(fc.constantFrom("Lamp", "Torch", "灯"), { nil: undefined, freq: 3 });
/** 10 is less than 9 as text. */
const delivery = fc.option(
  fc.record({
    timestampMs: fc.constantFrom(0, 1_700_000_000_123),
    offset: fc.constantFrom(9, 10, 4_294_967_297),
    partition: fc.constantFrom(9, 10),
  }),
  { nil: undefined },
);
const command: fc.Arbitrary<Command> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant("put" as const),
      product,
      time,
      declared: fc.option(units, { nil: undefined, freq: 3 }),
      name,
      delivery,
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant("collection" as const),
      product,
      time: fc.nat(2),
      name,
      delivery,
    }),
  },
  fc.record({ kind: fc.constant("collections" as const) }),
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("delete" as const), product, time }) },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant("count" as const),
      product,
      count: units,
      expectedVersion: version,
      operation,
      reason,
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({ kind: fc.constant("adjust" as const), product, delta, operation, reason }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("safety" as const), product, safety: units }) },
  fc.record({ kind: fc.constantFrom("stock" as const, "ledger" as const), product }),
  fc.record({
    kind: fc.constantFrom("batch" as const, "ledgers" as const),
    products: fc.array(product, { maxLength: 4 }),
  }),
  fc.record({
    kind: fc.constant("changes" as const),
    product,
    limit: fc.integer({ min: 1, max: 5 }),
    beforeVersion: version,
  }),
  fc.record({
    kind: fc.constant("find" as const),
    operation,
    ofProduct: fc.option(product, { nil: undefined }),
  }),
);
const program = fc.array(command, { minLength: 1, maxLength: 40 });

/** Runs random programs on another store and on `MemoryStore`, command by command. Every result must be the same. */
export function describeStoresAgree(
  name: string,
  makeOther: MakeStore,
  options: AgreementOptions & { readonly skip?: string | undefined } = {},
): void {
  describe(`${name} agrees with MemoryStore`, { skip: options.skip ?? false }, () => {
    let opened: StoreUnderTest;
    before(async () => {
      opened = await makeOther();
    });
    after(() => opened?.close());

    it("gives the same results for random programs, command by command", async (t) => {
      const seed = options.seed ?? (FC_SEED === undefined ? randomInt(2 ** 31) : Number(FC_SEED));
      t.diagnostic(`FC_SEED=${seed}`);
      await assertStoresAgree(opened.store, { ...options, seed });
    });
  });
}

/** Rejects with the shortest program found whose results differ from those of `MemoryStore`. */
export async function assertStoresAgree(
  other: InventoryStore,
  { seed = randomInt(2 ** 31), programs = 200 }: AgreementOptions = {},
): Promise<void> {
  let programsRun = 0;
  await fc.assert(
    fc.asyncProperty(program, async (commands) => {
      // Products and operations are unique to the program, because all programs share the other store.
      await runOnBoth(new MemoryStore(), other, commands, `${RUN}.${++programsRun}`);
    }),
    { seed, numRuns: programs },
  );
}

async function runOnBoth(
  memory: InventoryStore,
  other: InventoryStore,
  commands: readonly Command[],
  prefix: string,
): Promise<void> {
  const finalReads = Array.from({ length: PRODUCTS }, (_, index): Command[] => [
    { kind: "ledger", product: index },
    { kind: "stock", product: index },
    { kind: "changes", product: index, limit: 100, beforeVersion: undefined },
  ]).flat();
  finalReads.push({ kind: "collections" });
  const timedByClock = new Set<number>();
  for (const [index, given] of [...commands, ...finalReads].entries()) {
    const next = timedOnce(given, timedByClock);
    const [expected, actual] = [await resultOf(memory, next, prefix), await resultOf(other, next, prefix)];
    assert.deepEqual(actual, expected, `command ${index}, ${JSON.stringify(next)}, has different results`);
  }
}

/** Two events timed by the clock may tie on a coarse clock and not on a fine one, so each product has at most one. */
function timedOnce(given: Command, timedByClock: Set<number>): Command {
  if ((given.kind !== "put" && given.kind !== "delete") || given.time !== "unsaid") {
    return given;
  }
  if (timedByClock.has(given.product)) {
    return { ...given, time: 9 };
  }
  timedByClock.add(given.product);
  return given;
}

/** A store's result or error, without the times of its clock. */
async function resultOf(store: InventoryStore, given: Command, prefix: string): Promise<unknown> {
  try {
    return { result: withoutTimes(await send(store, given, prefix)) };
  } catch (error) {
    if (!(error instanceof InventoryError)) {
      throw error;
    }
    const { code, message, violations, shortage } = error;
    return { refusal: withoutTimes({ code, message, violations, shortage }) };
  }
}

function send(store: InventoryStore, given: Command, prefix: string): Promise<unknown> {
  const idOf = (index: number) => `${prefix} product ${index}`;
  const micros = (said: EventTime) => {
    if (said === "unsaid") {
      return undefined;
    }
    return said === "too far ahead" ? (Date.now() + AHEAD_MS) * 1000 : BASE_MICROS + said;
  };
  switch (given.kind) {
    case "put":
      return store.putProduct({
        productId: idOf(given.product),
        declared: given.declared,
        details: given.name === undefined ? undefined : detailsNamed(given.name),
        updateTimeMicros: micros(given.time),
        delivery: given.delivery,
      });
    case "collection": {
      const collectionId = `${prefix} collection ${given.product}`;
      return store.putCollection({
        collectionId,
        collection:
          given.name === undefined ? undefined : { collectionId, name: given.name, description: "" },
        updateTimeMicros: BASE_MICROS + given.time,
        delivery: given.delivery,
      });
    }
    case "collections":
      return ownCollections(store, prefix);
    case "delete":
      return store.deleteProduct({ productId: idOf(given.product), updateTimeMicros: micros(given.time) });
    case "count":
      return store.countStock({
        productId: idOf(given.product),
        count: given.count,
        expectedVersion: given.expectedVersion === undefined ? undefined : BigInt(given.expectedVersion),
        countId: `${prefix} operation ${given.operation}`,
        reason: given.reason,
        actor: `counter ${given.count}`,
      });
    case "adjust":
      return store.adjustStock({
        productId: idOf(given.product),
        delta: given.delta,
        adjustmentId: `${prefix} operation ${given.operation}`,
        reason: given.reason,
        actor: `clerk ${given.delta}`,
      });
    case "safety":
      return store.setSafetyStock(idOf(given.product), given.safety);
    case "stock":
      return store.getStock(idOf(given.product));
    case "ledger":
      return store.getLedger(idOf(given.product));
    case "batch":
      return store.batchGetStock(given.products.map(idOf));
    case "ledgers":
      return store.batchGetLedgers(given.products.map(idOf));
    case "changes": {
      const { limit, beforeVersion } = given;
      return store.listChanges(idOf(given.product), { limit, beforeVersion });
    }
    case "find":
      return found(store, {
        referenceId: `${prefix} operation ${given.operation}`,
        productId: given.ofProduct === undefined ? undefined : idOf(given.ofProduct),
      });
  }
}

/** The changes of a reference. Their order between products depends on the stores' clocks. */
async function found(store: InventoryStore, query: ReferenceQuery): Promise<unknown> {
  const { changes, truncated } = await store.findChanges(query, { limit: 100, after: undefined });
  const keyOf = ({ ledger }: StockChange) => `${ledger.productId} ${ledger.version}`;
  return { truncated, changes: changes.toSorted((a, b) => (keyOf(a) < keyOf(b) ? -1 : 1)) };
}

/** The collections of one program, by ID. */
async function ownCollections(store: InventoryStore, prefix: string): Promise<unknown> {
  const own = (await store.listCollections()).filter(({ collectionId }) =>
    collectionId.startsWith(`${prefix} `),
  );
  return own.sort((a, b) => (a.collectionId < b.collectionId ? -1 : 1));
}

function detailsNamed(name: string) {
  return { name, description: `A ${name}`, price: name.length / 10, collectionId: "" };
}

/** Replaces each time of a store's clock by a constant. Explicit times of the program are kept. */
function withoutTimes(value: unknown): unknown {
  if (Array.isArray(value)) {
    return value.map(withoutTimes);
  }
  if (typeof value === "string") {
    return value.replaceAll(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z/g, "(a time)");
  }
  if (typeof value !== "object" || value === null) {
    return value;
  }
  return Object.fromEntries(
    Object.entries(value).map(([key, inner]: [string, unknown]) => {
      const isClockTime =
        typeof inner === "number" &&
        (key === "updateTimeMs" || key === "changeTimeMs"
          ? inner > PROGRAMS_END_MICROS / 1000
          : key === "declareTimeMicros" && inner > PROGRAMS_END_MICROS);
      return [key, isClockTime ? "(a time)" : withoutTimes(inner)];
    }),
  );
}
