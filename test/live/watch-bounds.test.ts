import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { InventoryError } from "../../server/inventory/errors.ts";
import type { Mirror } from "../../server/live/mirror.ts";
import { Hub } from "../../server/live/watch/hub.ts";
import { RecencyList, type RecentChange } from "../../server/live/watch/recency-list.ts";
import type { Watch, WatchSink } from "../../server/live/watch/watch.ts";
import type { WatchLimits } from "../../server/live/watch/watch-limits.ts";
import type { WatchUpdate } from "../../server/live/watch/watch-message.ts";
import {
  changeTo,
  detailsOf,
  endUpdatesAfterEach,
  loadedMirror,
  stateOf,
  stoppedClock,
  turns,
  updatesOf,
} from "./states.ts";

endUpdatesAfterEach();

const HOURS = 3_600_000;
/** Memory that a reader that stops reading may hold. */
const HELD_BYTES_MAX = 32 * 1024;

function hubOver(mirror: Mirror, limits: Partial<WatchLimits> = {}, now?: () => number): Hub {
  return new Hub(mirror, { heartbeatMs: HOURS, lifetimeMs: HOURS, ...limits }, now);
}

/** Accepts one message, then is not ready. */
class StalledSink implements WatchSink {
  readonly updates: WatchUpdate[] = [];
  isReady = true;
  hasEnded = false;

  write(update: WatchUpdate): void {
    this.updates.push(update);
    this.isReady = false;
  }

  end(): void {
    this.hasEnded = true;
  }
}

function open(hub: Hub, address = "127.0.0.1", connection: object = {}): Watch {
  return hub.open({ productIds: ["p"], minIntervalMs: 0 }, { address, connection });
}

function isOverloaded(where: RegExp): (error: unknown) => boolean {
  return (error) =>
    error instanceof InventoryError && error.code === "OVERLOADED" && where.test(error.message);
}

/** A watch of all products, after its snapshot. */
async function openPastSnapshot(hub: Hub): Promise<AsyncGenerator<WatchUpdate>> {
  const watch = hub.open({ productIds: undefined, minIntervalMs: 0 }, { address: "a", connection: {} });
  const updates = updatesOf(watch);
  for (;;) {
    const { value } = await updates.next();
    if ((value as WatchUpdate).lastOfSnapshot) {
      return updates;
    }
  }
}

setFlagsFromString("--expose-gc");
const collect = runInNewContext("gc") as () => void;

function heapBytes(): number {
  collect();
  collect();
  return process.memoryUsage().heapUsed;
}

describe("Watch limits", { timeout: 20_000 }, () => {
  for (const [limit, where, of] of [
    ["watchesMax", /on this server/, (n: number) => ({ address: `a${n}`, connection: {} })],
    ["watchesPerConnectionMax", /on one connection/, (n: number) => ({ address: `a${n}`, connection: SAME })],
    ["watchesPerAddressMax", /from one address/, () => ({ address: "a", connection: {} })],
  ] as const) {
    it(`${limit}: one more is OVERLOADED, and each close makes room for one`, async () => {
      const hub = hubOver(loadedMirror([]), { [limit]: 3 });
      const next = (n: number): Watch => {
        const { address, connection } = of(n);
        return open(hub, address, connection);
      };
      const watches = [next(1), next(2), next(3)];
      assert.throws(() => next(4), isOverloaded(where));
      assert.throws(() => next(5), isOverloaded(where), "a refused watch is not counted");
      assert.equal(hub.size, 3);
      watches.shift()?.close();
      watches.push(next(6));
      assert.throws(() => next(7), isOverloaded(where));
      const [first] = watches;
      first?.close();
      first?.close();
      watches.push(next(8));
      assert.throws(() => next(9), isOverloaded(where), "closing twice frees one slot");
      for (const watch of watches) {
        watch.close();
      }
      assert.equal(hub.size, 0);
      [next(10), next(11), next(12)].map((watch) => watch.close());
    });
  }

  it("limits of one connection or address do not affect others", () => {
    const hub = hubOver(loadedMirror([]), { watchesPerConnectionMax: 1, watchesPerAddressMax: 2 });
    const connection = {};
    open(hub, "a", connection);
    assert.throws(() => open(hub, "a", connection), isOverloaded(/connection/));
    open(hub, "a");
    assert.throws(() => open(hub, "a"), isOverloaded(/address/));
    open(hub, "b");
    assert.equal(hub.size, 3);
  });
});

