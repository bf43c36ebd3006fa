import fc from "fast-check";
import type { Line } from "../../server/inventory/reservation.ts";
import type { Call } from "./calls.ts";

/** A step of a random program: a call or a sweep. */
export type Command = Call | { readonly kind: "expireDue"; readonly limit: number };

export const PRODUCT_IDS = ["p1", "p2", "p3"] as const;
export const RESERVATION_IDS = ["r1", "r2", "r3", "r4", "r5"] as const;
/** A time to live that has passed at the next reading of the clock. */
export const SHORT_MS = 1;
export const LONG_MS = 3_600_000;
const BASE_MICROS = 1_700_000_000_123_456;

// Narrow ranges, so that shortages, ties, repetitions and reused IDs are common.
const productId = fc.constantFrom(...PRODUCT_IDS);
const reservationId = fc.constantFrom(...RESERVATION_IDS);
const micros = fc.nat(12).map((later) => BASE_MICROS + later);
const ttlMs = fc.constantFrom(SHORT_MS, LONG_MS, LONG_MS);
const lines = fc.uniqueArray(fc.record({ productId, quantity: fc.integer({ min: 1, max: 4 }) }), {
  minLength: 1,
  maxLength: PRODUCT_IDS.length,
  selector: (line) => line.productId,
});
/** The usual lines of a reservation, so that a repeated ID usually has the same lines. */
const USUAL: Readonly<Record<(typeof RESERVATION_IDS)[number], readonly Line[]>> = {
  r1: [{ productId: "p1", quantity: 2 }],
  r2: [
    { productId: "p1", quantity: 1 },
    { productId: "p2", quantity: 3 },
  ],
  r3: [
    { productId: "p2", quantity: 2 },
    { productId: "p1", quantity: 4 },
  ],
  r4: [
    { productId: "p3", quantity: 1 },
    { productId: "p2", quantity: 1 },
    { productId: "p1", quantity: 1 },
  ],
  r5: [{ productId: "p2", quantity: 5 }],
};
/** A part of the usual lines of a reservation. */
const some = (of: readonly Line[]) =>
  fc
    .shuffledSubarray([...of], { minLength: 1 })
    .chain((chosen) =>
      fc
        .tuple(...chosen.map((line) => fc.integer({ min: 1, max: line.quantity })))
        .map((quantities) => chosen.map((line, index) => ({ ...line, quantity: quantities[index] ?? 1 }))),
    );
const just = <const Kind extends string>(kind: Kind) => fc.constant(kind);

const supply: fc.Arbitrary<Command> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      kind: just("put"),
      productId,
      declared: fc.option(fc.nat(14), { nil: undefined, freq: 6 }),
      micros,
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: just("delete"), productId, micros }) },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: just("count"),
      productId,
      count: fc.nat(14),
      expectedVersion: fc.option(fc.nat(20), { nil: undefined, freq: 2 }),
      countId: fc.constantFrom("c1", "c2", "c3"),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: just("adjust"),
      productId,
      delta: fc.integer({ min: -4, max: 8 }).filter((delta) => delta !== 0),
      adjustmentId: fc.constantFrom("a1", "a2", "a3", "a4"),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: just("safety"), productId, safety: fc.nat(3) }) },
);

const reservation: fc.Arbitrary<Command> = reservationId.chain((id) => {
  const reservationId = fc.constant(id);
  const usual = fc.constant(USUAL[id]);
  const part = fc.oneof({ weight: 5, arbitrary: some(USUAL[id]) }, { weight: 1, arbitrary: lines });
  return fc.oneof(
    {
      weight: 8,
      arbitrary: fc.record({
        kind: just("reserve"),
        reservationId,
        lines: fc.oneof({ weight: 6, arbitrary: usual }, { weight: 1, arbitrary: lines }),
        ttlMs,
      }),
    },
    {
      weight: 6,
      arbitrary: fc.record({
        kind: just("commit"),
        reservationId,
        lines: fc.option(part, { nil: undefined, freq: 3 }),
        strict: fc.boolean(),
      }),
    },
    { weight: 1, arbitrary: fc.record({ kind: just("release"), reservationId }) },
    { weight: 2, arbitrary: fc.record({ kind: just("extend"), reservationId, ttlMs }) },
    {
      weight: 5,
      arbitrary: fc.record({
        kind: just("return"),
        reservationId,
        returnId: fc.constantFrom("t1", "t2", "t3", "t4"),
        lines: part,
      }),
    },
    { weight: 2, arbitrary: fc.record({ kind: just("expireDue"), limit: fc.constantFrom(1, 100) }) },
    { weight: 1, arbitrary: fc.record({ kind: just("get"), reservationId }) },
  );
});

const reading: fc.Arbitrary<Command> = fc.record({ kind: fc.constantFrom("ledger", "stock"), productId });

/** Sequential commands. Most programs start with stock, because otherwise most commands are rejected. */
export const program: fc.Arbitrary<Command[]> = fc
  .tuple(
    fc.array(fc.integer({ min: 3, max: 12 }), { minLength: 2, maxLength: PRODUCT_IDS.length }),
    fc.array(
      fc.oneof(
        { weight: 2, arbitrary: supply },
        { weight: 6, arbitrary: reservation },
        { weight: 1, arbitrary: reading },
      ),
      { minLength: 1, maxLength: 70, size: "max" },
    ),
  )
  .map(([stocked, commands]) => [...stocked.map(declared), ...commands]);

/** Bursts of concurrent commands. */
export const bursts: fc.Arbitrary<Command[][]> = fc
  .tuple(
    fc.array(fc.integer({ min: 3, max: 12 }), { minLength: 2, maxLength: PRODUCT_IDS.length }),
    fc.array(
      fc.array(fc.oneof({ weight: 1, arbitrary: supply }, { weight: 4, arbitrary: reservation }), {
        minLength: 1,
        maxLength: 16,
        size: "max",
      }),
      { minLength: 1, maxLength: 6, size: "max" },
    ),
  )
  .map(([stocked, groups]) => [stocked.map(declared), ...groups]);

function declared(units: number, index: number): Command {
  const id = PRODUCT_IDS[index] ?? PRODUCT_IDS[0];
  return { kind: "put", productId: id, declared: units, micros: BASE_MICROS };
}

/** The command with IDs that are unique to its program, because programs share a store. */
export function prefixed<T extends Command>(command: T, prefix: string): T {
  const text = JSON.stringify(command, (key, value: unknown) =>
    /Id$/.test(key) && typeof value === "string" ? `${prefix}.${value}` : value,
  );
  return JSON.parse(text) as T;
}
