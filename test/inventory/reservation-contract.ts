import { after, before, describe } from "node:test";
import { Bench } from "./reservation-bench.ts";
import { commitRules, lateCommitRules } from "./reservation-commit-rules.ts";
import { releaseRules, returnRules } from "./reservation-end-rules.ts";
import { deletionRules, sizeRules } from "./reservation-product-rules.ts";
import { reserveRules } from "./reservation-reserve-rules.ts";
import { expiryRules, extendRules, listRules } from "./reservation-time-rules.ts";
import type { MakeStore, StoreUnderTest } from "./store-contract.ts";

/** The rules of reservations that every store obeys, as one suite for all of them. */
export function describeReservationContract(
  name: string,
  makeStore: MakeStore,
  options: { readonly skip?: string | undefined } = {},
): void {
  describe(`${name} obeys the contract of reservations`, { skip: options.skip ?? false }, () => {
    let opened: StoreUnderTest;
    before(async () => {
      opened = await makeStore();
    });
    after(() => opened?.close());
    const newBench = () => new Bench(opened.store);

    describe("reserve", () => reserveRules(newBench));
    describe("commit", () => commitRules(newBench));
    describe("commit after the deadline", () => lateCommitRules(newBench));
    describe("release", () => releaseRules(newBench));
    describe("extend", () => extendRules(newBench));
    describe("return", () => returnRules(newBench));
    describe("deleted products", () => deletionRules(newBench));
    describe("size and text", () => sizeRules(newBench));
    describe("list", () => listRules(makeStore));
    describe("expiry", () => expiryRules(makeStore));
  });
}
