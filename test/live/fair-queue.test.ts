import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { type FairItem, FairQueue, Flow } from "../../server/live/watch/fair-queue.ts";
import { seedOf } from "./states.ts";

class Item implements FairItem<Item> {
  readonly flow: Flow<Item>;
  readonly name: string;
  isQueued = false;
  next: Item | undefined;

  constructor(flow: Flow<Item>, name: string) {
    this.flow = flow;
    this.name = name;
  }
}

/** Items of a flow of their own: `name 0`, `name 1`, … */
function flowOf(name: string, count: number): Item[] {
  const flow = new Flow<Item>();
  return Array.from({ length: count }, (_, n) => new Item(flow, `${name} ${n}`));
}

function namesOf(items: readonly Item[]): string[] {
  return items.map(({ name }) => name);
}

function pushAll(queue: FairQueue<Item>, items: readonly Item[]): void {
  for (const item of items) {
    queue.push(item);
  }
}

function drain(queue: FairQueue<Item>): Item[] {
  const items: Item[] = [];
  for (let item = queue.shift(); item !== undefined; item = queue.shift()) {
    items.push(item);
  }
  return items;
}

describe("FairQueue", () => {
  it("serves flows with few items before those with many that were queued earlier", () => {
    const queue = new FairQueue<Item>();
    const many = flowOf("many", 50);
    const few = flowOf("few", 4);
    const one = flowOf("one", 1);
    pushAll(queue, [...many, ...few, ...one]);
    assert.deepEqual(namesOf(drain(queue)), namesOf([...few, ...one, ...many]));
    assert.equal(queue.isEmpty, true);
  });

  it("serves a flow with few items next, while one with many has its turn", () => {
    const queue = new FairQueue<Item>();
    const many = flowOf("many", 50);
    const one = flowOf("one", 1);
    pushAll(queue, many);
    const served = [queue.shift(), queue.shift()];
    pushAll(queue, one);
    assert.deepEqual(
      namesOf([...served.filter((item) => item !== undefined), ...drain(queue)]),
      namesOf([...many.slice(0, 2), ...one, ...many.slice(2)]),
    );
  });

  it("serves flows with many items in turns of 100", () => {
    const queue = new FairQueue<Item>();
    const [a, b] = [flowOf("a", 150), flowOf("b", 250)];
    pushAll(queue, [...a, ...b]);
    const expected = [a.slice(0, 100), b.slice(0, 100), a.slice(100), b.slice(100, 200), b.slice(200)];
    assert.deepEqual(namesOf(drain(queue)), namesOf(expected.flat()));
  });

  it("items that are queued again whenever they are served starve no other", () => {
    const queue = new FairQueue<Item>();
    const many = flowOf("many", 500);
    const singles = Array.from({ length: 10 }, (_, n) => flowOf(`single ${n}`, 1)).flat();
    const pairs = flowOf("pair", 2);
    const again = new Set([...singles, ...pairs]);
    pushAll(queue, [...many, ...again]);
    const served: Item[] = [];
    // Each flow is served 100 items in a round, and few more while it is sparse.
    const flows = 1 + singles.length + 1;
    for (let n = 0; n < 6 * flows * 100; n++) {
      const item = queue.shift();
      assert.ok(item);
      served.push(item);
      if (again.has(item)) {
        queue.push(item);
      }
    }
    assert.deepEqual(namesOf(served.filter(({ flow }) => flow === many[0]?.flow)), namesOf(many));
  });

  it("serves each item as often as it was queued, those of a flow in their order", (t) => {
    const steps = fc.array(
      fc.oneof(
        fc.record({ flow: fc.nat({ max: 4 }), first: fc.nat({ max: 149 }), count: fc.nat({ max: 150 }) }),
        fc.record({ shifts: fc.nat({ max: 200 }) }),
      ),
      { maxLength: 30 },
    );
    fc.assert(
      fc.property(steps, (all) => {
        const queue = new FairQueue<Item>();
        const flows = Array.from({ length: 5 }, (_, n) => flowOf(`flow ${n}`, 150));
        const queued = new Map<Flow<Item>, Item[]>();
        const serve = (): boolean => {
          const item = queue.shift();
          if (item === undefined) {
            return false;
          }
          assert.equal(item, queued.get(item.flow)?.shift());
          return true;
        };
        for (const step of all) {
          if ("shifts" in step) {
            for (let n = 0; n < step.shifts; n++) {
              serve();
            }
            continue;
          }
          for (const item of flows[step.flow]?.slice(step.first, step.first + step.count) ?? []) {
            const expected = queued.get(item.flow) ?? [];
            if (!expected.includes(item)) {
              queued.set(item.flow, [...expected, item]);
            }
            queue.push(item);
          }
        }
        while (serve());
        assert.deepEqual([...queued.values()].flat(), []);
        assert.equal(queue.isEmpty, true);
      }),
      { seed: seedOf(t), numRuns: 50 },
    );
  });
});
