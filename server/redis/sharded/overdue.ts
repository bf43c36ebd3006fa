import type { Primaries } from "../connection/primaries.ts";
import { sendByCommand } from "../connection/primaries.ts";
import type { Keys } from "../keys.ts";

/** A bucket whose sorted set has members that are due. */
export interface DueBucket {
  readonly bucket: number;
  /** The score of the earliest one, ms since 1970. */
  readonly since: number;
}

/**
 * The buckets whose sorted set `keyOf(bucket)` has scores up to `latest`. A read, so that nothing is written where nothing
 * is due. Skips primaries that cannot be reached; rejects if none can.
 */
export async function dueBuckets(
  primaries: Primaries,
  { buckets }: Keys,
  keyOf: (bucket: number) => string,
  latest: number,
): Promise<DueBucket[]> {
  const all = Array.from({ length: buckets }, (_, bucket) => bucket);
  const groups = [...Map.groupBy(all, (bucket) => primaries.groupOf(bucket)).values()];
  const found = await Promise.allSettled(
    groups.map((group) =>
      sendByCommand(
        primaries,
        group,
        (bucket) => bucket,
        (client, asked) =>
          Promise.all(
            asked.map(async (bucket): Promise<DueBucket | undefined> => {
              const key = keyOf(bucket);
              const [, since] = await client.zrangebyscore(key, "-inf", latest, "WITHSCORES", "LIMIT", 0, 1);
              return since === undefined ? undefined : { bucket, since: Number(since) };
            }),
          ),
      ),
    ),
  );
  const reached = found.flatMap((each) => (each.status === "fulfilled" ? [each.value] : []));
  if (reached.length === 0 && found[0]?.status === "rejected") {
    throw found[0].reason;
  }
  return reached.flat().flatMap((due) => due ?? []);
}