const SAME = {};

describe("Watch: closing", { timeout: 20_000 }, () => {
  it("close ends a waiting reader and a later one, and the hub releases the watch", async () => {
    const hub = hubOver(loadedMirror([stateOf("p", 1)]));
    const watch = open(hub);
    const updates = updatesOf(watch);
    await updates.next();
    const pull = updates.next();
    watch.close();
    assert.equal((await pull).done, true);
    assert.equal((await updates.next()).done, true);
    assert.equal(hub.size, 0);
  });

  it("a reader that returns closes its watch", async () => {
    const hub = hubOver(loadedMirror([stateOf("p", 1)]));
    for await (const update of updatesOf(open(hub))) {
      assert.equal(update.snapshot, true);
      break;
    }
    assert.equal(hub.size, 0);
  });

  it("close within a long snapshot, or within many changes, ends the updates", async () => {
    const states = Array.from({ length: 2_000 }, (_, n) => stateOf(`product-${n}`, 1));
    const mirror = loadedMirror(states);
    const hub = hubOver(mirror);
    const watch = hub.open({ productIds: undefined, minIntervalMs: 0 }, { address: "a", connection: {} });
    const inSnapshot = updatesOf(watch);
    assert.equal(((await inSnapshot.next()).value as WatchUpdate).lastOfSnapshot, false);
    watch.close();
    assert.equal((await inSnapshot.next()).done, true);
    assert.equal(hub.size, 0);
  });

  it("a hub holds no memory of closed watches", () => {
    const mirror = loadedMirror([stateOf("p", 1)]);
    const hub = hubOver(mirror);
    const round = (): void => {
      const watches = Array.from({ length: 2_000 }, (_, n) =>
        hub.open(
          { productIds: [`p${n}`, `q${n}`], minIntervalMs: 0 },
          { address: `address-${n}`, connection: {} },
        ),
      );
      for (const watch of watches) {
        watch.close();
      }
    };
    round();
    const before = heapBytes();
    for (let n = 0; n < 10; n++) {
      round();
    }
    const bytesPerWatch = (heapBytes() - before) / 20_000;
    assert.equal(hub.size, 0);
    assert.ok(bytesPerWatch < 50, `${Math.round(bytesPerWatch)} bytes stay of each watch`);
  });
});

