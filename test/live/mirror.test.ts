import assert from "node:assert/strict";
import { describe, it, mock } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import fc from "fast-check";
import type { ProductState } from "../../server/inventory/feed.ts";
import type { ProductDetails, StockChange } from "../../server/inventory/ledger.ts";
import { Mirror, type MirrorChange, STALE_AFTER_MS } from "../../server/live/mirror.ts";
import { changeTo, detailsOf, load, loadedMirror, seedOf, stateOf } from "./states.ts";

/** A product's history: the state after each change, and the change as the stream reports it. */
interface Step {
  readonly state: ProductState;
  readonly change: StockChange;
}

const life = fc.array(
  fc.record({
    available: fc.nat(100),
    /** New details; absent if they do not change. */
    name: fc.option(fc.constantFrom("a", "b", "c"), { nil: undefined, freq: 3 }),
    deleted: fc.boolean(),
  }),
  { minLength: 1, maxLength: 12 },
);

function stepsOf(productId: string, what: typeof life extends fc.Arbitrary<infer T> ? T : never): Step[] {
  let details: ProductDetails | undefined;
  return what.map(({ available, name, deleted }, index) => {
    const changed = name === undefined ? undefined : detailsOf(name);
    details = changed ?? details;
    const state = stateOf(productId, index + 1, { available, deleted, details });
    return { state, change: changeTo(state, changed) };
  });
}

/** Histories of some products, the state of each in the full load, and where the stream begins. */
const history = fc
  .array(fc.record({ life, taken: fc.nat(12), start: fc.nat(12) }), { minLength: 1, maxLength: 5 })
  .map((products) =>
    products.map(({ life, taken, start }, n) => {
      const steps = stepsOf(`p${n}`, life);
      const loaded = Math.min(taken, steps.length);
      return { steps, loaded, streamFrom: Math.min(start, loaded) };
    }),
  );

/** Interleaves queues in an order that the numbers choose. Each queue keeps its own order. */
function interleave<T>(queues: readonly (readonly T[])[], choices: readonly number[]): T[] {
  const rest = queues.map((queue) => [...queue]);
  const merged: T[] = [];
  for (let turn = 0; rest.some((queue) => queue.length > 0); turn++) {
    const open = rest.filter((queue) => queue.length > 0);
    const next = open[(choices[turn % choices.length] ?? 0) % open.length]?.shift();
    if (next !== undefined) {
      merged.push(next);
    }
  }
  return merged;
}

const choices = fc.array(fc.nat(1_000), { minLength: 1, maxLength: 80 });

/** Collects the changes that the mirror emits. Each continues the one before, and versions never decrease. */
function follow(mirror: Mirror): Map<string, ProductState> {
  const states = new Map<string, ProductState>();
  mirror.on("change", (changes: readonly MirrorChange[]) => {
    assert.equal(new Set(changes.map(({ after }) => after.productId)).size, changes.length, "each once");
    for (const { before, after } of changes) {
      assert.deepEqual(before, states.get(after.productId), "it continues the change before");
      assert.ok(after.version > (before?.version ?? 0), "it is newer");
      states.set(after.productId, after);
    }
  });
  return states;
}

const withoutDetails = ({ details: _, ...rest }: ProductState): Omit<ProductState, "details"> => rest;

