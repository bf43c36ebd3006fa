import type { Logger } from "pino";
import type { Primaries } from "../../server/redis/connection/primaries.ts";
import { DamagedRecords } from "../../server/redis/damaged-records.ts";
import type { Keys } from "../../server/redis/keys.ts";
import { Fence } from "../../server/redis/mutations/fence.ts";
import type { MutationWriter } from "../../server/redis/mutations/mutation.ts";
import { openWriter } from "../../server/redis/mutations/open-writer.ts";

const DAY_MS = 86_400_000;

/** Opens a writer as a server does, without acknowledgement by replicas, and waits until it is ready. */
export async function openTestWriter(primaries: Primaries, keys: Keys, log: Logger): Promise<MutationWriter> {
  const writer = openWriter({
    primaries,
    acks: 0,
    fence: new Fence(keys, log, undefined),
    keys,
    log,
    batch: {
      operationRetentionMs: DAY_MS,
      changesKeptPerProduct: 100,
      onAcknowledged: () => {},
      damagedRecords: new DamagedRecords(log, undefined),
      instruments: {},
    },
  });
  await writer.firstReady;
  return writer;
}
