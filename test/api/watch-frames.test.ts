import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { fromBinary, fromJsonString, toBinary, toJson, toJsonString } from "@bufbuild/protobuf";
import { type WatchStockResponse, WatchStockResponseSchema } from "../../gen/inventory/v1/stock_pb.ts";
import { WatchFrames } from "../../server/api/watch-frames.ts";
import { toWatchResponse } from "../../server/api/watch-stock.ts";
import { STALE_AFTER_MS } from "../../server/live/mirror.ts";
import { Hub } from "../../server/live/watch/hub.ts";
import { RecencyList } from "../../server/live/watch/recency-list.ts";
import type { Watch, WatchSink } from "../../server/live/watch/watch.ts";
import { ChangeMessages, type WatchUpdate, watchUpdate } from "../../server/live/watch/watch-message.ts";
import { changeTo, detailsOf, loadedMirror, stateOf } from "../live/states.ts";
import { until } from "../support/until.ts";

const P = stateOf("p", 3, { details: detailsOf("Ärmel – 1 %", { description: "x".repeat(300) }) });
const Q = stateOf("q", 1);

const UPDATES: readonly (readonly [string, WatchUpdate])[] = [
  ["a heartbeat", watchUpdate(false, {})],
  ["one change", watchUpdate(false, { stocks: [P] })],
  ["several, some with details", watchUpdate(false, { stocks: [P, Q], withDetails: new Set(["p"]) })],
  ["removals", watchUpdate(false, { stocks: [Q], removed: ["gone", "ünknown"], stale: true })],
  [
    "a snapshot",
    watchUpdate(false, {
      stocks: [P, Q],
      withDetails: new Set(["p", "q"]),
      snapshot: true,
      lastOfSnapshot: true,
    }),
  ],
  ["a request to reconnect", watchUpdate(false, { reconnectAfterMs: 1_234 })],
];

/** The message in an envelope. */
const messageIn = (envelope: Buffer): Buffer => {
  assert.deepEqual([envelope[0], envelope.readUInt32BE(1)], [0, envelope.length - 5]);
  return envelope.subarray(5);
};

/** What it says, but for the time at which it was made. */
const said = (message: WatchStockResponse): unknown =>
  toJson(WatchStockResponseSchema, { ...message, serverTime: undefined });

describe("frames of watches", () => {
  for (const [name, update] of UPDATES) {
    it(`${name}: what Connect would send, in both formats, also when its parts are kept`, () => {
      const frames = new WatchFrames();
      for (let time = 0; time < 2; time++) {
        const asConnect = toWatchResponse(update);
        const binary = messageIn(frames.encode({ ...update }, false).envelope);
        const json = messageIn(frames.encode({ ...update }, true).envelope).toString();
        const fromFrame = fromBinary(WatchStockResponseSchema, binary);
        assert.deepEqual(said(fromFrame), said(asConnect));
        assert.deepEqual(said(fromJsonString(WatchStockResponseSchema, json)), said(asConnect));
        asConnect.serverTime = fromFrame.serverTime;
        assert.deepEqual(binary, Buffer.from(toBinary(WatchStockResponseSchema, asConnect)), "to the byte");
        assert.equal(
          json.replace(/"serverTime":"[^"]*"/, ""),
          toJsonString(WatchStockResponseSchema, asConnect).replace(/"serverTime":"[^"]*"/, ""),
        );
      }
    });
  }

  it("are a chunk of HTTP/1.1 with the envelope in it", () => {
    const { chunk, envelope } = new WatchFrames().encode(watchUpdate(false, { stocks: [P] }), false);
    assert.equal(
      chunk.toString("latin1"),
      `${envelope.length.toString(16)}\r\n${envelope.toString("latin1")}\r\n`,
    );
  });

  it("tell a state of other data, although its version was there before", () => {
    const frames = new WatchFrames();
    const availableOf = (available: number): number | undefined => {
      const { envelope } = frames.encode(watchUpdate(false, { stocks: [{ ...Q, available }] }), false);
      return fromBinary(WatchStockResponseSchema, messageIn(envelope)).stocks[0]?.available;
    };
    assert.deepEqual([availableOf(5), availableOf(6), availableOf(5)], [5, 6, 5]);
  });
});