describe("Mirror: versions", () => {
  it("has the newest state for every interleaving of full load, stream and repeated changes", (t) => {
    fc.assert(
      fc.property(history, choices, choices, fc.nat(100), (products, order, repeats, loadedAt) => {
        const mirror = new Mirror();
        const emitted = follow(mirror);
        const events = interleave(
          products.flatMap(({ steps, loaded, streamFrom }) => {
            const state = loaded === 0 ? undefined : steps[loaded - 1]?.state;
            const stream = steps.slice(streamFrom).map(({ change }) => ({ change }));
            const again = stream.filter((_, n) => (repeats[n % repeats.length] ?? 0) % 2 === 0);
            return [state === undefined ? [] : [{ state }], stream, again] as {
              state?: ProductState;
              change?: StockChange;
            }[][];
          }),
          order,
        );
        const lastPicture = events.findLastIndex(({ state }) => state !== undefined);
        const end = Math.max(lastPicture + 1, Math.min(loadedAt, events.length));
        mirror.onLoading(false);
        for (const [index, { state, change }] of events.entries()) {
          if (index === end) {
            mirror.onLoaded();
          }
          if (state !== undefined) {
            mirror.onProducts([state]);
          } else if (change !== undefined) {
            mirror.onChanges([change]);
          }
        }
        if (end === events.length) {
          mirror.onLoaded();
        }
        for (const { steps } of products) {
          const newest = steps.at(-1)?.state;
          const found = emitted.get(newest?.productId ?? "");
          assert.deepEqual(found && withoutDetails(found), newest && withoutDetails(newest));
          assert.equal(mirror.get(newest?.productId ?? "") === undefined, newest?.deleted);
        }
      }),
      { seed: seedOf(t), numRuns: 500 },
    );
  });

  it("has the newest details if a product is loaded before its changes", (t) => {
    fc.assert(
      fc.property(history, choices, fc.integer({ min: 1, max: 6 }), (products, order, batch) => {
        const mirror = new Mirror();
        const emitted = follow(mirror);
        load(
          mirror,
          products.flatMap(({ steps, loaded }) => (loaded === 0 ? [] : (steps[loaded - 1]?.state ?? []))),
        );
        const stream = interleave(
          products.map(({ steps, streamFrom }) => steps.slice(streamFrom).map(({ change }) => change)),
          order,
        );
        for (let n = 0; n < stream.length; n += batch) {
          mirror.onChanges(stream.slice(n, n + batch));
        }
        for (const { steps } of products) {
          const newest = steps.at(-1)?.state;
          assert.deepEqual(emitted.get(newest?.productId ?? ""), newest);
          assert.deepEqual(mirror.current(newest?.productId ?? ""), newest);
        }
      }),
      { seed: seedOf(t), numRuns: 500 },
    );
  });

  it("keeps the details of the previous change, also in one batch", () => {
    const mirror = loadedMirror([]);
    mirror.onChanges([
      changeTo(stateOf("p", 1), detailsOf("first")),
      changeTo(stateOf("p", 2)),
      changeTo(stateOf("q", 1), detailsOf("other")),
      changeTo(stateOf("p", 3), detailsOf("second")),
      changeTo(stateOf("p", 4)),
    ]);
    assert.deepEqual(mirror.get("p"), stateOf("p", 4, { details: detailsOf("second") }));
    mirror.onChanges([changeTo(stateOf("p", 5))]);
    assert.equal(mirror.get("p")?.details?.name, "second");
    mirror.onChanges([changeTo(stateOf("p", 3), detailsOf("late"))]);
    assert.deepEqual(mirror.get("p"), stateOf("p", 5, { details: detailsOf("second") }));
  });
});

