import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setImmediate as nextIteration } from "node:timers/promises";
import { InventoryError } from "../../server/inventory/errors.ts";
import { type Mirror, STALE_AFTER_MS } from "../../server/live/mirror.ts";
import { Hub } from "../../server/live/watch/hub.ts";
import type { Watch, WatchRequest } from "../../server/live/watch/watch.ts";
import type { WatchLimits } from "../../server/live/watch/watch-limits.ts";
import type { WatchUpdate } from "../../server/live/watch/watch-message.ts";
import {
  changeTo,
  detailsOf,
  endUpdatesAfterEach,
  load,
  loadedMirror,
  stateOf,
  stoppedClock,
  turns,
  updatesOf,
} from "./states.ts";

endUpdatesAfterEach();

const HOURS = 3_600_000;
/** No heartbeat and no end of life within a test. */
const QUIET: Partial<WatchLimits> = { heartbeatMs: HOURS, lifetimeMs: HOURS };

type Updates = AsyncGenerator<WatchUpdate>;

function hubOver(mirror: Mirror, limits: Partial<WatchLimits> = {}, now?: () => number): Hub {
  return new Hub(mirror, { ...QUIET, ...limits }, now);
}

function request(productIds?: readonly string[], minIntervalMs = 0): WatchRequest {
  return { productIds, minIntervalMs };
}

function open(
  hub: Hub,
  what: WatchRequest = request(),
  who: { address?: string; connection?: object } = {},
): Watch {
  return hub.open(what, { address: who.address ?? "127.0.0.1", connection: who.connection ?? {} });
}

async function next(updates: Updates): Promise<WatchUpdate> {
  const result = await updates.next();
  assert.ok(!result.done, "the watch has ended");
  return result.value;
}

/** Whether it is still pending after everything that can run has run. */
async function isPending(promise: Promise<unknown>): Promise<boolean> {
  let settled = false;
  void promise.finally(() => {
    settled = true;
  });
  await turns();
  return !settled;
}

async function snapshotOf(updates: Updates): Promise<WatchUpdate[]> {
  const messages: WatchUpdate[] = [];
  do {
    messages.push(await next(updates));
  } while (messages.at(-1)?.lastOfSnapshot === false);
  return messages;
}

const parts = (update: WatchUpdate): [string, number][] =>
  update.stocks.map((stock) => [stock.productId, stock.version]);
const hasCode = (code: string) => (error: unknown) => error instanceof InventoryError && error.code === code;

describe("Watch: snapshot", { timeout: 20_000 }, () => {
  it("has the requested products with details, and the IDs of those that do not exist", async () => {
    const mirror = loadedMirror([
      stateOf("p", 3, { details: detailsOf("P") }),
      stateOf("q", 1),
      stateOf("deleted", 2, { deleted: true }),
      stateOf("other", 1),
    ]);
    const updates = updatesOf(open(hubOver(mirror), request(["p", "unknown", "deleted", "q"])));
    const message = await next(updates);
    assert.deepEqual(parts(message), [
      ["p", 3],
      ["q", 1],
    ]);
    assert.deepEqual([...message.removed].sort(), ["deleted", "unknown"]);
    assert.deepEqual(message.withDetails, new Set(["p", "q"]));
    assert.equal(message.snapshot && message.lastOfSnapshot, true);
    assert.equal(message.stale, false);
  });

  it("is one message for an empty catalog and for unknown IDs only", async () => {
    const hub = hubOver(loadedMirror([]));
    for (const [ids, removed] of [
      [undefined, []],
      [["x"], ["x"]],
    ] as const) {
      const updates = updatesOf(open(hub, request(ids)));
      const message = await next(updates);
      assert.deepEqual([message.stocks, message.removed], [[], removed]);
      assert.equal(message.snapshot && message.lastOfSnapshot, true);
    }
  });

  it("is split into several messages if it is long; the last one is marked", async () => {
    const states = Array.from({ length: 2_000 }, (_, n) =>
      stateOf(`product-${n}`, 1, { details: detailsOf(`name ${n}`) }),
    );
    const updates = updatesOf(open(hubOver(loadedMirror(states))));
    const messages = await snapshotOf(updates);
    assert.ok(messages.length > 1);
    assert.ok(messages.every((message) => message.snapshot));
    assert.equal(messages.filter((message) => message.lastOfSnapshot).length, 1);
    const ids = messages.flatMap((message) => message.stocks.map((stock) => stock.productId));
    assert.equal(ids.length, 2_000);
    assert.equal(new Set(ids).size, 2_000);
  });

  it("loses no change that is made while it is sent", async () => {
    const states = Array.from({ length: 2_000 }, (_, n) => stateOf(`product-${n}`, 1));
    const mirror = loadedMirror(states);
    const updates = updatesOf(open(hubOver(mirror)));
    const newest = new Map<string, number>();
    const take = (message: WatchUpdate): void => {
      for (const [id, version] of parts(message)) {
        newest.set(id, Math.max(version, newest.get(id) ?? 0));
      }
      for (const id of message.removed) {
        newest.delete(id);
      }
    };
    take(await next(updates));
    mirror.onChanges([
      changeTo(stateOf("product-0", 2)),
      changeTo(stateOf("product-1999", 2)),
      changeTo(stateOf("new", 1)),
    ]);
    mirror.onChanges([changeTo(stateOf("product-1", 2, { deleted: true }))]);
    for (const message of await snapshotOf(updates)) {
      take(message);
    }
    take(await next(updates));
    assert.equal(newest.get("product-0"), 2);
    assert.equal(newest.get("product-1999"), 2);
    assert.equal(newest.get("new"), 1);
    assert.equal(newest.has("product-1"), false);
    assert.equal(newest.size, 2_000);
  });
});

