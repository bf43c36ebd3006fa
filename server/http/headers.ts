/** Set to `true` on responses that may be out of date because the store cannot be reached. */
export const STALE_HEADER = "stock-stale";
