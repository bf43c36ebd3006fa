import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { parseNodes, versionOf } from "../../tools/cluster-plan/nodes.ts";
import {
  bucketSlots,
  countBuckets,
  evenRanges,
  type Move,
  planMoves,
  planRanges,
  SLOTS,
  type SlotRange,
} from "../../tools/cluster-plan/slots.ts";

const COUNTS = [8, 64, 100, 256].flatMap((buckets) =>
  [1, 2, 3, 4, 6, 7].map((primaries) => [buckets, primaries] as const),
);

/** The primary of each slot. Fails if a slot has two. */
function ownersOf(owned: readonly (readonly SlotRange[])[]): (number | undefined)[] {
  const owners: (number | undefined)[] = Array.from({ length: SLOTS });
  for (const [primary, ranges] of owned.entries()) {
    for (const { first, last } of ranges) {
      assert.ok(0 <= first && first <= last && last < SLOTS, `${first}-${last}`);
      for (let slot = first; slot <= last; slot++) {
        assert.equal(owners[slot], undefined, `slot ${slot}`);
        owners[slot] = primary;
      }
    }
  }
  return owners;
}

/** The slots of each primary after the moves. Fails if a slot moves that its primary does not have. */
function apply(owned: readonly (readonly SlotRange[])[], moves: readonly Move[]): SlotRange[][] {
  const owners = ownersOf(owned);
  for (const { from, to, ranges } of moves) {
    for (const { first, last } of ranges) {
      for (let slot = first; slot <= last; slot++) {
        assert.equal(owners[slot], from, `slot ${slot} moves from its primary`);
        owners[slot] = to;
      }
    }
  }
  return owned.map((_, primary) =>
    owners.flatMap((owner, slot) => (owner === primary ? [{ first: slot, last: slot }] : [])),
  );
}

const shares = (buckets: number, owned: readonly (readonly SlotRange[])[]): number[] =>
  owned.map((ranges) => countBuckets(buckets, ranges));

function assertEven(counts: readonly number[]): void {
  assert.ok(Math.max(...counts) - Math.min(...counts) <= 1, counts.join(", "));
}

describe("the plan of a cluster's slots", () => {
  it("gives each bucket a slot of its own", () => {
    for (const buckets of [8, 64, 256]) assert.equal(new Set(bucketSlots(buckets)).size, buckets);
  });

  it("gives every slot to one primary, and equal numbers of buckets to all", () => {
    for (const [buckets, primaries] of COUNTS) {
      const owned = planRanges(buckets, primaries).map((range) => [range]);
      assert.equal(owned.length, primaries);
      assert.ok(ownersOf(owned).every((owner) => owner !== undefined));
      assertEven(shares(buckets, owned));
    }
  });

  it("is more even than equal numbers of slots", () => {
    assert.deepEqual(
      shares(
        64,
        planRanges(64, 3).map((range) => [range]),
      ),
      [22, 21, 21],
    );
    assert.deepEqual(
      shares(
        64,
        evenRanges(3).map((range) => [range]),
      ),
      [22, 24, 18],
    );
    assert.deepEqual(
      shares(
        64,
        evenRanges(6).map((range) => [range]),
      ),
      [14, 8, 10, 14, 8, 10],
    );
  });

  it("moves the fewest buckets to new primaries", () => {
    for (const [before, after] of [
      [3, 4],
      [3, 6],
      [4, 6],
      [6, 12],
    ] as const) {
      const owned = Array.from({ length: after }, (_, n) => planRanges(64, before)[n] ?? []).map((each) =>
        [each].flat(),
      );
      const moves = planMoves(64, owned);
      const grown = apply(owned, moves);
      assertEven(shares(64, grown));
      const moved = moves.reduce((sum, { buckets }) => sum + buckets, 0);
      const received = shares(64, grown.slice(before)).reduce((sum, count) => sum + count, 0);
      assert.equal(moved, received, `${before} to ${after}: the old primaries receive nothing`);
    }
  });

  it("evens out a cluster with equal numbers of slots, and then moves nothing", () => {
    const owned = evenRanges(3).map((range) => [range]);
    const moves = planMoves(64, owned);
    assert.equal(
      moves.reduce((sum, { buckets }) => sum + buckets, 0),
      3,
    );
    const even = apply(owned, moves);
    assertEven(shares(64, even));
    assert.deepEqual(planMoves(64, even), []);
  });

  it("leaves no slot with a primary that is to be removed", () => {
    const owned: SlotRange[][] = planRanges(64, 4).map((range) => [range]);
    for (const leaving of [0, 3]) {
      const shrunk = apply(owned, planMoves(64, owned, new Set([leaving])));
      assert.deepEqual(shrunk[leaving], []);
      assertEven(shares(64, shrunk.toSpliced(leaving, 1)));
      assert.ok(ownersOf(shrunk).every((owner) => owner !== undefined));
    }
    // One whose slots have no bucket.
    const [first] = bucketSlots(64);
    const empty = [[{ first: 0, last: (first ?? 0) - 1 }], [{ first: first ?? 0, last: SLOTS - 1 }]];
    assert.deepEqual(apply(empty, planMoves(64, empty, new Set([0])))[0], []);
  });

  it("reads primaries and slots from CLUSTER NODES, and refuses one in which slots are not to be moved", () => {
    const [a, b, c] = ["a", "b", "c"].map((digit) => digit.repeat(40));
    const text = `${b} 10.0.0.2:6379@16379,node-2 master - 0 1 2 connected 5461-16383
${a} 10.0.0.1:6379@16379,node-1 myself,master - 0 0 1 connected 0-5459 5460
${c} 10.0.0.3:6379@16379,node-3 slave ${a} 0 1 1 connected
${c} 10.0.0.4:6379@16379 master - 0 1 0 connected
`;
    const primaries = parseNodes(text);
    assert.deepEqual(
      primaries.map(({ address }) => address),
      ["10.0.0.1:6379", "10.0.0.2:6379", "10.0.0.4:6379"],
    );
    assert.deepEqual(primaries[0]?.ranges, [
      { first: 0, last: 5459 },
      { first: 5460, last: 5460 },
    ]);
    const moving = text.replace("0-5459 5460", `0-5460 [93-<-${b}]`);
    assert.throws(() => parseNodes(moving), /10\.0\.0\.1:6379 is being moved/);
    assert.throws(
      () => parseNodes(text.replace("master - 0 1 2", "master,fail - 0 1 2")),
      /10\.0\.0\.2:6379/,
    );
  });

  it("knows which servers move slots atomically", () => {
    const valkey = (version: string) =>
      `redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:${version}\r\n`;
    assert.deepEqual(versionOf(valkey("9.1.2")), { server: "Valkey 9.1.2", migration: "valkey" });
    assert.equal(versionOf(valkey("8.1.0")).migration, "none");
    assert.equal(versionOf("redis_version:8.4.0\r\n").migration, "redis");
    assert.equal(versionOf("redis_version:10.0.0\r\n").migration, "redis");
    assert.equal(versionOf("redis_version:8.2.3\r\n").migration, "none");
  });
});
