import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ACTOR_BYTES_MAX, callerActor, topicActor } from "../../server/inventory/actor.ts";

describe("the actor of a caller", () => {
  for (const name of ["orders", "auth0|5f7c", "spiffe://shop/orders", "Zoë Smith", "system", "kafka"]) {
    it(`is its name: ${name}`, () => assert.equal(callerActor(name), name));
  }

  for (const [name, actor] of [
    ["system:expiry", "caller:system:expiry"],
    ["kafka:product", "caller:kafka:product"],
    ["a\nb\tc", "a\uFFFDb\uFFFDc"],
    ["a\u202Eb\u2028c\u0085d", "a\uFFFDb\uFFFDc\uFFFDd"],
    ["a\uD800b", "a\uFFFDb"],
  ] as const) {
    it(`is ${JSON.stringify(actor)} for ${JSON.stringify(name)}`, () =>
      assert.equal(callerActor(name), actor));
  }

  it("has at most 255 bytes, and ends with a whole character", () => {
    assert.equal(callerActor("x".repeat(255)), "x".repeat(255));
    assert.equal(callerActor("x".repeat(256)), "x".repeat(255));
    assert.equal(callerActor("€".repeat(100)), "€".repeat(85));
    assert.equal(callerActor(`${"x".repeat(254)}€`), "x".repeat(254));
    assert.equal(callerActor(`system:${"x".repeat(300)}`).length, ACTOR_BYTES_MAX);
  });
});

it("the actor of the longest topic is within the bound", () => {
  assert.equal(topicActor("t".repeat(249)).length, ACTOR_BYTES_MAX);
});
