import type { RedisStore } from "../../../server/redis/store.ts";
import type { Seller } from "../seller.ts";
import type { Letters } from "./letters.ts";
import type { Sellers } from "./sellers.ts";

export async function wrongStock(
  store: RedisStore,
  seller: Seller,
  bought: ReadonlyMap<string, number>,
): Promise<string[]> {
  const problems: string[] = [];
  for (const [productId, told] of seller.told) {
    const { declared, declareTimeMicros, deleted, sold, reserved } = await store.getLedger(productId);
    const found = JSON.stringify({ declared, declareTimeMicros, deleted, sold, reserved });
    const expected = JSON.stringify({
      declared: told.declared,
      declareTimeMicros: told.declareTimeMicros,
      deleted: told.deleted,
      sold: bought.get(productId) ?? 0,
      reserved: 0,
    });
    if (found !== expected) {
      problems.push(`${productId} is ${found}; the events and purchases make it ${expected}`);
    }
  }
  return problems;
}

export async function wrongEvents(store: RedisStore, sellers: Sellers): Promise<string[]> {
  const problems: string[] = [];
  for (const id of [...sellers.committed, ...sellers.partial]) {
    const declared = await store.getLedger(id).then(
      (ledger) => ledger.declared,
      () => undefined,
    );
    if (declared !== 3) {
      problems.push(`${id} was not applied`);
    }
  }
  for (const id of sellers.aborted) {
    if (
      await store.getLedger(id).then(
        () => true,
        () => false,
      )
    ) {
      problems.push(`${id} was applied, although its transaction was aborted`);
    }
  }
  const collections = new Map(
    (await store.listCollections()).map(({ collectionId, name }) => [collectionId, name]),
  );
  for (const [id, name] of sellers.collections) {
    if (collections.get(id) !== name) {
      problems.push(`${id} has the name ${collections.get(id)}, not ${name}`);
    }
  }
  return problems;
}

export function wrongLetters(sellers: Sellers, letters: Letters): string[] {
  const problems = letters.unexpected.slice(0, 10).map((letter) => `unexpected letter: ${letter}`);
  for (const [number, { kind, reason }] of sellers.bad) {
    const found = letters.byNumber.get(number);
    if (found?.reason !== reason) {
      problems.push(
        `bad-${number} (${kind}) has ${found === undefined ? "no letter" : `a letter with ${found.reason}`}`,
      );
    }
  }
  if (letters.batches < sellers.batchLetters) {
    problems.push(`${letters.batches} letters of batches, of ${sellers.batchLetters}`);
  }
  return problems;
}
