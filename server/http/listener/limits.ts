/** Bounds on every resource that a peer could exhaust. `LISTENER_LIMITS_DEFAULT` has the values. */
export interface ListenerLimits {
  /** Open connections. One more is closed at once. 10,000: about 130 MB at 13 KB for each watching connection. */
  readonly connectionsMax: number;
  /**
   * Open connections of one client, as `ListenerOptions.networkOf` groups them. 1,000: a mobile network puts many shoppers behind
   * one address, and one address must not exhaust `connectionsMax`.
   */
  readonly connectionsPerNetworkMax: number;
  /**
   * Milliseconds from accepting a connection to knowing its protocol, TLS handshake included; the same again from
   * there to the first SETTINGS of an HTTP/2 client. 10,000: time for three lost packets.
   */
  readonly firstByteMs: number;
  /** Milliseconds to receive the head of an HTTP/1.1 request. 10,000; `requestMs` where that is less. */
  readonly headersMs: number;
  /**
   * Milliseconds to receive a whole request, body included. 30,000: bodies are a few KB. Long-lived HTTP/2 streams
   * are exempt, since their client may send at any time. HTTP/1.1 has no such requests.
   */
  readonly requestMs: number;
  /**
   * Milliseconds from the head of a request to the end of its response. Bounds a peer that never reads. 120,000: above
   * the usual deadlines. A call with a longer deadline ends here all the same. Long-lived paths are exempt.
   */
  readonly responseMs: number;
  /**
   * Milliseconds that a connection may stay without an open request. 75,000: load balancers close theirs after
   * 60 s, and must do so first; otherwise they send a request into a connection that is closing.
   */
  readonly idleMs: number;
  /** Milliseconds that a peer has to close its half after the server closed its own; then the connection is destroyed. 5,000. */
  readonly closeMs: number;
  /** Milliseconds without traffic after which TCP keep-alive probes the peer. 60,000: finds clients that lost power. */
  readonly tcpKeepAliveMs: number;
  /** Milliseconds between checks of request and response timeouts, which expire late by up to this. 1,000; Node's default is 30,000. */
  readonly connectionsCheckingIntervalMs: number;
  /** Bytes of a request's head. 16,384, Node's default: tokens and cookies fit. */
  readonly headerBytesMax: number;
  /** Header fields of a request. One with more is refused, not truncated. 100. At least 4, the minimum of Node for HTTP/2 servers. */
  readonly headerPairsMax: number;
  /** Open streams of an HTTP/2 connection. 100, the minimum that RFC 9113 recommends; Node has no limit. All may arrive in one packet. */
  readonly streamsPerConnectionMax: number;
  /**
   * Pipelined requests of an HTTP/1.1 connection that have no response yet. 16: browsers and proxies do not pipeline. A thousand
   * at once would all start in one turn of the event loop. Beyond, the connection is destroyed.
   */
  readonly pipelinedMax: number;
  /**
   * Bytes of responses that all peers together may leave unread. 268,435,456: beyond, the connections with the most unread bytes are
   * destroyed. Otherwise clients that request the longest lists and never read could fill any memory.
   */
  readonly unreadBytesMax: number;
  /** Milliseconds between checks of unread bytes. 250. */
  readonly unreadCheckingIntervalMs: number;
  /**
   * Streams that a client may reset in a burst before its session is closed. 100: all that it may have open, as a proxy resets them
   * when it stops. Node's default is 1,000, which a client that reconnects after each burst can use to delay other callers.
   */
  readonly streamResetBurst: number;
  /** Resets a second by which that allowance refills. 33, Node's default against rapid reset (CVE-2023-44487). */
  readonly streamResetRate: number;
  /** Megabytes that Node may hold for one HTTP/2 session before it refuses streams. 10, Node's default. */
  readonly sessionMemoryMbMax: number;
  /** Entries of one SETTINGS frame. 32, Node's default; fewer than ten settings are in use. */
  readonly settingsMax: number;
  /** SETTINGS frames of one connection; each costs an acknowledgement. 100: clients send one or two. */
  readonly settingsFramesMax: number;
  /**
   * PINGs of one connection per check of timeouts, by default a second; each costs an acknowledgement. 10,000: gRPC clients estimate
   * bandwidth with one PING per round trip, which inside one data centre are some thousands.
   */
  readonly pingsPerCheckMax: number;
  /** PINGs of the server that may be unacknowledged. 10, Node's default; the server sends none of its own. */
  readonly outstandingPingsMax: number;
  /** Invalid frames after which a session is closed. 100: a tenth of Node's default, since a correct client sends none. */
  readonly invalidFramesMax: number;
  /** Log lines a second about failed connections; further ones are counted only. 10: a flood must not fill the disk. */
  readonly logLinesPerSecondMax: number;
  /** Streams refused for their number or memory after which a session is closed. 100, Node's default. */
  readonly rejectedStreamsMax: number;
}

export const LISTENER_LIMITS_DEFAULT: ListenerLimits = Object.freeze({
  connectionsMax: 10_000,
  connectionsPerNetworkMax: 1_000,
  firstByteMs: 10_000,
  headersMs: 10_000,
  requestMs: 30_000,
  responseMs: 120_000,
  idleMs: 75_000,
  closeMs: 5_000,
  tcpKeepAliveMs: 60_000,
  connectionsCheckingIntervalMs: 1_000,
  headerBytesMax: 16_384,
  headerPairsMax: 100,
  streamsPerConnectionMax: 100,
  pipelinedMax: 16,
  unreadBytesMax: 268_435_456,
  unreadCheckingIntervalMs: 250,
  streamResetBurst: 100,
  streamResetRate: 33,
  sessionMemoryMbMax: 10,
  settingsMax: 32,
  settingsFramesMax: 100,
  pingsPerCheckMax: 10_000,
  outstandingPingsMax: 10,
  invalidFramesMax: 100,
  rejectedStreamsMax: 100,
  logLinesPerSecondMax: 10,
});
