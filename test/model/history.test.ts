import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { describe, it } from "node:test";
import { MemoryStore } from "../../server/memory/store.ts";
import { type Answer, told } from "./calls.ts";
import { type Ask, Dice, Round } from "./clients.ts";
import { judge, partsOf } from "./history.ts";
import { APART, EXPLAINED, HARD, IMPOSSIBLE, SENT_TWICE } from "./made-histories.ts";
import { askOf, audit, REPEATING, ROUNDS, STRICT, seedOf, Tally, withSweeper } from "./rounds.ts";

const CLIENTS = 56;
const SHOPS = 6;
const CALLS_PER_CLIENT = 12;
const FAULTY_ROUNDS_MAX = 10;
const RUN = randomUUID().slice(0, 8);

describe("the checker of histories", () => {
  for (const [name, history] of Object.entries(IMPOSSIBLE)) {
    it(`refuses ${name}`, () => {
      for (const rules of [STRICT, REPEATING]) {
        const { kind, story } = judge(history, rules);
        assert.equal(kind, "impossible");
        assert.match(story, /answers can be explained/);
      }
    });
  }

  for (const [name, history] of Object.entries(EXPLAINED)) {
    it(`explains ${name}`, () => {
      for (const rules of [STRICT, REPEATING]) {
        const { kind, story } = judge(history, rules);
        assert.equal(kind, "explained", story);
      }
    });
  }

  it("explains an answer of later only where the store may have sent the call twice", () => {
    assert.equal(judge(SENT_TWICE, REPEATING).kind, "explained");
    assert.equal(judge(SENT_TWICE, STRICT).kind, "impossible");
  });

  it("judges apart what has nothing in common, and together what a reservation joins", () => {
    assert.equal(partsOf(APART.slice(0, -1)).length, 5);
    assert.deepEqual(
      partsOf(APART).map((part) => part.length),
      [4, 1, 1],
    );
  });

  it("says that it does not know where it would take too long", () => {
    assert.equal(judge(HARD, { mayRepeat: true, stepsMax: 100 }).kind, "undecided");
  });
});

/** A store whose calls and answers are under way for a while, so that calls overlap. */
function slowly(inner: Ask, dice: Dice): Ask {
  const delay = async () => {
    for (let turns = dice.roll(8); turns > 0; turns--) {
      await new Promise((resolve) => setImmediate(resolve));
    }
  };
  return async (call) => {
    await delay();
    const answer = await inner(call);
    await delay();
    return answer;
  };
}

/** Loses one answer in `every`: half of the calls have happened, half have not. */
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

/** Stores that break one promise each, now and then. */
const FAULTY: Readonly<Record<string, (inner: Ask, dice: Dice) => Ask>> = {
  "sells a unit that is not there": (inner, dice) => async (call) => {
    const answer = await inner(call);
    return call.kind === "reserve" && answer?.includes("STOCK_SHORT") && dice.roll(10) === 0
      ? told({ state: "active", lines: call.lines, committedLines: [], revived: false })
      : answer;
  },
  "forgets which adjustments it made": (inner) => async (call) =>
    inner(call.kind === "adjust" ? { ...call, adjustmentId: randomUUID() } : call),
  "answers from a cache": (inner, dice) => {
    const cache = new Map<string, Answer>();
    return async (call) => {
      const key = JSON.stringify(call);
      const cached = cache.get(key);
      if (call.kind === "stock" && cached !== undefined && dice.roll(5) === 0) {
        return cached;
      }
      const answer = await inner(call);
      if (answer !== undefined) {
        cache.set(key, answer);
      }
      return answer;
    };
  },
  "acknowledges a release that it does not do": (inner, dice) => async (call) => {
    if (call.kind !== "release" || dice.roll(10) !== 0) {
      return inner(call);
    }
    const answer = await inner({ kind: "get", reservationId: call.reservationId });
    return answer?.replace('"active"', '"released"');
  },
};

/** Sends everything twice and gives the second answer, as a store may whose first answer was lost on the way. */
function sendingTwice(inner: Ask): Ask {
  return async (call) => {
    if (call.kind !== "safety") {
      await inner(call);
      await new Promise((resolve) => setImmediate(resolve));
    }
    return inner(call);
  };
}

describe("histories of random clients on MemoryStore", () => {
  const roundOf = (name: string, seed: number, given: Ask) =>
    new Round({
      ...{ name: `${RUN}.${name}`, seed, clients: CLIENTS, shops: SHOPS, callsPerClient: CALLS_PER_CLIENT },
      asks: [given],
    });

  it("have an explanation, also where answers are lost", async (t) => {
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

  it("have an explanation where the store sends twice, if it may", async (t) => {
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
    it(`have none where the store ${name}`, async (t) => {
      const seed = seedOf(t);
      const refused: string[] = [];
      // One round in ten has an explanation all the same.
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