describe("Mirror: deletion and reload", () => {
  it("hides a deleted product, keeps its version, and shows it when it is restored", () => {
    const mirror = loadedMirror([stateOf("p", 1)]);
    mirror.onChanges([changeTo(stateOf("p", 2, { deleted: true }))]);
    assert.equal(mirror.get("p"), undefined);
    assert.deepEqual([...mirror.visible()], []);
    assert.equal(mirror.current("p")?.deleted, true);
    mirror.onChanges([changeTo(stateOf("p", 1))]);
    mirror.onProducts([stateOf("p", 1)]);
    assert.equal(mirror.get("p"), undefined, "an older state does not restore it");
    mirror.onChanges([changeTo(stateOf("p", 3), detailsOf("again"))]);
    assert.equal(mirror.get("p")?.details?.name, "again");
    assert.equal(mirror.size, 1);
  });

  it("drops once what a full load does not report, and keeps what a change reported during it", () => {
    const mirror = loadedMirror([stateOf("p", 5), stateOf("q", 5), stateOf("r", 5, { deleted: true })]);
    const emitted: MirrorChange[] = [];
    mirror.on("change", (changes) => emitted.push(...changes));
    mirror.onLoading(false);
    mirror.onProducts([stateOf("q", 5)]);
    mirror.onChanges([changeTo(stateOf("new", 1))]);
    assert.ok(mirror.get("p"), "nothing is dropped before the load is complete");
    mirror.onLoaded();
    assert.equal(mirror.get("p"), undefined);
    assert.equal(mirror.current("p"), undefined);
    assert.deepEqual(
      emitted.map(({ after }) => [after.productId, after.deleted]),
      [
        ["new", false],
        ["p", true],
      ],
      "a deleted product that is dropped causes no event",
    );
    assert.ok(mirror.get("new"));
    mirror.onChanges([changeTo(stateOf("p", 1))]);
    assert.equal(mirror.get("p")?.version, 1, "a dropped product may start again at version 1");
  });

  it("accepts lower versions only from a full load of other data", () => {
    const mirror = loadedMirror([stateOf("p", 50), stateOf("dropped", 50)]);
    load(mirror, [stateOf("p", 2), stateOf("dropped", 50)], false);
    assert.equal(mirror.get("p")?.version, 50);
    load(mirror, [stateOf("p", 2)], true);
    assert.equal(mirror.get("p")?.version, 2);
    assert.equal(mirror.get("dropped"), undefined);
    mirror.onChanges([changeTo(stateOf("p", 1)), changeTo(stateOf("p", 3))]);
    assert.equal(mirror.get("p")?.version, 3);
    load(mirror, [stateOf("p", 2)], false);
    assert.equal(mirror.get("p")?.version, 3, "the next load is compared by version");
  });

  it("is loaded after the first full load, and stays loaded during the second", () => {
    const mirror = new Mirror();
    let loaded = 0;
    mirror.on("loaded", () => {
      loaded += 1;
    });
    assert.equal(mirror.isLoaded, false);
    mirror.onLoading(false);
    mirror.onProducts([stateOf("p", 1)]);
    assert.equal(mirror.isLoaded, false);
    mirror.onLoaded();
    assert.equal(mirror.isLoaded, true);
    mirror.onLoading(true);
    assert.equal(mirror.isLoaded, true);
    mirror.onLoaded();
    assert.equal(loaded, 2);
  });

  it("is stale at first, and whenever it was not known to be current within the last second", () => {
    mock.timers.enable({ apis: ["setTimeout", "Date"], now: 1_000_000 });
    try {
      let nowMs = 5_000;
      const pass = (ms: number): void => {
        nowMs += ms;
        mock.timers.tick(ms);
      };
      const mirror = new Mirror(() => nowMs);
      assert.deepEqual([mirror.isStale, mirror.currentTimeMs], [true, 0]);
      const flips: boolean[] = [];
      const off = mirror.on("stale", (stale) => flips.push(stale));
      mirror.onCurrent(nowMs - STALE_AFTER_MS - 1);
      assert.deepEqual([mirror.isStale, flips], [true, []], "a proof that is too old");
      mirror.onCurrent(nowMs);
      assert.deepEqual([mirror.isStale, flips], [false, [false]]);
      for (let n = 0; n < 5; n++) {
        pass(400);
        mirror.onCurrent(nowMs - 300);
      }
      assert.deepEqual([mirror.isStale, flips], [false, [false]], "proofs in time");
      pass(STALE_AFTER_MS - 300);
      assert.deepEqual([mirror.isStale, flips], [false, [false]]);
      pass(2);
      assert.deepEqual([mirror.isStale, flips], [true, [false, true]], "it is reported without a read");
      pass(60_000);
      assert.equal(mirror.currentTimeMs, Date.now() - 61_002, "the age is that of the last proof");
      mirror.onCurrent(nowMs - 60_000);
      assert.equal(mirror.isStale, true, "a late proof does not clear the mark");
      mirror.onCurrent(nowMs);
      assert.deepEqual(flips, [false, true, false]);
      off();
    } finally {
      mock.timers.reset();
    }
  });

  it("sorts collections by name, ignoring case and accents", () => {
    const mirror = new Mirror();
    const named = ["zoo", "Émile", "apple", "Zoe", "emil"];
    mirror.onCollections(named.map((name) => ({ collectionId: name, name, description: "" })));
    assert.deepEqual(
      mirror.collections.map(({ name }) => name),
      ["apple", "emil", "Émile", "Zoe", "zoo"],
    );
  });
});

