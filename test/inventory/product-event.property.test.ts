import assert from "node:assert/strict";
import { randomInt } from "node:crypto";
import { describe, it, type TestContext } from "node:test";
import fc from "fast-check";
import type { TimedCollectionEvent } from "../../server/inventory/collection.ts";
import type { Delivery } from "../../server/inventory/delivery.ts";
import { InventoryError } from "../../server/inventory/errors.ts";
import type { Ledger, ProductDetails } from "../../server/inventory/ledger.ts";
import {
  applyDelete,
  applyUpsert,
  EMPTY_REGISTERS,
  isDeleted,
  type ProductRegisters,
} from "../../server/inventory/product-event.ts";
import type { InventoryStore } from "../../server/inventory/store.ts";
import { MemoryStore } from "../../server/memory/store.ts";

// Set FC_SEED to the seed that a failed run printed to repeat its cases.
const { FC_SEED } = process.env;
const seed = FC_SEED === undefined ? randomInt(2 ** 31) : Number(FC_SEED);

const PRODUCT = "sku-1";
const BASE_MICROS = 1_700_000_000_123_456;

interface Upsert {
  readonly kind: "upsert";
  readonly at: number;
  readonly declared: number | undefined;
  readonly details: ProductDetails | undefined;
  /** Absent for a call. */
  readonly delivery?: Delivery | undefined;
}
interface Delete {
  readonly kind: "delete";
  readonly at: number;
}
interface Adjust {
  readonly kind: "adjust";
  readonly id: string;
  readonly delta: number;
}
interface Count {
  readonly kind: "count";
  readonly id: string;
  readonly count: number;
}
interface Safety {
  readonly kind: "safety";
  readonly safety: number;
}
type SellerEvent = Upsert | Delete;
type Command = SellerEvent | Adjust | Count | Safety;

// Few distinct times, so that ties are common. Small and large numbers, whose sums stay within int32.
const at = fc.integer({ min: 0, max: 6 }).map((step) => BASE_MICROS + step);
const units = fc.oneof(fc.integer({ min: 0, max: 12 }), fc.integer({ min: 0, max: 1_000_000_000 }));
const details = fc
  .constantFrom("Lamp", "Torch", "Bulb")
  .map((name): ProductDetails => ({ name, description: "", price: 5, collectionId: "" }));
const upsert: fc.Arbitrary<Upsert> = fc.record({
  kind: fc.constant("upsert" as const),
  at,
  declared: fc.option(units, { nil: undefined }),
  details: fc.option(details, { nil: undefined }),
});
const deletion: fc.Arbitrary<Delete> = fc.record({ kind: fc.constant("delete" as const), at });
const sellerEvent: fc.Arbitrary<SellerEvent> = fc.oneof({ weight: 3, arbitrary: upsert }, deletion);
/** Places of messages: equal timestamps and, in different partitions, equal offsets are common. */
const deliveries = fc
  .uniqueArray(fc.tuple(fc.nat(2), fc.nat(2), fc.nat(2)), {
    minLength: 9,
    maxLength: 9,
    selector: (place) => place.join(),
  })
  .map((places) => places.map(([timestampMs, offset, partition]) => ({ timestampMs, offset, partition })));
/** Events of which some are messages, each with a place of its own. */
const sellerEvents = fc
  .tuple(
    fc.array(sellerEvent, { minLength: 1, maxLength: 9 }),
    deliveries,
    fc.array(fc.boolean(), { minLength: 9 }),
  )
  .map(([events, places, areMessages]) =>
    events.map(
      (event, index): SellerEvent =>
        event.kind === "upsert" && areMessages[index] === true
          ? { ...event, delivery: places[index] }
          : event,
    ),
  );
const safety: fc.Arbitrary<Safety> = fc.record({ kind: fc.constant("safety" as const), safety: units });

