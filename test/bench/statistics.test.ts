import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { lineOf } from "./outcome.ts";
import { quantile, ratios, spreadOf } from "./statistics.ts";

describe("the statistics of the benchmarks", () => {
  it("take the middle sample as the median, or the mean of the two middle ones", () => {
    assert.deepEqual(spreadOf([9, 1, 5]), { median: 5, min: 1, max: 9 });
    assert.deepEqual(spreadOf([10, 1, 2, 4]), { median: 3, min: 1, max: 10 });
    assert.deepEqual(spreadOf([7]), { median: 7, min: 7, max: 7 });
    assert.throws(() => spreadOf([]), RangeError);
  });

  it("take as a quantile the smallest sample that this share does not exceed", () => {
    const hundred = Array.from({ length: 100 }, (_, index) => 100 - index);
    assert.equal(quantile(hundred, 0.99), 99);
    assert.equal(quantile(hundred, 0.5), 50);
    assert.equal(quantile(hundred, 1), 100);
    assert.equal(quantile([3, 1, 2], 0.99), 3);
  });

  it("compare by round, not by median", () => {
    assert.deepEqual(ratios([10, 1, 100], [5, 1, 10]), [2, 1, 10]);
    const peer = { name: "peer", there: [5, 1, 10] };
    const line = lineOf({ what: "", unit: "", here: [10, 1, 100], peer, target: { atLeast: 2 } });
    assert.deepEqual(line.peer?.ratio, { median: 2, min: 1, max: 10 });
    assert.equal(line.isMet, true);
  });

  it("compare the target with the ratio if there is a peer, else with the figure", () => {
    const peer = { name: "peer", there: [100] };
    assert.equal(lineOf({ what: "", unit: "", here: [50], peer, target: { atLeast: 0.6 } }).isMet, false);
    assert.equal(lineOf({ what: "", unit: "", here: [50], target: { atMost: 50 } }).isMet, true);
    assert.equal(lineOf({ what: "", unit: "", here: [51], target: { atMost: 50 } }).isMet, false);
    assert.equal(lineOf({ what: "", unit: "", here: [51] }).isMet, undefined);
  });
});
