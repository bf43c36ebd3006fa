import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { FeedPartitions, ProductState } from "../../server/inventory/feed.ts";
import { Mirror, STALE_AFTER_MS } from "../../server/live/mirror.ts";
import { LiveReads } from "../../server/live/reads.ts";
import { Hub } from "../../server/live/watch/hub.ts";
import type { WatchUpdate } from "../../server/live/watch/watch-message.ts";
import { MemoryStore } from "../../server/memory/store.ts";
import { changeTo, endUpdatesAfterEach, stateOf, stoppedClock, turns, updatesOf } from "./states.ts";

const HOURS = 3_600_000;
const PARTITIONS: FeedPartitions = { count: 3, of: (productId) => Number(productId[0]) };

endUpdatesAfterEach();

/** A mirror of three partitions. The first digit of a product's ID is its partition. */
function mirrorOf(now?: () => number): Mirror {
  const mirror = new Mirror(now);
  mirror.onStart(PARTITIONS);
  return mirror;
}

function load(mirror: Mirror, partition: number, states: readonly ProductState[], isOtherData = false): void {
  mirror.onLoading(isOtherData, partition);
  mirror.onProducts(states, partition);
  mirror.onLoaded(partition);
}

/** All three are loaded and current. */
function loadedMirrorOf(now: () => number): Mirror {
  const mirror = mirrorOf(now);
  for (const partition of [0, 1, 2]) {
    load(mirror, partition, [stateOf(`${partition}p`, 1), stateOf(`${partition}q`, 1)]);
    mirror.onCurrent(now(), partition);
  }
  return mirror;
}

describe("Mirror with several partitions", () => {
  it("marks only the reads of a stale partition's products", async () => {
    using clock = stoppedClock();
    const mirror = loadedMirrorOf(clock.now);
    const reads = new LiveReads(mirror, new MemoryStore());
    const isStale = async (...productIds: string[]): Promise<boolean> =>
      (productIds.length === 1
        ? await reads.getStock(productIds[0] ?? "")
        : await reads.batchGetStock(productIds)
      ).stale;
    const events: boolean[] = [];
    mirror.on("stale", (isAny) => events.push(isAny));
    clock.advance(STALE_AFTER_MS - 100);
    mirror.onCurrent(clock.now(), 0);
    mirror.onCurrent(clock.now(), 2);
    clock.advance(200);
    assert.deepEqual(await Promise.all([isStale("0p"), isStale("1p"), isStale("2p")]), [false, true, false]);
    assert.equal(await isStale("0p", "2p"), false);
    assert.equal(await isStale("0p", "1p"), true);
    assert.deepEqual([mirror.isStale, mirror.areCollectionsStale], [true, false]);
    assert.deepEqual(events, [true]);
    mirror.onCurrent(clock.now(), 1);
    assert.deepEqual([mirror.isStale, await isStale("1p"), events], [false, false, [true, false]]);
  });

  it("waits for acknowledged changes, except those of a stale partition", async () => {
    using clock = stoppedClock();
    const mirror = loadedMirrorOf(clock.now);
    clock.advance(STALE_AFTER_MS - 100);
    for (const partition of [0, 2]) {
      mirror.onCurrent(clock.now(), partition);
    }
    clock.advance(200);
    for (const productId of ["0p", "1p", "2p"]) {
      mirror.expect(productId, 2);
    }
    assert.equal(mirror.caughtUp(new Set(["1p"])), undefined);
    let waited = 0;
    const wait = async (productIds?: ReadonlySet<string>): Promise<void> => {
      await mirror.caughtUp(productIds);
      waited += 1;
    };
    void wait();
    void wait(new Set(["1p", "2p"]));
    mirror.onChanges([changeTo(stateOf("2p", 2))], 2);
    await turns();
    assert.equal(waited, 1, "the wait for all still waits for partition 0");
    mirror.onCurrent(clock.now(), 0);
    await turns();
    assert.equal(waited, 2, "a proof of partition 0 ends it");
    assert.equal(mirror.current("1p"), undefined, "the acknowledged version of the stale partition is kept");
  });

  it("reloads one partition, also with lower versions, and keeps the others", () => {
    using clock = stoppedClock();
    const mirror = loadedMirrorOf(clock.now);
    mirror.onChanges([changeTo(stateOf("1p", 9)), changeTo(stateOf("1r", 1))], 1);
    mirror.onChanges([changeTo(stateOf("2p", 9))], 2);
    mirror.onLoading(true, 1);
    mirror.onProducts([stateOf("1p", 3)], 1);
    mirror.onChanges([changeTo(stateOf("2p", 8))], 2);
    assert.equal(mirror.get("2p")?.version, 9, "only the versions of the loading partition may fall");
    mirror.onLoaded(1);
    const versions = Object.fromEntries([...mirror.visible()].map((each) => [each.productId, each.version]));
    assert.deepEqual(versions, { "0p": 1, "0q": 1, "1p": 3, "2p": 9, "2q": 1 });
  });

  it("drops the right products if a load begins again, and if rows are used again", () => {
    using clock = stoppedClock();
    const mirror = loadedMirrorOf(clock.now);
    mirror.onLoading(false, 1);
    mirror.onProducts([stateOf("1p", 1)], 1);
    load(mirror, 0, []);
    mirror.onChanges([changeTo(stateOf("2new", 1)), changeTo(stateOf("2newer", 1))], 2);
    load(mirror, 1, [stateOf("1q", 1)]);
    assert.deepEqual([...mirror.visibleIds()].sort(), ["1q", "2new", "2newer", "2p", "2q"]);
  });

  it("is loaded once each partition is loaded or unavailable, unless none is loaded", () => {
    const mirror = mirrorOf();
    for (const partition of [0, 1, 2]) {
      mirror.onUnavailable(partition);
    }
    assert.equal(mirror.isLoaded, false);
    load(mirror, 0, [stateOf("0p", 1)]);
    assert.deepEqual([mirror.isLoaded, mirror.isStale], [true, true]);
    assert.deepEqual([mirror.hasLoaded(["0p"]), mirror.hasLoaded(["0p", "1p"])], [true, false]);
    load(mirror, 1, [stateOf("1p", 1)]);
    assert.equal(mirror.hasLoaded(["0p", "1p"]), true);
    const waiting = mirrorOf();
    load(waiting, 0, []);
    load(waiting, 1, []);
    assert.equal(waiting.isLoaded, false);
    load(waiting, 2, []);
    assert.equal(waiting.isLoaded, true);
  });
});

