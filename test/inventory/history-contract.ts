import { after, before, describe } from "node:test";
import { actorRules } from "./history-actor-rules.ts";
import { lengthRules, referenceRules } from "./history-reference-rules.ts";
import type { MakeStore, StoreUnderTest } from "./store-contract.ts";

/** The contract of change records, as one test suite for every store. */
export function describeHistoryContract(
  name: string,
  makeStore: MakeStore,
  options: { readonly skip?: string | undefined } = {},
): void {
  describe(`${name} implements the history contract`, { skip: options.skip ?? false }, () => {
    let opened: StoreUnderTest;
    before(async () => {
      opened = await makeStore();
    });
    after(() => opened?.close());

    describe("actors", () => actorRules(() => opened.store));
    describe("references", () => referenceRules(() => opened.store, makeStore));
    describe("length", () => lengthRules(makeStore));
  });
}
