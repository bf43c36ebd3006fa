import { setTimeout as pause } from "node:timers/promises";
import { pino } from "pino";
import { Catalog } from "../../../server/live/catalog/catalog.ts";
import { Mirror } from "../../../server/live/mirror.ts";
import { LiveReads } from "../../../server/live/reads.ts";
import { SoldOutGate } from "../../../server/live/sold-out-gate.ts";
import { Hub } from "../../../server/live/watch/hub.ts";
import { RedisFeed } from "../../../server/redis/feed/feed.ts";
import { BUCKETS_DEFAULT, Keys } from "../../../server/redis/keys.ts";
import { RedisStore } from "../../../server/redis/store.ts";

const START_MS_MAX = 10_000;
const LOADED_POLL_MS = 10;

/** The service's own store and live view, for peers that differ only in their protocol layer. */
export async function openLiveStore() {
  const endpoint = { url: process.env["REDIS_URL"] ?? "" };
  const log = pino({ level: "warn" });
  const keys = new Keys(BUCKETS_DEFAULT);
  const mirror = new Mirror();
  const store = new RedisStore({
    endpoint,
    log,
    keys,
    onAcknowledged: (productId, version) => mirror.expect(productId, version),
  });
  await store.start(START_MS_MAX);
  const live = {
    mirror,
    reads: new LiveReads(mirror, store),
    catalog: new Catalog(mirror),
    hub: new Hub(mirror),
    soldOut: new SoldOutGate({ mirror, reservations: store.reservations, ageMsMax: 0 }),
  };
  new RedisFeed({ endpoint, keys, log }).start(mirror);
  while (!mirror.isLoaded) {
    await pause(LOADED_POLL_MS);
  }
  return { store, live };
}