describe("Watch: acknowledged changes", { timeout: 20_000 }, () => {
  it("waits with its snapshot until the mirror has what was acknowledged before it was opened", async () => {
    const mirror = loadedMirror([stateOf("p", 1), stateOf("q", 1)]);
    const hub = hubOver(mirror);
    mirror.expect("p", 2);
    mirror.expect("new", 1);
    const all = updatesOf(open(hub)).next();
    const watches = { p: open(hub, request(["p", "new"])), q: open(hub, request(["q"])) };
    const [p, q] = [updatesOf(watches.p), updatesOf(watches.q)];
    const snapshotOfP = p.next();
    assert.deepEqual(parts(await next(q)), [["q", 1]], "other products do not wait");
    assert.ok(await isPending(Promise.race([all, snapshotOfP])));
    mirror.onChanges([changeTo(stateOf("p", 2))]);
    assert.ok(await isPending(Promise.race([all, snapshotOfP])));
    mirror.onChanges([changeTo(stateOf("new", 1)), changeTo(stateOf("q", 2))]);
    for (const snapshot of [await all, await snapshotOfP]) {
      const { stocks, removed, lastOfSnapshot } = snapshot.value as WatchUpdate;
      assert.deepEqual([removed, lastOfSnapshot], [[], true]);
      assert.equal(stocks.find(({ productId }) => productId === "p")?.version, 2);
      assert.equal(stocks.find(({ productId }) => productId === "new")?.version, 1);
    }
    assert.ok(await isPending(p.next()), "the changes before the snapshot are not sent again");
  });

  it("can be closed, and asked to reconnect, while it waits", async () => {
    const mirror = loadedMirror([stateOf("p", 1)]);
    const hub = hubOver(mirror);
    mirror.expect("p", 2);
    const [closed, kept] = [open(hub), open(hub)];
    const [end, updates] = [updatesOf(closed).next(), updatesOf(kept)];
    const first = updates.next();
    closed.close();
    assert.equal((await end).done, true);
    hub.drain();
    assert.ok(await isPending(first));
    mirror.onChanges([changeTo(stateOf("p", 2))]);
    assert.deepEqual(parts((await first).value as WatchUpdate), [["p", 2]]);
    assert.notEqual((await next(updates)).reconnectAfterMs, undefined);
  });
});

