/** Set to `true` on responses that may be out of date because the store cannot be reached. */
export const STALE_HEADER = "stock-stale";

/** Shared, so that an empty set of header fields costs no memory per request. */
export const NO_HEADERS: Readonly<Record<string, never>> = Object.freeze({});
