import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { decodeChange } from "../../server/redis/reply.ts";

const FIRST_LINE = "adjusted -7 50 1700000000123456 -7 3 2 1 5 1700000001000 0";
const REST = "\nsku-1\norder-3\n\nsold after\nthe backup";
const CHANGE = {
  cause: "adjusted",
  delta: -7,
  ledger: {
    productId: "sku-1",
    declared: 50,
    declareTimeMicros: 1_700_000_000_123_456,
    adjusted: -7,
    sold: 3,
    reserved: 2,
    safety: 1,
    version: 5,
    deleted: false,
  },
  changeTimeMs: 1_700_000_001_000,
  referenceId: "order-3",
  reason: "sold after\nthe backup",
  actor: "",
  details: undefined,
};

const decode = (text: string) => decodeChange(["1-1", ["c", text]]);

describe("a change record", () => {
  it("of a release without actors has an empty actor", () => {
    assert.deepEqual(decode(FIRST_LINE + REST), CHANGE);
  });

  it("has the actor behind the ledger, where releases without actors ignore it", () => {
    const firstLine = `${FIRST_LINE} Zoë  Smith`;
    assert.deepEqual(decode(firstLine + REST), { ...CHANGE, actor: "Zoë  Smith" });
    // How releases without actors read the line: cause and delta, then nine fields by position.
    const [, , ...ledger] = firstLine.split(" ");
    assert.deepEqual(ledger.slice(0, 9), FIRST_LINE.split(" ").slice(2));
  });

  it("has an empty actor where none is known, and with a ledger without a seller's time", () => {
    const text = "declared 0 0  0 0 0 0 1 1700000001000 0 \np\n\n\n";
    assert.equal(decode(text).actor, "");
    assert.equal(decode(text).ledger.declareTimeMicros, undefined);
  });
});