describe("Watch: a reader that stops reading", { timeout: 20_000 }, () => {
  for (const end of ["its lifetime", "a drain"]) {
    it(`is closed if it has not accepted the last message within the grace period after ${end}`, async () => {
      using clock = stoppedClock();
      const limits = { lifetimeMs: 1_000, readerGraceMs: 500 };
      const hub = hubOver(loadedMirror([stateOf("p", 1)]), limits, clock.now);
      const sink = new StalledSink();
      open(hub).start(sink);
      await turns();
      assert.equal(sink.updates.length, 1, "the snapshot fills its buffer");
      if (end === "a drain") {
        hub.drain();
        await clock.pass(499);
      } else {
        await clock.pass(1_299);
      }
      assert.equal(hub.size, 1);
      assert.equal(sink.hasEnded, false);
      // The spread of the lifetime, and a slot of the timer wheel.
      await clock.pass(end === "a drain" ? 11 : 411);
      assert.equal(hub.size, 0);
      assert.equal(sink.hasEnded, true);
      assert.equal(sink.updates.length, 1);
    });
  }

  it("receives the last message if it reads again within the grace period", async () => {
    using clock = stoppedClock();
    const limits = { lifetimeMs: 1_000, readerGraceMs: 500 };
    const hub = hubOver(loadedMirror([stateOf("p", 1)]), limits, clock.now);
    const sink = new StalledSink();
    const watch = open(hub);
    watch.start(sink);
    await clock.pass(1_250);
    sink.isReady = true;
    watch.resume();
    await turns();
    assert.notEqual(sink.updates.at(-1)?.reconnectAfterMs, undefined);
    assert.equal(sink.hasEnded, true);
    assert.equal(hub.size, 0);
  });

  it("receives each product once, in its newest state, when it reads again", async () => {
    const mirror = loadedMirror(Array.from({ length: 100 }, (_, n) => stateOf(`p${n}`, 1)));
    const hub = hubOver(mirror);
    const updates = await openPastSnapshot(hub);
    for (let change = 0; change < 5_000; change++) {
      mirror.onChanges([changeTo(stateOf(`p${change % 100}`, 2 + Math.floor(change / 100)))]);
    }
    const received: string[] = [];
    while (received.length < 100) {
      const { stocks } = (await updates.next()).value as WatchUpdate;
      received.push(...stocks.map((stock) => `${stock.productId} ${stock.version}`));
    }
    assert.deepEqual(received.sort(), Array.from({ length: 100 }, (_, n) => `p${n} 51`).sort());
  });

  it("receives what does not fit into one message in several, without a delay", async () => {
    const products = 1_000;
    const mirror = loadedMirror(Array.from({ length: products }, (_, n) => stateOf(`product-${n}`, 1)));
    const ids = Array.from({ length: products }, (_, n) => `product-${n}`);
    const hub = hubOver(mirror);
    const some = updatesOf(hub.open({ productIds: ids, minIntervalMs: 0 }, { address: "a", connection: {} }));
    while (!((await some.next()).value as WatchUpdate).lastOfSnapshot);
    const watches = [await openPastSnapshot(hub), some];
    mirror.onChanges(ids.map((id) => changeTo(stateOf(id, 2))));
    for (const updates of watches) {
      const received: string[] = [];
      let messages = 0;
      while (received.length < products) {
        const { stocks } = (await updates.next()).value as WatchUpdate;
        received.push(...stocks.map((stock) => `${stock.productId} ${stock.version}`));
        messages += 1;
      }
      assert.deepEqual(received.sort(), ids.map((id) => `${id} 2`).sort());
      assert.ok(messages > 1);
    }
  });

  for (const [name, pull] of [
    ["after its snapshot", 0],
    ["after the first of many messages", 1],
  ] as const) {
    it(`holds less than 32 KB ${name}, however much changes`, async (t) => {
      const products = 5_000;
      const mirror = loadedMirror(
        Array.from({ length: products }, (_, n) =>
          stateOf(`product-${n}`, 1, { details: detailsOf(`name ${n}`) }),
        ),
      );
      const hub = hubOver(mirror);
      const readers = 100;
      const watches = await Promise.all(Array.from({ length: readers }, () => openPastSnapshot(hub)));
      const change = (version: number): void =>
        mirror.onChanges(
          Array.from({ length: products }, (_, n) => changeTo(stateOf(`product-${n}`, version))),
        );
      change(2);
      const before = heapBytes();
      for (const updates of watches) {
        for (let n = 0; n < pull; n++) {
          await updates.next();
        }
      }
      for (let version = 3; version < 8; version++) {
        change(version);
      }
      const held = (heapBytes() - before) / readers;
      t.diagnostic(`${Math.round(held)} bytes of heap a reader`);
      assert.ok(held <= HELD_BYTES_MAX, `${Math.round(held)} bytes`);
      await Promise.all(watches.map((updates) => updates.return(undefined)));
      assert.equal(hub.size, 0);
    });
  }
});

describe("RecencyList", () => {
  it("returns what changed after a position: each product once, oldest change first", () => {
    const recency = new RecencyList();
    assert.deepEqual(recency.after(0, 9), []);
    recency.touch("a", true);
    recency.touch("b", false);
    const place = recency.sequence;
    recency.touch("c", false);
    recency.touch("a", false);
    recency.touch("c", true);
    recency.touch("b", false);
    recency.touch("b", false);
    const parts = (changes: readonly RecentChange[]) =>
      changes.map(({ productId, details }) => [productId, details]);
    const [a, c, b] = [
      ["a", false],
      ["c", true],
      ["b", false],
    ];
    assert.deepEqual(parts(recency.after(place, 9)), [a, c, b]);
    assert.deepEqual(parts(recency.after(0, 9)), [["a", true], c, b]);
    assert.deepEqual(recency.after(recency.sequence, 9), []);
    const [first] = recency.after(place, 1);
    assert.ok(first);
    assert.deepEqual(parts([first]), [a]);
    assert.deepEqual(parts(recency.after(first.sequence, 9)), [c, b], "a watch continues at its position");
    assert.deepEqual(parts(recency.afterAmong(place, ["b", "c", "unknown"])), [c, b]);
    assert.deepEqual(recency.afterAmong(recency.sequence, ["a", "b", "c"]), []);
  });
});