/** Positive adjustments, each with its own ID. */
const receipts: fc.Arbitrary<Adjust[]> = fc
  .array(fc.integer({ min: 1, max: 100_000_000 }), { maxLength: 5 })
  .map((deltas) => deltas.map((delta, index) => ({ kind: "adjust", id: `receipt-${index}`, delta })));

/** The same items in two orders, each with some repetitions. */
function twoOrders<T>(items: readonly T[]): fc.Arbitrary<[T[], T[]]> {
  const oneOrder = fc
    .subarray([...items])
    .map((repeated) => [...items, ...repeated])
    .chain((all) => fc.shuffledSubarray(all, { minLength: all.length }));
  return fc.tuple(oneOrder, oneOrder);
}

/** Of events of one time: the one that was delivered last, or all of them if none was delivered. */
function latest<Event extends { readonly delivery?: Delivery | undefined }>(
  events: readonly Event[],
): readonly Event[] {
  const place = ({ delivery }: Event) =>
    delivery && [delivery.timestampMs, delivery.offset, delivery.partition].join();
  const last = events.map(place).reduce((max, each) => ((each ?? "") > (max ?? "") ? each : max), undefined);
  return events.filter((event) => place(event) === last);
}

/** The final state of a set of events by the rules, independent of their order. */
function verdict(events: readonly Command[]) {
  const upserts = events.filter((event) => event.kind === "upsert");
  const newest = (times: readonly number[]) => (times.length === 0 ? undefined : Math.max(...times));
  const withNumber = upserts.filter((event) => event.declared !== undefined);
  const declareTimeMicros = newest(withNumber.map((event) => event.at));
  const newestNumbers = latest(withNumber.filter((event) => event.at === declareTimeMicros));
  const withDetails = upserts.filter((event) => event.details !== undefined);
  const detailsTimeMicros = newest(withDetails.map((event) => event.at));
  const upsertTimeMicros = newest(upserts.map((event) => event.at));
  const deleteTimeMicros = newest(events.filter((event) => event.kind === "delete").map((event) => event.at));
  return {
    declared: newestNumbers.length === 0 ? 0 : Math.min(...newestNumbers.map((event) => event.declared ?? 0)),
    declareTimeMicros,
    detailsTimeMicros,
    upsertTimeMicros,
    deleteTimeMicros,
    deleted:
      upsertTimeMicros === undefined ||
      (deleteTimeMicros !== undefined && deleteTimeMicros >= upsertTimeMicros),
    /** One, unless calls of the same time give different details; then the first to arrive stays. */
    detailsAllowed:
      detailsTimeMicros === undefined
        ? [undefined]
        : latest(withDetails.filter((event) => event.at === detailsTimeMicros)).map((event) => event.details),
  };
}

function apply(registers: ProductRegisters, event: SellerEvent) {
  return event.kind === "delete" ? applyDelete(registers, event.at) : applyUpsert(registers, event, event.at);
}

const onHandOf = (ledger: Ledger) => ledger.declared + ledger.adjusted - ledger.sold;
const availableOf = (ledger: Ledger) => Math.max(0, onHandOf(ledger) - ledger.reserved - ledger.safety);

/** Runs a command. Resolves with whether it was accepted. Any error but the named ones fails the test. */
async function perform(store: InventoryStore, command: Command): Promise<boolean> {
  const productId = PRODUCT;
  try {
    switch (command.kind) {
      case "upsert": {
        const { declared, details, delivery, at: updateTimeMicros } = command;
        await store.putProduct({ productId, declared, details, delivery, updateTimeMicros });
        return true;
      }
      case "delete":
        await store.deleteProduct({ productId, updateTimeMicros: command.at });
        return true;
      case "adjust":
        await store.adjustStock({ productId, delta: command.delta, adjustmentId: command.id, reason: "" });
        return true;
      case "count":
        await store.countStock({
          productId,
          count: command.count,
          expectedVersion: undefined,
          countId: command.id,
          reason: "",
        });
        return true;
      case "safety":
        await store.setSafetyStock(productId, command.safety);
        return true;
    }
  } catch (error) {
    if (!(error instanceof InventoryError)) {
      throw error;
    }
    const takesUnits = command.kind === "adjust" && command.delta < 0;
    assert.ok(error.code === "PRODUCT_UNKNOWN" || (takesUnits && error.code === "STOCK_OUT_OF_RANGE"), error);
    return false;
  }
}

