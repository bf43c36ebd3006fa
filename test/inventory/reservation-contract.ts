import { after, before, describe } from "node:test";
import { commitRules, lateCommitRules } from "./reservation-commit-rules.ts";
import { releaseRules, returnRules } from "./reservation-end-rules.ts";
import { ReservationFixture } from "./reservation-fixture.ts";
import { deletionRules, sizeRules } from "./reservation-product-rules.ts";
import { reserveRules } from "./reservation-reserve-rules.ts";
import { expiryRules, extendRules, listRules } from "./reservation-time-rules.ts";
import type { MakeStore, StoreUnderTest } from "./store-contract.ts";

/** The contract of reservations, as one test suite for every store. */
export function describeReservationContract(
  name: string,
  makeStore: MakeStore,
  options: { readonly skip?: string | undefined } = {},
): void {
  describe(`${name} implements the reservation contract`, { skip: options.skip ?? false }, () => {
    let opened: StoreUnderTest;
    before(async () => {
      opened = await makeStore();
    });
    after(() => opened?.close());
    const newFixture = () => new ReservationFixture(opened.store, opened);

    describe("reserve", () => reserveRules(newFixture));
    describe("commit", () => commitRules(newFixture));
    describe("commit after the deadline", () => lateCommitRules(newFixture));
    describe("release", () => releaseRules(newFixture));
    describe("extend", () => extendRules(newFixture));
    describe("return", () => returnRules(newFixture));
    describe("deleted products", () => deletionRules(newFixture));
    describe("size and text", () => sizeRules(newFixture));
    describe("list", () => listRules(makeStore));
    describe("expiry", () => expiryRules(makeStore));
  });
}
