import { createRequire } from "node:module";

interface RequestQueue {
  readonly pending: readonly unknown[];
  scheduleCheckPendingRequests(): void;
}

const require = createRequire(import.meta.url);
const { prototype } = require("kafkajs/src/network/requestQueue") as { prototype: RequestQueue };
const { scheduleCheckPendingRequests } = prototype;

/**
 * Lets kafkajs check for pending requests only while there are any. Without it, kafkajs checks every millisecond on each
 * connection, from the first response of the broker on (its issue 1704), and Node.js warns of the negative delay of that timer
 * (its issue 1751). Of an idle producer and consumer that is 4% of a core.
 */
export function fixRequestQueue(): void {
  prototype.scheduleCheckPendingRequests = function (this: RequestQueue): void {
    if (this.pending.length > 0) {
      scheduleCheckPendingRequests.call(this);
    }
  };
}