describe("Watch: changes", { timeout: 20_000 }, () => {
  it("coalesces changes between two messages: each product once, newest state", async () => {
    const mirror = loadedMirror([stateOf("p", 1), stateOf("q", 1), stateOf("r", 1)]);
    const updates = updatesOf(open(hubOver(mirror), request(["p", "q"])));
    await next(updates);
    for (let version = 2; version <= 50; version++) {
      mirror.onChanges([changeTo(stateOf("p", version)), changeTo(stateOf("r", version))]);
    }
    mirror.onChanges([changeTo(stateOf("q", 2))]);
    const message = await next(updates);
    assert.deepEqual(parts(message).sort(), [
      ["p", 50],
      ["q", 2],
    ]);
    assert.equal(message.snapshot || message.lastOfSnapshot, false);
    const pull = updates.next();
    mirror.onChanges([changeTo(stateOf("r", 51))]);
    assert.ok(await isPending(pull), "other products cause no message");
    mirror.onChanges([changeTo(stateOf("p", 51))]);
    assert.deepEqual(parts((await pull).value as WatchUpdate), [["p", 51]]);
  });

  it("leaves an iteration of the event loop to responses before the messages of a change", async () => {
    const mirror = loadedMirror([stateOf("p", 1)]);
    const hub = hubOver(mirror);
    const updates = updatesOf(open(hub, request(["p"])));
    await next(updates);
    const pull = updates.next();
    await turns();
    mirror.onChanges([changeTo(stateOf("p", 2))]);
    const { change: sentBefore } = hub.messageCounts;
    await nextIteration();
    assert.equal(hub.messageCounts.change, sentBefore);
    assert.deepEqual(parts((await pull).value as WatchUpdate), [["p", 2]]);
  });

  it("a watch of all products receives new products", async () => {
    const mirror = loadedMirror([]);
    const updates = updatesOf(open(hubOver(mirror)));
    await next(updates);
    mirror.onChanges([changeTo(stateOf("new", 1), detailsOf("New"))]);
    const message = await next(updates);
    assert.deepEqual(parts(message), [["new", 1]]);
    assert.deepEqual(message.withDetails, new Set(["new"]));
  });

  it("waits for the minimum interval, and no longer", async () => {
    using clock = stoppedClock();
    const mirror = loadedMirror([stateOf("p", 1)]);
    const hub = hubOver(mirror, {}, clock.now);
    const patient = updatesOf(open(hub, request(["p"], HOURS / 2)));
    const quick = updatesOf(open(hub, request(["p"], 20)));
    const eager = updatesOf(open(hub, request(["p"], 0)));
    await Promise.all([patient, quick, eager].map(next));
    const order: string[] = [];
    const note = (name: string, pull: Promise<IteratorResult<WatchUpdate>>) =>
      pull.then(({ value }) => {
        order.push(name);
        return value as WatchUpdate | undefined;
      });
    const [waiting, second, first] = [
      note("patient", patient.next()),
      note("quick", quick.next()),
      note("eager", eager.next()),
    ];
    mirror.onChanges([changeTo(stateOf("p", 2))]);
    assert.deepEqual(parts((await first) as WatchUpdate), [["p", 2]]);
    mirror.onChanges([changeTo(stateOf("p", 3))]);
    await clock.pass(19);
    assert.deepEqual(order, ["eager"]);
    await clock.pass(1);
    assert.deepEqual(
      parts((await second) as WatchUpdate),
      [["p", 3]],
      "what came within the interval is merged",
    );
    assert.ok(await isPending(waiting));
    assert.deepEqual(order, ["eager", "quick"]);
    hub.drain();
    assert.notEqual((await waiting)?.reconnectAfterMs, undefined, "the last message does not wait for it");
    await Promise.all([patient, quick, eager].map((updates) => updates.return(undefined)));
  });

  it("has details only if they changed", async () => {
    const mirror = loadedMirror([stateOf("p", 1, { details: detailsOf("P") }), stateOf("q", 1)]);
    const updates = updatesOf(open(hubOver(mirror)));
    await next(updates);
    mirror.onChanges([changeTo(stateOf("p", 2)), changeTo(stateOf("q", 2), detailsOf("Q"))]);
    const message = await next(updates);
    assert.deepEqual(message.withDetails, new Set(["q"]));
    mirror.onChanges([changeTo(stateOf("q", 3), detailsOf("Q2"))]);
    mirror.onChanges([changeTo(stateOf("q", 4))]);
    const merged = await next(updates);
    assert.deepEqual(
      [parts(merged), merged.withDetails],
      [[["q", 4]], new Set(["q"])],
      "details of a change that was merged into a later one",
    );
    mirror.onChanges([changeTo(stateOf("q", 5))]);
    assert.deepEqual((await next(updates)).withDetails, new Set());
  });

  it("reports a removal, and a restored product with details", async () => {
    const mirror = loadedMirror([stateOf("p", 1, { details: detailsOf("P") })]);
    const updates = updatesOf(open(hubOver(mirror), request(["p"])));
    await next(updates);
    mirror.onChanges([changeTo(stateOf("p", 2, { deleted: true }))]);
    const removal = await next(updates);
    assert.deepEqual([removal.stocks, removal.removed], [[], ["p"]]);
    mirror.onChanges([changeTo(stateOf("p", 3))]);
    const revival = await next(updates);
    assert.deepEqual(
      [parts(revival), revival.removed, revival.withDetails],
      [[["p", 3]], [], new Set(["p"])],
    );
    mirror.onChanges([changeTo(stateOf("p", 4, { deleted: true })), changeTo(stateOf("p", 5))]);
    assert.deepEqual(parts(await next(updates)), [["p", 5]], "removed and restored between two messages");
  });

  it("reports products that a reload drops as removed, and lower versions of other data", async () => {
    const mirror = loadedMirror([stateOf("p", 9), stateOf("q", 9)]);
    const updates = updatesOf(open(hubOver(mirror), request(["p", "q"])));
    await next(updates);
    load(mirror, [stateOf("p", 2)], true);
    const message = await next(updates);
    assert.deepEqual([parts(message), message.removed], [[["p", 2]], ["q"]]);
  });
});

