/** Everything that watchers could take too much of. */
export interface WatchLimits {
  /** Watches of this server. 10,000: at some 15 KB each, 150 MB; half a gigabyte where all go through Connect. */
  readonly watchesMax: number;
  /** Watches of one connection. 100: an edge carries many shoppers on one, and has several. */
  readonly watchesPerConnectionMax: number;
  /** Watches of one client address. 1,000: a mobile network has many shoppers behind one. */
  readonly watchesPerAddressMax: number;
  /** Milliseconds after the last message until a heartbeat. 10,000: proxies cut silent streams from 30 s on. */
  readonly heartbeatMs: number;
  /** Milliseconds that a watch lives, ± 20%: so that watchers spread over the servers again. 600,000. */
  readonly lifeMs: number;
  /**
   * Milliseconds over which watchers are asked to come back at the end of their life or of the server. 1,500: with a client's
   * jitter and its connecting, all are back within 3 s.
   */
  readonly reconnectMs: number;
}

export const WATCH_LIMITS_DEFAULT: WatchLimits = Object.freeze({
  watchesMax: 10_000,
  watchesPerConnectionMax: 100,
  watchesPerAddressMax: 1_000,
  heartbeatMs: 10_000,
  lifeMs: 600_000,
  reconnectMs: 1_500,
});