/** The visible state of the product without its version. Equal states before and after mean no change. */
async function view(store: InventoryStore): Promise<{ version: number; seen: unknown }> {
  const [stock] = await store.batchGetStock([PRODUCT]);
  const ledger = await store.getLedger(PRODUCT).catch(() => undefined);
  const version = ledger?.version ?? 0;
  if (stock !== undefined) {
    assert.equal(stock.version, version);
  }
  const numbers = ledger && { ...ledger, version: undefined };
  return { version, seen: { numbers, available: stock?.available, details: stock?.details } };
}

/** Checks that versions have no gaps or repetitions, and that deltas match the ledgers and add up. */
async function checkChanges(store: InventoryStore): Promise<void> {
  const ledger = await store.getLedger(PRODUCT);
  const changes = (await store.listChanges(PRODUCT, { limit: 100, beforeVersion: undefined })).toReversed();
  assert.deepEqual(
    changes.map((change) => change.ledger.version),
    Array.from({ length: ledger.version }, (_, index) => index + 1),
  );
  assert.deepEqual(changes.at(-1)?.ledger, ledger);
  let availableBefore = 0;
  for (const change of changes) {
    assert.equal(change.delta, availableOf(change.ledger) - availableBefore);
    availableBefore = availableOf(change.ledger);
  }
  const sum = changes.reduce((total, change) => total + change.delta, 0);
  assert.equal(sum, availableOf(ledger));
}

/**
 * Sends the commands in order. An adjustment of an unknown product is retried after each later
 * command, as a client would. Checks each step, and resolves with the final state.
 */
async function deliver(store: InventoryStore, commands: readonly Command[]) {
  const done: Command[] = [];
  const accepted = new Map<string, number>();
  let waiting: Adjust[] = [];
  const adjust = async (command: Adjust) => {
    const isAccepted = await perform(store, command);
    if (isAccepted) {
      accepted.set(command.id, command.delta);
    }
    // A repeated adjustment succeeds whether or not the product still exists.
    assert.equal(isAccepted, accepted.has(command.id));
    assert.ok(isAccepted || verdict(done).deleted, "refused though the product is there");
    return isAccepted;
  };
  for (const command of commands) {
    if (command.kind === "adjust") {
      if (!(await adjust(command))) {
        waiting.push(command);
      }
      continue;
    }
    await perform(store, command);
    done.push(command);
    const stillWaiting: Adjust[] = [];
    for (const late of waiting) {
      if (!(await adjust(late))) {
        stillWaiting.push(late);
      }
    }
    waiting = stillWaiting;
  }
  const { version, ...ledger } = await store.getLedger(PRODUCT);
  const [stock] = await store.batchGetStock([PRODUCT]);
  return { version, ledger, stock, accepted };
}

function check<T>(
  t: TestContext,
  cases: fc.Arbitrary<T>,
  property: (value: T) => Promise<void>,
): Promise<void> {
  t.diagnostic(`FC_SEED=${seed}`);
  return Promise.resolve(fc.assert(fc.asyncProperty(cases, property), { seed, numRuns: 500 }));
}

