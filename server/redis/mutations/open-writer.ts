import type { Redis } from "ioredis";
import type { Logger } from "pino";
import { ClusterPrimaries } from "../connection/cluster-primaries.ts";
import { warnOfDurability } from "../connection/durability.ts";
import type { Primaries } from "../connection/primaries.ts";
import type { Keys } from "../keys.ts";
import type { BatchOptions } from "./batch.ts";
import { ClusterWriter } from "./cluster-writer.ts";
import type { Fence } from "./fence.ts";
import type { MutationWriter } from "./mutation.ts";
import { PrimaryWriter } from "./primary-writer.ts";
import { WriteConnections } from "./write-connections.ts";

interface WriterOptions {
  readonly primaries: Primaries;
  /** How many replicas must acknowledge. */
  readonly acks: number;
  readonly fence: Fence;
  readonly keys: Keys;
  readonly log: Logger;
  readonly batch: BatchOptions;
}

/** Opens the connections that write to the primaries. */
export function openWriter(options: WriterOptions): MutationWriter {
  const { primaries } = options;
  return primaries instanceof ClusterPrimaries
    ? new ClusterWriter({ ...options, primaries })
    : openPrimaryWriter(options);
}

/** On one primary, each new connection checks all buckets before it is used. */
function openPrimaryWriter({ primaries, acks, fence, keys, log, batch }: WriterOptions): MutationWriter {
  const connections = new WriteConnections({
    acks,
    open: (name, prepare) => primaries.open(name, 0, prepare),
    confirmation: primaries.confirmation,
    instruments: batch.instruments,
    prepare: async (client: Redis) => {
      const layout = await primaries.checkLayout(client, fence.dataId);
      const isNewPrimary = await fence.check(client, layout);
      if (!layout.hasMarkers) {
        await primaries.recordMarkers(client);
      }
      if (isNewPrimary) {
        await warnOfDurability(client, acks, log);
      }
    },
  });
  return new PrimaryWriter({
    connections,
    fence,
    keys,
    batch,
    isOne: true,
    // The connections check the primary again before they take the batch.
    onFenced: () => connections.reconnect(),
  });
}
