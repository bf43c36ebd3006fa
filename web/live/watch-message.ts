/** Set on answers from a server that has lost its store. */
export const STALE_HEADER = "stock-stale";

/** A stock of a watch. `Details` is what the reader makes of the seller's words: the element leaves them out. */
export interface WatchedStock {
  readonly productId: string;
  readonly available: number;
  readonly version: number;
  readonly updateTimeMs: number;
}

/** One message of a watch, as far as its readers need it. */
export interface WatchMessage<Stock extends WatchedStock> {
  readonly stocks: readonly Stock[];
  readonly removed: readonly string[];
  /** Part of the opening picture, which says how things are and not what has changed. */
  readonly isSnapshot: boolean;
  readonly serverTimeMs: number;
  /** The server asks to go and to come back after this long. */
  readonly reconnectAfterMs: number | undefined;
  readonly isStale: boolean;
}

/**
 * Whether to show `next` in place of `shown`: only if its version is newer. One exception: a snapshot with an older
 * version and a later time comes from a store that began anew, as the embedded one does at every start.
 */
export function supersedes(
  next: WatchedStock,
  shown: Pick<WatchedStock, "version" | "updateTimeMs">,
  isSnapshot: boolean,
): boolean {
  return next.version > shown.version || (isSnapshot && next.updateTimeMs > shown.updateTimeMs);
}