describe("Mirror: versions that this server has acknowledged", () => {
  it("has no current state of a product until it reaches the acknowledged version", () => {
    const mirror = loadedMirror([stateOf("p", 1), stateOf("q", 1)]);
    mirror.expect("p", 3);
    mirror.expect("p", 2);
    assert.equal(mirror.current("p"), undefined);
    assert.equal(mirror.get("p")?.version, 1, "for a read while the store is unavailable");
    assert.equal(mirror.current("q")?.version, 1);
    mirror.onChanges([changeTo(stateOf("p", 2))]);
    assert.equal(mirror.current("p"), undefined);
    mirror.onChanges([changeTo(stateOf("p", 3))]);
    assert.equal(mirror.current("p")?.version, 3);
    mirror.expect("p", 3);
    mirror.expect("p", 1);
    assert.equal(mirror.current("p")?.version, 3, "it reached the version before the acknowledgement");
    mirror.expect("unknown", 1);
    assert.equal(mirror.current("unknown"), undefined);
  });

  it("drops expected versions with the previous data", () => {
    const mirror = loadedMirror([stateOf("p", 1)]);
    mirror.expect("p", 9);
    load(mirror, [stateOf("p", 2)], true);
    assert.equal(mirror.current("p")?.version, 2);
  });

  it("resolves caughtUp when the acknowledged versions are delivered, and not before", async () => {
    const mirror = loadedMirror([stateOf("p", 1), stateOf("q", 1)]);
    assert.equal(mirror.caughtUp(), undefined);
    mirror.expect("p", 3);
    mirror.expect("q", 2);
    assert.equal(mirror.caughtUp(new Set(["other"])), undefined);
    const resolved: string[] = [];
    const wait = (name: string, ids?: readonly string[]): void => {
      void mirror.caughtUp(ids && new Set(ids))?.then(() => resolved.push(name));
    };
    wait("all");
    wait("p", ["p"]);
    wait("q", ["q", "other"]);
    mirror.expect("p", 5);
    wait("later");
    mirror.onChanges([changeTo(stateOf("p", 2))]);
    await turn();
    assert.deepEqual(resolved, []);
    mirror.onChanges([changeTo(stateOf("p", 3))]);
    await turn();
    assert.deepEqual(resolved, ["p"], "it does not wait for what was acknowledged after it");
    mirror.onChanges([changeTo(stateOf("q", 2))]);
    await turn();
    assert.deepEqual(resolved, ["p", "all", "q"]);
    mirror.onChanges([changeTo(stateOf("p", 5))]);
    await turn();
    assert.deepEqual(resolved, ["p", "all", "q", "later"]);
    assert.equal(mirror.caughtUp(), undefined);
  });

  it("ends every wait of caughtUp: at the next proof, with other data, and when it becomes stale", async () => {
    mock.timers.enable({ apis: ["setTimeout"] });
    try {
      let nowMs = 0;
      const mirror = loadedMirror([stateOf("p", 1)], () => nowMs);
      const ends: readonly (() => void)[] = [
        () => mirror.onCurrent(nowMs),
        () => load(mirror, [stateOf("p", 1)], true),
        () => {
          nowMs += STALE_AFTER_MS + 1;
          mock.timers.tick(STALE_AFTER_MS + 1);
        },
      ];
      for (const [n, end] of ends.entries()) {
        nowMs += 10;
        mirror.expect("p", 10 + n);
        mirror.onCurrent(nowMs - 1);
        let isResolved = false;
        void mirror.caughtUp()?.then(() => {
          isResolved = true;
        });
        await turn();
        assert.equal(isResolved, false);
        end();
        await turn();
        assert.equal(isResolved, true, `end ${n}`);
      }
      assert.equal(mirror.isStale, true);
      assert.equal(mirror.caughtUp(), undefined, "a stale mirror is not waited for");
      assert.equal(mirror.current("p"), undefined, "a read of the product still goes to the store");
    } finally {
      mock.timers.reset();
    }
  });

  it("keeps expecting a version during a full load that was read before it", () => {
    const mirror = loadedMirror([stateOf("p", 1)]);
    mirror.onLoading(false);
    mirror.onProducts([stateOf("p", 1)]);
    mirror.expect("p", 2);
    mirror.onLoaded();
    const read = mirror.current("p");
    assert.ok(
      read === undefined || read.version >= 2,
      `version 2 was acknowledged, ${read?.version} is read`,
    );
    mirror.onChanges([changeTo(stateOf("p", 2))]);
    assert.equal(mirror.current("p")?.version, 2);
  });

  it("never returns less than was acknowledged, for any sequence of events", (t) => {
    const event = fc.oneof(
      fc.record({ kind: fc.constant("expect" as const), version: fc.integer({ min: 1, max: 8 }) }),
      fc.record({ kind: fc.constant("change" as const), version: fc.integer({ min: 1, max: 8 }) }),
    );
    fc.assert(
      fc.property(fc.array(event, { maxLength: 30 }), (events) => {
        const mirror = loadedMirror([stateOf("p", 1)]);
        let acknowledged = 0;
        for (const { kind, version } of events) {
          if (kind === "expect") {
            acknowledged = Math.max(acknowledged, version);
            mirror.expect("p", version);
          } else {
            mirror.onChanges([changeTo(stateOf("p", version))]);
          }
          const read = mirror.current("p");
          assert.ok(read === undefined || read.version >= acknowledged);
        }
        mirror.onChanges([changeTo(stateOf("p", 8))]);
        assert.equal(mirror.current("p")?.version, 8, "at the end it is read from the mirror again");
      }),
      { seed: seedOf(t), numRuns: 300 },
    );
  });
});
