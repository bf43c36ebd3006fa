/** Which slot of a Redis Cluster a bucket is in, and which slots each primary gets. */
import { keySlot } from "../../server/redis/connection/key-slot.ts";
import { Keys } from "../../server/redis/keys.ts";

export const SLOTS = 16_384;

/** Both slots belong to the range. */
export interface SlotRange {
  readonly first: number;
  readonly last: number;
}

/** Slots that move from one primary to another; both are indexes. */
export interface Move {
  readonly from: number;
  readonly to: number;
  readonly ranges: readonly SlotRange[];
  readonly buckets: number;
}

/** The slots of all buckets, ascending. All keys of a bucket are in its slot. */
export function bucketSlots(buckets: number): number[] {
  const keys = new Keys(buckets);
  return Array.from({ length: buckets }, (_, bucket) => keySlot(keys.marker(bucket))).sort((a, b) => a - b);
}

/** One range for each primary, with equal numbers of buckets: they differ by one at most. */
export function planRanges(buckets: number, primaries: number): SlotRange[] {
  const slots = bucketSlots(buckets);
  const counts = shares(buckets, primaries);
  const ranges: SlotRange[] = [];
  let [first, used] = [0, 0];
  for (const [primary, count] of counts.entries()) {
    used += count;
    const isLast = primary === primaries - 1;
    // Half-way between the last bucket of this primary and the first bucket of the next.
    const last = isLast ? SLOTS - 1 : Math.floor(((slots[used - 1] ?? 0) + (slots[used] ?? SLOTS)) / 2);
    ranges.push({ first, last });
    first = last + 1;
  }
  return ranges;
}

/** What `redis-cli --cluster create` assigns: ranges with equal numbers of slots. */
export function evenRanges(primaries: number): SlotRange[] {
  const width = SLOTS / primaries;
  return Array.from({ length: primaries }, (_, primary) => ({
    first: Math.round(primary * width),
    last: Math.round((primary + 1) * width) - 1,
  }));
}

export function countBuckets(buckets: number, ranges: readonly SlotRange[]): number {
  return bucketSlots(buckets).filter((slot) => isWithin(slot, ranges)).length;
}

/**
 * The fewest buckets to move so that those primaries that stay have equal numbers of buckets; they differ by one at most.
 * `owned` has the ranges of each primary, none for a new one. A primary in `leaving` gives all its slots away.
 */
export function planMoves(
  buckets: number,
  owned: readonly (readonly SlotRange[])[],
  leaving: ReadonlySet<number> = new Set(),
): Move[] {
  const all = bucketSlots(buckets);
  const held = owned.map((ranges) => all.filter((slot) => isWithin(slot, ranges)));
  const staying = [...owned.keys()].filter((primary) => !leaving.has(primary));
  // The larger shares go to those that have most, so that fewest buckets move.
  const byHeld = staying.toSorted((a, b) => (held[b]?.length ?? 0) - (held[a]?.length ?? 0));
  const targets = new Map(shares(buckets, staying.length).map((share, n) => [byHeld[n] ?? 0, share]));
  const lacking = staying.map((primary) => ({
    primary,
    count: (targets.get(primary) ?? 0) - (held[primary]?.length ?? 0),
  }));
  const moves: Move[] = [];
  for (const [from, ranges] of owned.entries()) {
    const slots = [...(held[from] ?? [])];
    let rest = [...ranges];
    let surplus = slots.length - (targets.get(from) ?? 0);
    for (const receiver of lacking) {
      const count = Math.min(surplus, receiver.count);
      if (count <= 0) continue;
      // The highest slots, from that of a bucket on; of a primary that leaves, with its last bucket all that is left.
      const isLast = leaving.has(from) && count === slots.length;
      const [kept, moved] = splitAt(rest, isLast ? 0 : (slots[slots.length - count] ?? 0));
      moves.push({ from, to: receiver.primary, ranges: moved, buckets: count });
      slots.length -= count;
      surplus -= count;
      receiver.count -= count;
      rest = kept;
    }
    const [to] = staying;
    if (leaving.has(from) && rest.length > 0 && to !== undefined) {
      // It has slots, and no bucket in them.
      moves.push({ from, to, ranges: rest, buckets: 0 });
    }
  }
  return moves;
}

function shares(buckets: number, primaries: number): number[] {
  const [least, larger] = [Math.floor(buckets / primaries), buckets % primaries];
  return Array.from({ length: primaries }, (_, primary) => least + (primary < larger ? 1 : 0));
}

function isWithin(slot: number, ranges: readonly SlotRange[]): boolean {
  return ranges.some(({ first, last }) => first <= slot && slot <= last);
}

/** The parts below a slot, and from it on. */
function splitAt(ranges: readonly SlotRange[], slot: number): [SlotRange[], SlotRange[]] {
  const [below, above]: [SlotRange[], SlotRange[]] = [[], []];
  for (const { first, last } of ranges) {
    if (first < slot) below.push({ first, last: Math.min(last, slot - 1) });
    if (last >= slot) above.push({ first: Math.max(first, slot), last });
  }
  return [below, above];
}