describe("Watches of several partitions", () => {
  it("are stale if one of their products is", async () => {
    using clock = stoppedClock();
    const mirror = loadedMirrorOf(clock.now);
    const hub = new Hub(mirror, { heartbeatMs: HOURS, lifetimeMs: HOURS }, clock.now);
    const seen = new Map<string, WatchUpdate[]>();
    const watch = async (name: string, productIds?: readonly string[]): Promise<void> => {
      const request = { productIds, minIntervalMs: 0 };
      const updates: WatchUpdate[] = [];
      seen.set(name, updates);
      for await (const update of updatesOf(hub.open(request, { address: name, connection: {} }))) {
        updates.push(update);
      }
    };
    void watch("0p", ["0p"]);
    void watch("1p", ["1p"]);
    void watch("0p and 1p", ["0p", "1p"]);
    void watch("all");
    await turns();
    const newest = (): Record<string, [boolean | undefined, number]> =>
      Object.fromEntries([...seen].map(([name, updates]) => [name, [updates.at(-1)?.stale, updates.length]]));
    assert.deepEqual(newest(), {
      "0p": [false, 1],
      "1p": [false, 1],
      "0p and 1p": [false, 1],
      all: [false, 1],
    });
    await clock.pass(STALE_AFTER_MS - 100);
    for (const partition of [0, 2]) {
      mirror.onCurrent(clock.now(), partition);
    }
    await clock.pass(200);
    assert.deepEqual(newest(), { "0p": [false, 1], "1p": [true, 2], "0p and 1p": [true, 2], all: [true, 2] });
    mirror.onChanges([changeTo(stateOf("0p", 2))], 0);
    await turns();
    assert.deepEqual(newest(), { "0p": [false, 2], "1p": [true, 2], "0p and 1p": [true, 3], all: [true, 3] });
    mirror.onCurrent(clock.now(), 1);
    await turns();
    assert.deepEqual(newest(), {
      "0p": [false, 2],
      "1p": [false, 3],
      "0p and 1p": [false, 4],
      all: [false, 4],
    });
  });
});