describe("product events as pure functions", () => {
  it("end in the state that their set determines, in any order and with any repetition", (t) =>
    check(
      t,
      sellerEvents.chain((events) => twoOrders(events)),
      async (orders) => {
        for (const order of orders) {
          const registers = order.reduce((so, event) => apply(so, event).registers, EMPTY_REGISTERS);
          const { deleted, detailsAllowed, ...expected } = verdict(order);
          const { details, declareDelivery: _, detailsDelivery: __, ...fences } = registers;
          assert.deepEqual(fences, expected);
          assert.equal(isDeleted(registers), deleted);
          assert.ok(detailsAllowed.some((allowed) => allowed?.name === details?.name));
        }
      },
    ));

  it("change nothing when repeated", (t) =>
    check(t, fc.tuple(fc.array(sellerEvent, { maxLength: 9 }), sellerEvent), async ([earlier, event]) => {
      const before = earlier.reduce((so, one) => apply(so, one).registers, EMPTY_REGISTERS);
      const once = apply(before, event);
      const twice = apply(once.registers, event);
      assert.deepEqual(twice.registers, once.registers);
      assert.equal(twice.cause, undefined);
      assert.equal(twice.applied, once.applied);
      assert.equal(twice.changed, false);
    }));

  it("change nothing when sent again later, unless another event of the same time came between", (t) =>
    check(t, fc.tuple(sellerEvents, sellerEvent, fc.nat(5)), async ([earlier, event, later]) => {
      const before = earlier.reduce((so, one) => apply(so, one).registers, EMPTY_REGISTERS);
      const deliver = (registers: ProductRegisters, timestampMs: number) =>
        apply(
          registers,
          event.kind === "upsert" ? { ...event, delivery: { timestampMs, offset: 0, partition: 0 } } : event,
        );
      const once = deliver(before, 10);
      const again = deliver(once.registers, 10 + later);
      assert.equal(again.changed, false);
      assert.equal(again.cause, undefined);
      const { declareDelivery: _, detailsDelivery: __, ...state } = once.registers;
      const { declareDelivery: ___, detailsDelivery: ____, ...after } = again.registers;
      assert.deepEqual(after, state);
    }));
});

describe("collection events", () => {
  const collectionEvents = fc
    .tuple(
      fc.array(fc.record({ step: fc.nat(2), name: fc.option(fc.constantFrom("A", "B", "C"), { freq: 5 }) }), {
        minLength: 1,
        maxLength: 9,
      }),
      deliveries,
    )
    .map(([events, places]) =>
      events.map(({ step, name }, index): TimedCollectionEvent => {
        const collectionId = "c";
        const collection = name === null ? undefined : { collectionId, name, description: "" };
        const updateTimeMicros = BASE_MICROS + step;
        return { collectionId, collection, updateTimeMicros, delivery: places[index] };
      }),
    );

  it("end in the state that their set determines; an event returns whether it changed anything", (t) =>
    check(
      t,
      collectionEvents.chain((events) => twoOrders(events)),
      async (orders) => {
        for (const order of orders) {
          const newest = Math.max(...order.map((event) => event.updateTimeMicros));
          const tied = order.filter((event) => event.updateTimeMicros === newest);
          const isDeleted = tied.some((event) => event.collection === undefined);
          const store = new MemoryStore();
          for (const event of order) {
            await store.putCollection(event);
            assert.equal((await store.putCollection(event)).changed, false);
          }
          const expected = isDeleted
            ? []
            : latest(tied)
                .slice(0, 1)
                .map((event) => event.collection);
          assert.deepEqual(await store.listCollections(), expected);
        }
      },
    ));
});

