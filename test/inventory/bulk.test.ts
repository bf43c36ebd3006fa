import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { type BulkItem, BulkQueue } from "../../server/inventory/bulk.ts";
import { InventoryError } from "../../server/inventory/errors.ts";

const NEVER = new AbortController().signal;
const bucketOf = (productId: string): number => Number(productId.split("-")[1]) % 4;
const unavailable = () => new InventoryError("STORE_UNAVAILABLE", "away");

/** Mutations whose ends the test decides. */
class Store {
  readonly started: string[] = [];
  readonly #open = new Map<string, PromiseWithResolvers<string>>();
  inStoreMax = 0;

  item(productId: string, name = productId): BulkItem<string> {
    return {
      productId,
      run: () => {
        this.started.push(name);
        const ending = Promise.withResolvers<string>();
        this.#open.set(name, ending);
        this.inStoreMax = Math.max(this.inStoreMax, this.#open.size);
        return ending.promise;
      },
    };
  }

  get open(): string[] {
    return [...this.#open.keys()];
  }

  async end(name: string, error?: Error): Promise<void> {
    const ending = this.#open.get(name);
    this.#open.delete(name);
    if (error === undefined) {
      ending?.resolve(name);
    } else {
      ending?.reject(error);
    }
    await turn();
  }

  async endAll(): Promise<void> {
    for (let names = this.open; names.length > 0; names = this.open) {
      await Promise.all(names.map((name) => this.end(name)));
    }
  }
}

const many = (store: Store, count: number, prefix = "p") =>
  Array.from({ length: count }, (_, n) => store.item(`${prefix}-${n}`));

describe("BulkQueue", () => {
  it("resolves with the results in the order of the items, whatever the order of their ends", async () => {
    const store = new Store();
    const results = new BulkQueue(bucketOf).run(many(store, 300), NEVER);
    await turn();
    for (const name of store.open.reverse()) {
      await store.end(name);
    }
    await store.endAll();
    assert.deepEqual(
      (await results).map((result) => (result.status === "fulfilled" ? result.value : result.status)),
      Array.from({ length: 300 }, (_, n) => `p-${n}`),
    );
  });

  it("runs one bucket after the other", async () => {
    const store = new Store();
    const results = new BulkQueue(bucketOf).run(many(store, 1_000), NEVER);
    await turn();
    await store.endAll();
    await results;
    const buckets = store.started.map(bucketOf);
    assert.deepEqual(
      buckets,
      [...buckets].sort((a, b) => a - b),
    );
  });

  it("starts a mutation of a product after the end of the one before it, also if that failed", async () => {
    const store = new Store();
    const names = ["first", "second", "third"];
    const results = new BulkQueue(bucketOf).run(
      names.map((name) => store.item("p-1", name)),
      NEVER,
    );
    await turn();
    assert.deepEqual(store.started, ["first"]);
    await store.end("first", new InventoryError("STOCK_OUT_OF_RANGE", "no"));
    assert.deepEqual(store.started, ["first", "second"]);
    await store.end("second");
    await store.endAll();
    assert.deepEqual(
      (await results).map(({ status }) => status),
      ["rejected", "fulfilled", "fulfilled"],
    );
  });

  it("has at most 128 mutations in the store, over all batches, which take turns", async () => {
    const store = new Store();
    const queue = new BulkQueue(bucketOf);
    const large = queue.run(many(store, 1_000, "large"), NEVER);
    await turn();
    const small = queue.run(many(store, 3, "small"), NEVER);
    await turn();
    assert.equal(store.open.length, 128);
    const [first = "", second = "", third = ""] = store.open;
    await store.end(first);
    await store.end(second);
    await store.end(third);
    // The small batch has waited behind the 128 of the large one that wait, not behind all of them.
    for (let ended = 0; ended < 128; ended++) {
      const [next = ""] = store.open;
      await store.end(next);
    }
    assert.ok(store.started.filter((name) => name.startsWith("small")).length === 3);
    assert.ok(store.started.length < 300, `${store.started.length} had started`);
    await store.endAll();
    await Promise.all([large, small]);
    assert.equal(store.inStoreMax, 128);
  });

  it("does not start what remains after the store became unavailable", async () => {
    const store = new Store();
    const results = new BulkQueue(bucketOf).run(many(store, 500), NEVER);
    await turn();
    const [first = "", ...others] = store.open;
    await store.end(first, unavailable());
    await Promise.all(others.map((name) => store.end(name)));
    const settled = await results;
    assert.equal(store.started.length, 128);
    assert.equal(settled.filter(({ status }) => status === "fulfilled").length, 127);
    for (const result of settled) {
      assert.ok(
        result.status === "fulfilled" || (result.reason as InventoryError).code === "STORE_UNAVAILABLE",
      );
    }
  });

  it("does not start what remains when the call is aborted", async () => {
    const store = new Store();
    const aborting = new AbortController();
    const results = new BulkQueue(bucketOf).run(many(store, 500), aborting.signal);
    await turn();
    aborting.abort(new Error("deadline"));
    await store.endAll();
    const settled = await results;
    assert.equal(store.started.length, 128);
    assert.equal(settled.filter(({ status }) => status === "rejected").length, 500 - 128);
  });

  it("rejects a batch if 64 are in flight, and takes the next one when one has ended", async () => {
    const store = new Store();
    const queue = new BulkQueue(bucketOf);
    const running = Array.from({ length: 64 }, (_, n) => queue.run([store.item(`p-${n}`)], NEVER));
    await assert.rejects(
      queue.run([store.item("p-100")], NEVER),
      (error) => error instanceof InventoryError && error.code === "OVERLOADED" && /64/.test(error.message),
    );
    await turn();
    await store.end("p-0");
    await running[0];
    running.push(queue.run([store.item("p-101")], NEVER));
    await turn();
    await store.endAll();
    await Promise.all(running);
  });
});