describe("Watch: staleness, heartbeat and lifetime", { timeout: 20_000 }, () => {
  it("reports changes of staleness at once, whatever the minimum interval", async () => {
    using clock = stoppedClock();
    const mirror = loadedMirror([stateOf("p", 1)], clock.now);
    const setStale = (stale: boolean): void =>
      stale ? clock.advance(STALE_AFTER_MS + 1) : mirror.onCurrent(clock.now());
    const updates = updatesOf(open(hubOver(mirror, {}, clock.now), request(["p"], HOURS / 2)));
    await next(updates);
    for (const stale of [true, false, true]) {
      const pull = updates.next();
      assert.ok(await isPending(pull));
      setStale(stale);
      assert.equal(((await pull).value as WatchUpdate).stale, stale);
    }
    const pull = updates.next();
    setStale(false);
    setStale(true);
    assert.ok(await isPending(pull), "a return to the reported value causes no message");
    setStale(false);
    mirror.onChanges([changeTo(stateOf("p", 2))]);
    assert.equal(((await pull).value as WatchUpdate).stale, false);
  });

  it("sends empty heartbeats while nothing changes", async () => {
    const hub = hubOver(loadedMirror([stateOf("p", 1)]), { heartbeatMs: 5 });
    const updates = updatesOf(open(hub));
    await next(updates);
    for (let n = 0; n < 3; n++) {
      const beat = await next(updates);
      assert.deepEqual(
        [beat.stocks, beat.removed, beat.snapshot, beat.reconnectAfterMs],
        [[], [], false, undefined],
      );
    }
  });

  it("reports changes after a heartbeat, to watches of all products and of some", async () => {
    const mirror = loadedMirror([stateOf("p", 1)]);
    const hub = hubOver(mirror, { heartbeatMs: 5 });
    for (const ids of [undefined, ["p"]]) {
      const updates = updatesOf(open(hub, request(ids)));
      await next(updates);
      for (let round = 0; round < 3; round++) {
        const version = (mirror.get("p")?.version ?? 0) + 1;
        assert.deepEqual(parts(await next(updates)), [], "a heartbeat");
        mirror.onChanges([changeTo(stateOf("p", version))]);
        let message = await next(updates);
        while (message.stocks.length === 0) {
          message = await next(updates);
        }
        assert.deepEqual(parts(message), [["p", version]]);
      }
    }
  });

  it("ends with a request to reconnect after its lifetime, ± 20%", async () => {
    using clock = stoppedClock();
    const hub = hubOver(loadedMirror([]), { lifetimeMs: 1_000, reconnectSpreadMs: 50 }, clock.now);
    const all = Array.from({ length: 200 }, () => updatesOf(open(hub)));
    await Promise.all(all.map(next));
    let ended = 0;
    const goodbyes = all.map(async (updates) => {
      const last = await next(updates);
      ended += 1;
      assert.ok((last.reconnectAfterMs ?? 0) >= 1 && (last.reconnectAfterMs ?? 99) <= 50);
      assert.equal((await updates.next()).done, true, "nothing follows the last message");
    });
    await clock.pass(799);
    assert.equal(ended, 0);
    await clock.pass(201);
    assert.ok(ended > 40 && ended < 160, `${ended} of 200 ended in the first half of the spread`);
    // A slot of the timer wheel is 10 ms.
    await clock.pass(210);
    await Promise.all(goodbyes);
    assert.equal(hub.size, 0);
  });

  it("asks all clients to reconnect when the server drains, and refuses new watches", async () => {
    const mirror = loadedMirror([stateOf("p", 1)]);
    const hub = hubOver(mirror, { reconnectSpreadMs: 100 });
    const waiting = updatesOf(open(hub, request(["p"])));
    await next(waiting);
    const pull = waiting.next();
    const unread = updatesOf(open(hub, request(["p"])));
    hub.drain();
    const last = (await pull).value as WatchUpdate;
    assert.ok((last.reconnectAfterMs ?? 0) >= 1 && (last.reconnectAfterMs ?? 999) <= 100);
    assert.equal((await waiting.next()).done, true);
    assert.equal((await next(unread)).lastOfSnapshot, true, "a new watch still receives its snapshot");
    assert.notEqual((await next(unread)).reconnectAfterMs, undefined);
    assert.equal((await unread.next()).done, true);
    assert.throws(() => open(hub), hasCode("STORE_UNAVAILABLE"));
    assert.equal(hub.size, 0);
  });
});
