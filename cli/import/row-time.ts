import type { Timestamp } from "@bufbuild/protobuf/wkt";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";

/** A time in µs since 1970 as a message. */
export function microsTimestamp(micros: number): Timestamp {
  const time = timestampFromMs(Math.floor(micros / 1_000));
  time.nanos += (micros % 1_000) * 1_000;
  return time;
}
