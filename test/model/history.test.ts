import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { describe, it } from "node:test";
import { MemoryStore } from "../../server/memory/store.ts";
import { type Result, reservationText } from "./calls.ts";
import { type Ask, Dice, Round } from "./clients.ts";
import { judge, partsOf } from "./history.ts";
import { askOf, audit, REPEATING, ROUNDS, STRICT, seedOf, Tally, withSweeper } from "./rounds.ts";
import { APART, EXPLAINED, HARD, IMPOSSIBLE, SENT_TWICE } from "./sample-histories.ts";

const CLIENTS = 56;
const SHOPS = 6;
const CALLS_PER_CLIENT = 12;
const FAULTY_ROUNDS_MAX = 10;
const RUN = randomUUID().slice(0, 8);

describe("the linearizability checker", () => {
  for (const [name, history] of Object.entries(IMPOSSIBLE)) {
    it(`rejects ${name}`, () => {
      for (const rules of [STRICT, REPEATING]) {
        const { kind, story } = judge(history, rules);
        assert.equal(kind, "impossible");
        assert.match(story, /results can be explained/);
      }
    });
  }

  for (const [name, history] of Object.entries(EXPLAINED)) {
    it(`accepts ${name}`, () => {
      for (const rules of [STRICT, REPEATING]) {
        const { kind, story } = judge(history, rules);
        assert.equal(kind, "explained", story);
      }
    });
  }

  it("accepts a result of a later state only if the store may have resent the call", () => {
    assert.equal(judge(SENT_TWICE, REPEATING).kind, "explained");
    assert.equal(judge(SENT_TWICE, STRICT).kind, "impossible");
  });

  it("checks unrelated objects separately, and the products of a reservation together", () => {
    assert.equal(partsOf(APART.slice(0, -1)).length, 5);
    assert.deepEqual(
      partsOf(APART).map((part) => part.length),
      [4, 1, 1],
    );
  });

  it("reports an unknown verdict after the maximum number of steps", () => {
    assert.equal(judge(HARD, { mayRepeat: true, stepsMax: 100 }).kind, "undecided");
  });
});

/** A store whose calls and results are under way for a while, so that calls overlap. */
function slowly(inner: Ask, dice: Dice): Ask {
  const delay = async () => {
    for (let turns = dice.roll(8); turns > 0; turns--) {
      await new Promise((resolve) => setImmediate(resolve));
    }
  };
  return async (call) => {
    await delay();
    const result = await inner(call);
    await delay();
    return result;
  };
}

/** Loses one result in `every`: half of the calls have happened, half have not. */
function losing(inner: Ask, dice: Dice, every: number): Ask {
  return async (call) => {
    if (dice.roll(every) !== 0) {
      return await inner(call);
    }
    if (dice.roll(2) === 0) {
      await inner(call);
    }
    return undefined;
  };
}

/** Stores that each violate one rule, occasionally. */
const FAULTY: Readonly<Record<string, (inner: Ask, dice: Dice) => Ask>> = {
  "sells a unit that is not there": (inner, dice) => async (call) => {
    const result = await inner(call);
    return call.kind === "reserve" && result?.includes("STOCK_SHORT") && dice.roll(10) === 0
      ? reservationText({ state: "active", lines: call.lines, committedLines: [], revived: false })
      : result;
  },
  "does not recognize repeated adjustments": (inner) => async (call) =>
    inner(call.kind === "adjust" ? { ...call, adjustmentId: randomUUID() } : call),
  "reads from a stale cache": (inner, dice) => {
    const cache = new Map<string, Result>();
    return async (call) => {
      const key = JSON.stringify(call);
      const cached = cache.get(key);
      if (call.kind === "stock" && cached !== undefined && dice.roll(5) === 0) {
        return cached;
      }
      const result = await inner(call);
      if (result !== undefined) {
        cache.set(key, result);
      }
      return result;
    };
  },
  "acknowledges a release without applying it": (inner, dice) => async (call) => {
    if (call.kind !== "release" || dice.roll(10) !== 0) {
      return inner(call);
    }
    const result = await inner({ kind: "get", reservationId: call.reservationId });
    return result?.replace('"active"', '"released"');
  },
};

/** Sends every call twice and returns the second result, as a store may do after a lost reply. */
function sendingTwice(inner: Ask): Ask {
  return async (call) => {
    if (call.kind !== "safety") {
      await inner(call);
      await new Promise((resolve) => setImmediate(resolve));
    }
    return inner(call);
  };
}

describe("histories of random clients of MemoryStore", () => {
  const roundOf = (name: string, seed: number, given: Ask) =>
    new Round({
      ...{ name: `${RUN}.${name}`, seed, clients: CLIENTS, shops: SHOPS, callsPerClient: CALLS_PER_CLIENT },
      asks: [given],
    });

  it("are linearizable, also with lost responses", async (t) => {
    const tally = new Tally(CLIENTS);
    const seed = seedOf(t);
    for (let n = 0; n < 4 * ROUNDS; n++) {
      const store = new MemoryStore();
      const dice = new Dice(seed + n);
      const reliable = slowly(askOf(store), dice);
      const round = roundOf(`m${n}`, seed + n, n % 2 === 0 ? reliable : losing(reliable, dice, 8));
      await withSweeper(store, () => round.run());
      await audit(store, round);
      tally.judge(round, STRICT);
    }
    t.diagnostic(String(tally));
  });

  it("are linearizable if the store resends calls and the checker allows it", async (t) => {
    const tally = new Tally(CLIENTS);
    const seed = seedOf(t);
    const store = new MemoryStore();
    const round = roundOf("twice", seed, slowly(sendingTwice(askOf(store)), new Dice(seed)));
    await withSweeper(store, () => round.run());
    tally.judge(round, REPEATING);
    assert.equal(judge(round.history, STRICT).kind, "impossible");
    t.diagnostic(String(tally));
  });

  for (const [name, spoil] of Object.entries(FAULTY)) {
    it(`are not linearizable if the store ${name}`, async (t) => {
      const seed = seedOf(t);
      const refused: string[] = [];
      // About one round in ten is linearizable despite the fault.
      for (let n = 0; n < FAULTY_ROUNDS_MAX && !refused.includes("impossible"); n++) {
        const store = new MemoryStore();
        const dice = new Dice(seed + n);
        const round = roundOf(`f${n}`, seed + n, slowly(spoil(askOf(store), dice), dice));
        await round.run();
        refused.push(judge(round.history, STRICT).kind);
      }
      assert.ok(refused.includes("impossible"), String(refused));
    });
  }
});
