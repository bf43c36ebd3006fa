import { RESPONSE_MS_MAX } from "../connection/client.ts";
import { storeError } from "../connection/error-replies.ts";
import type { Availability } from "../connection/primaries.ts";

/** Maximum number of calls in one queue. */
const QUEUE_MAX = 20_000;
/** Queue timeout of a call while Redis is busy with others: the first seconds of a flash sale. */
const QUEUE_MS_MAX = 5_000;

/** Options that every coalescer of calls shares. */
export function callLimits(availability: Availability) {
  return {
    queueMax: QUEUE_MAX,
    responseMsMax: RESPONSE_MS_MAX,
    queueMsMax: QUEUE_MS_MAX,
    errorOf: storeError,
    isReady: () => availability.isReady,
    unavailability: () => availability.unavailability,
    onceReady: (then: () => void) => availability.onceReady(then),
  };
}