/** Accepts every update at once. */
class EagerReader implements WatchSink {
  readonly isReady = true;
  readonly updates: WatchUpdate[] = [];
  write(update: WatchUpdate): void {
    this.updates.push(update);
  }
  end(): void {}
}

describe("an update for several watchers", () => {
  it("is one shared message and frame, and never an outdated one", async () => {
    const mirror = loadedMirror([stateOf("p", 1), stateOf("q", 1), stateOf("r", 1)]);
    const hub = new Hub(mirror);
    const frames = new WatchFrames();
    const watches: Watch[] = [];
    const watch = (...productIds: string[]): EagerReader => {
      const request = {
        productIds: productIds.length > 0 ? productIds : undefined,
        minIntervalMs: 0,
      };
      const opened = hub.open(request, { address: `${watches.length}`, connection: {} });
      const reader = new EagerReader();
      watches.push(opened);
      opened.start(reader);
      return reader;
    };
    const ofP = [watch("p"), watch("p"), watch("p", "q"), watch("r", "p")];
    const ofAll = [watch(), watch()];
    for (let version = 2; version < 5; version++) {
      mirror.onChanges([changeTo(stateOf("p", version))]);
      const readers = [...ofP, ...ofAll];
      await until(
        () => readers.every(({ updates }) => updates.length === version),
        "every watcher has the update",
      );
      for (const group of [ofP, ofAll]) {
        const latest = group.map(({ updates }) => updates.at(-1));
        const [first] = latest;
        assert.ok(first);
        assert.deepEqual(
          first.stocks.map(({ productId, version }) => [productId, version]),
          [["p", version]],
        );
        assert.ok(latest.every((update) => update === first));
        assert.equal(frames.encode(first, false), frames.encode(first, false));
      }
    }
    for (const opened of watches) {
      opened.close();
    }
    assert.equal(hub.size, 0);
  });

  it("is shared by watches of several turns, until anything changes or it is 50 ms old", () => {
    let now = 0;
    const mirror = loadedMirror([stateOf("p", 1), stateOf("q", 1)], () => now);
    const recency = new RecencyList();
    const messages = new ChangeMessages(mirror, recency);
    const change = (productId: string, version: number): void => {
      mirror.onChanges([changeTo(stateOf(productId, version))]);
      recency.touch(productId, false);
    };
    /** Those of a turn: of a watch of one product, of a watch of all, and a heartbeat. */
    const ofTurn = (): readonly WatchUpdate[] => {
      messages.refresh(now);
      const positions = [
        [0, ["p"]],
        [0, undefined],
        [recency.sequence, ["p"]],
      ] as const;
      return positions.map(([position, productIds]) => messages.after(position, productIds).update);
    };
    change("p", 2);
    let before = ofTurn();
    const assertNew = (what: string): readonly WatchUpdate[] => {
      const after = ofTurn();
      for (const [index, update] of after.entries()) {
        assert.notEqual(update, before[index], what);
      }
      before = after;
      return after;
    };
    now += 49;
    for (const [index, update] of ofTurn().entries()) {
      assert.equal(update, before[index]);
    }
    now += 1;
    assertNew("after 50 ms");
    change("p", 3);
    assert.equal(assertNew("after a change of the product")[0]?.stocks[0]?.version, 3);
    change("q", 2);
    assert.equal(assertNew("after a change of another product")[1]?.stocks.length, 2);
    now = STALE_AFTER_MS;
    assertNew("much later");
    now += 1;
    assert.ok(assertNew("when the mirror becomes stale").every(({ stale }) => stale));
    mirror.onCurrent(now);
    assert.ok(assertNew("when the mirror is current again").every(({ stale }) => !stale));
  });
});