describe("product events and receipts in a store", () => {
  it("end in the same ledger, in any order and with any repetition", (t) =>
    check(
      t,
      fc.tuple(sellerEvents, receipts).chain(([events, received]) => twoOrders([...events, ...received])),
      async (orders) => {
        const ends = [];
        for (const order of orders) {
          const store = new MemoryStore();
          const end = await deliver(store, order);
          const expected = verdict(order);
          assert.deepEqual(end.ledger, {
            productId: PRODUCT,
            declared: expected.declared,
            declareTimeMicros: expected.declareTimeMicros,
            adjusted: [...end.accepted.values()].reduce((sum, delta) => sum + delta, 0),
            sold: 0,
            reserved: 0,
            safety: 0,
            deleted: expected.deleted,
          });
          assert.equal(end.stock === undefined, expected.deleted);
          if (end.stock !== undefined) {
            const shown = end.stock.details?.name;
            assert.ok(expected.detailsAllowed.some((allowed) => allowed?.name === shown));
          }
          await checkChanges(store);
          ends.push(end);
        }
        const [one, other] = ends;
        // Receipts are retried until the product exists, so an existing product has all of them.
        if (one?.ledger.deleted === false) {
          assert.deepEqual(one.ledger, other?.ledger);
        }
      },
    ));

  it("end in the same ledger with every receipt, if nothing is deleted", (t) =>
    check(
      t,
      fc
        .tuple(fc.array(upsert, { minLength: 1, maxLength: 9 }), receipts)
        .chain(([events, received]) => twoOrders<Command>([...events, ...received])),
      async ([one, other]) => {
        const received = new Map(one.flatMap((c) => (c.kind === "adjust" ? [[c.id, c.delta]] : [])));
        const [first, second] = [new MemoryStore(), new MemoryStore()];
        const { ledger, accepted } = await deliver(first, one);
        assert.deepEqual(accepted, received);
        assert.deepEqual((await deliver(second, other)).ledger, ledger);
      },
    ));

  it("increment the version by one for each visible change, and otherwise not", (t) =>
    check(
      t,
      fc.tuple(sellerEvents, receipts, fc.array(safety, { maxLength: 3 })).chain((parts) => {
        const all: Command[] = parts.flat();
        return twoOrders(all);
      }),
      async ([commands]) => {
        const store = new MemoryStore();
        const done: Command[] = [];
        for (const command of commands) {
          const before = await view(store);
          await perform(store, command);
          done.push(command);
          const after = await view(store);
          const isSeen = JSON.stringify(before.seen) !== JSON.stringify(after.seen);
          const growth = after.version - before.version;
          assert.equal(growth, isSeen ? 1 : 0);
        }
      },
    ));
});

describe("counts among product events, adjustments and safety stock", () => {
  const program = fc.array(
    fc.oneof(
      { weight: 3, arbitrary: sellerEvent },
      { weight: 2, arbitrary: fc.record({ kind: fc.constant("count" as const), count: units }) },
      {
        weight: 2,
        arbitrary: fc.record({
          kind: fc.constant("adjust" as const),
          delta: fc.integer({ min: -20, max: 20 }).filter((delta) => delta !== 0),
        }),
      },
      safety,
    ),
    { minLength: 1, maxLength: 25 },
  );

  it("set on hand to the count; every other operation changes it by its own difference", (t) =>
    check(t, program, async (steps) => {
      const store = new MemoryStore();
      const start = { productId: PRODUCT, declared: 7, details: undefined, updateTimeMicros: BASE_MICROS };
      await store.putProduct(start);
      for (const [index, step] of steps.entries()) {
        const command: Command =
          step.kind === "count" || step.kind === "adjust" ? { ...step, id: `step-${index}` } : step;
        const before = await store.getLedger(PRODUCT);
        const accepted = await perform(store, command);
        const after = await store.getLedger(PRODUCT);
        if (command.kind === "count" && accepted) {
          assert.equal(onHandOf(after), command.count);
          assert.equal(after.declared, before.declared);
        } else if (command.kind === "adjust" && accepted) {
          assert.equal(onHandOf(after), onHandOf(before) + command.delta);
          assert.ok(command.delta > 0 || onHandOf(after) >= 0);
        } else {
          assert.equal(after.adjusted, before.adjusted);
        }
        assert.equal(accepted || before.deleted || command.kind === "adjust", true);
      }
      await checkChanges(store);
    }));
});
