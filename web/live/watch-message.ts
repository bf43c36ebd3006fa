/** Response header: the values may be out of date, because the server's store is unavailable. */
export const STALE_HEADER = "stock-stale";

/** Maximum number of products in one watch; the server rejects more. */
export const WATCHED_MAX = 1_000;

/** The stock of a product, without its details, which the element does not need. */
export interface WatchedStock {
  readonly productId: string;
  readonly available: number;
  readonly version: number;
  readonly updateTimeMs: number;
}

/** One message of a watch. */
export interface WatchMessage<Stock extends WatchedStock> {
  readonly stocks: readonly Stock[];
  readonly removed: readonly string[];
  /** Whether it is part of the snapshot at the start of a watch. */
  readonly isSnapshot: boolean;
  readonly serverTimeMs: number;
  /** Set if the server asks the client to reconnect after this delay. */
  readonly reconnectAfterMs: number | undefined;
  readonly isStale: boolean;
}

/**
 * Whether `next` replaces `shown`: if its version is newer. A snapshot with an older version and a later time also
 * does: it comes from a store that restarted without its data, as the embedded one does.
 */
export function supersedes(
  next: WatchedStock,
  shown: Pick<WatchedStock, "version" | "updateTimeMs">,
  isSnapshot: boolean,
): boolean {
  return next.version > shown.version || (isSnapshot && next.updateTimeMs > shown.updateTimeMs);
}
