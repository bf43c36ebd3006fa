import { randomUUID } from "node:crypto";
import type { ChangeFeed } from "../../server/inventory/feed.ts";
import type { ChangeOutbox } from "../../server/inventory/outbox.ts";
import type { InventoryStore } from "../../server/inventory/store.ts";
import { until } from "../support/until.ts";

const HOUR_MS = 3_600_000;
const LEASE_MS = 60_000;
/** A seller's time long past, µs. */
const U = 1_700_000_000_123_456;

interface Parts {
  readonly store: InventoryStore & { unreadyReason(): Promise<string | undefined> };
  readonly feed: ChangeFeed;
  readonly outbox: ChangeOutbox;
  readonly buckets: number;
  /** Writes the count of a product in a plain key, as the Go service does. */
  readonly putPlain: (productId: string, count: number) => Promise<unknown>;
}

/**
 * Makes every call of the store, the feed and the outbox, one after the other: each operation of each script runs at least
 * once. The reservations have lines of two products in other buckets than their own.
 */
export async function makeEveryCall({ store, feed, outbox, buckets, putPlain }: Parts): Promise<void> {
  const { reservations } = store;
  /** An ID whose bucket is the n-th. */
  const idIn = (bucket: number, word: string): string => {
    for (;;) {
      const id = `${word}-${randomUUID().slice(0, 8)}`;
      if (store.bucketOf(id) === bucket % buckets) return id;
    }
  };
  const [mug, bowl] = [idIn(1, "mug"), idIn(2, "bowl")];
  const put = (productId: string) =>
    store.putProduct({ productId, details: undefined, declared: 100, updateTimeMicros: U });
  await put(mug);
  await put(bowl);
  await store.unreadyReason();

  // Products that only the Go service knows, one for each call that can meet one first.
  const plain = async (bucket: number): Promise<string> => {
    const productId = idIn(bucket, "plain");
    await putPlain(productId, 9);
    return productId;
  };
  await store.getStock(await plain(3));
  await put(await plain(3));
  await store.deleteProduct({ productId: await plain(3), updateTimeMicros: U });
  await store.setSafetyStock(await plain(3), 1);
  const sold = await plain(3);
  await reservations.reserve({
    reservationId: idIn(4, "order"),
    lines: [{ productId: sold, quantity: 1 }],
    ttlMs: HOUR_MS,
  });

  const countId = idIn(5, "count");
  const content = { productId: mug, reason: "" };
  await store.countStock({ ...content, count: 90, expectedVersion: undefined, countId });
  await store.adjustStock({ ...content, delta: 1, adjustmentId: idIn(5, "adjustment") });
  await store.setSafetyStock(mug, 2);
  await store.putCollection({ collectionId: "shelf", collection: undefined, updateTimeMicros: U });
  await store.listCollections();
  // Of one bucket: on one primary, reads that are made together share a script call whatever their buckets are.
  const other = idIn(1, "mug");
  await put(other);
  await store.batchGetStock([mug, other]);
  await store.batchGetLedgers([mug, other]);
  await store.listChanges(mug, { limit: 10, beforeVersion: undefined });
  const page = { limit: 10, after: undefined };
  await store.findChanges({ referenceId: countId, productId: undefined }, page);

  const lines = [mug, bowl].map((productId) => ({ productId, quantity: 2 }));
  const reserve = async (ttlMs = HOUR_MS): Promise<string> => {
    const reservationId = idIn(0, "order");
    await reservations.reserve({ reservationId, lines, ttlMs });
    return reservationId;
  };
  const committed = await reserve();
  await reservations.extend(committed, HOUR_MS);
  await reservations.get(committed);
  await reservations.commit({ reservationId: committed, lines: undefined, strict: false });
  await reservations.return({
    reservationId: committed,
    returnId: idIn(5, "return"),
    lines: lines.slice(0, 1),
  });
  await store.findChanges({ referenceId: committed, productId: undefined }, page);
  const partly = await reserve();
  await reservations.commit({ reservationId: partly, lines: lines.slice(1), strict: true });
  await reservations.release(await reserve());
  const short = [
    { productId: mug, quantity: 1 },
    { productId: bowl, quantity: 1_000 },
  ];
  await reservations
    .reserve({ reservationId: idIn(0, "order"), lines: short, ttlMs: HOUR_MS })
    .catch(() => undefined);
  const late = await reserve(1);
  const isExpired = async (): Promise<boolean> => {
    const expired = await reservations.expireDue(100);
    return expired.some(({ reservationId }) => reservationId === late);
  };
  await until(isExpired, "the reservation expires");
  await reservations.commit({ reservationId: late, lines: undefined, strict: false });
  const active = await reserve();
  await reservations.list({ ...page, expireBeforeMs: undefined });
  await reservations.listOfProduct(mug, { ...page, expireBeforeMs: undefined });
  await reservations.countActive();
  await reservations.release(active);
  await store.deleteProduct({ productId: bowl, updateTimeMicros: U + 1 });

  const loaded = Promise.withResolvers<void>();
  feed.start({
    onStart: () => undefined,
    onUnavailable: () => undefined,
    onSuperseded: () => undefined,
    onLoading: () => undefined,
    onProducts: () => undefined,
    onLoaded: () => loaded.resolve(),
    onChanges: () => undefined,
    onCollections: () => undefined,
    onCurrent: () => undefined,
  });
  await loaded.promise;

  const owner = randomUUID();
  await until(() => outbox.announce(owner, LEASE_MS), "the outbox is connected");
  const bucket = store.bucketOf(mug);
  const lease = await outbox.acquire(bucket, owner, LEASE_MS);
  if (lease === undefined) throw new Error("The lease of a new bucket is taken");
  await outbox.renew(lease, LEASE_MS);
  const batch = await outbox.read(lease, 10);
  await outbox.advance(lease, batch?.entries ?? []);
  for await (const _ of outbox.snapshot(bucket));
  await outbox.snapshotDone(lease);
  await outbox.backlog();
  await outbox.release(lease);
  await outbox.retire(owner);
}
