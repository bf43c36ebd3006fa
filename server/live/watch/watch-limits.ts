/** Bounds on what watches may use. */
export interface WatchLimits {
  /** Watches of this server. 10,000: at about 13 KB each, 130 MB; 500 MB if all take the Connect path. */
  readonly watchesMax: number;
  /** Watches of one connection. 100: an edge multiplexes many shoppers on one connection, and has several. */
  readonly watchesPerConnectionMax: number;
  /** Watches of one client address. 1,000: a mobile network has many shoppers behind one address. */
  readonly watchesPerAddressMax: number;
  /**
   * Milliseconds of one turn of the event loop that are spent on watches before other work runs: the most that they delay
   * calls of Orders. 4.
   */
  readonly turnMsMax: number;
  /** Milliseconds from the last message to a heartbeat. 10,000: proxies close idle streams after 30 s or more. */
  readonly heartbeatMs: number;
  /** Lifetime of a watch in milliseconds, ± 20%, so that watches are distributed over the servers again. 600,000. */
  readonly lifetimeMs: number;
  /** Milliseconds that a reader has to accept the last message at the end of the lifetime. Then the watch is closed. 30,000. */
  readonly readerGraceMs: number;
  /**
   * The interval in milliseconds over which clients are asked to reconnect at the end of a watch or of the server.
   * 1,500: with a client's jitter and its connection setup, all have reconnected within 3 s.
   */
  readonly reconnectSpreadMs: number;
}

export const WATCH_LIMITS_DEFAULT: WatchLimits = Object.freeze({
  watchesMax: 10_000,
  watchesPerConnectionMax: 100,
  watchesPerAddressMax: 1_000,
  turnMsMax: 4,
  heartbeatMs: 10_000,
  lifetimeMs: 600_000,
  readerGraceMs: 30_000,
  reconnectSpreadMs: 1_500,
});
