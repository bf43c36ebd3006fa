import assert from "node:assert/strict";
import { randomInt } from "node:crypto";
import { describe, it } from "node:test";
import { toJsonString } from "@bufbuild/protobuf";
import fc from "fast-check";
import { StockChangedSchema } from "../../gen/inventory/v1/supply_pb.ts";
import { CHANGE_CAUSES, QUANTITY_MAX, type StockChange } from "../../server/inventory/ledger.ts";
import { stockChangedJson, toStockChanged } from "../../server/wire/stock-changed.ts";

const { FC_SEED } = process.env;
const seed = FC_SEED === undefined ? randomInt(2 ** 31) : Number(FC_SEED);

const RUNS = 2_000;
/** Sums of int32 numbers may exceed int32. */
const sum = fc.oneof(fc.integer(), fc.integer({ min: -8 * QUANTITY_MAX, max: 8 * QUANTITY_MAX }));
const quantity = fc.oneof(fc.constant(0), fc.nat(QUANTITY_MAX));
const text = fc.string({ unit: "binary", maxLength: 20 });
/** With trailing zeros in the fraction, because they determine how many digits are written. Also before 1970. */
const micros = fc
  .tuple(
    fc.integer({ min: -2_000_000_000, max: 8_000_000_000 }),
    fc.constantFrom(1, 1_000, 1_000_000),
    fc.nat(999_999),
  )
  .map(([second, step, micro]) => second * 1_000_000 + Math.floor(micro / step) * step);

const change: fc.Arbitrary<StockChange> = fc.record({
  cause: fc.constantFrom(...CHANGE_CAUSES),
  delta: sum,
  ledger: fc.record({
    productId: text,
    declared: quantity,
    declareTimeMicros: fc.option(micros, { nil: undefined }),
    adjusted: sum,
    sold: sum,
    reserved: sum,
    safety: quantity,
    version: fc.maxSafeNat(),
    deleted: fc.boolean(),
  }),
  changeTimeMs: micros.map((each) => Math.floor(each / 1_000)),
  referenceId: text,
  reason: text,
  actor: text,
  details: fc.constant(undefined),
});

describe("stockChangedJson", () => {
  it("writes the same JSON as protobuf-es", (t) => {
    t.diagnostic(`FC_SEED=${seed}`);
    fc.assert(
      fc.property(change, (each) => {
        const written = toJsonString(StockChangedSchema, toStockChanged(each), { alwaysEmitImplicit: true });
        assert.equal(stockChangedJson(each), written);
      }),
      { seed, numRuns: RUNS },
    );
  });
});
