/** Everything that a peer could take too much of. `LISTENER_LIMITS_DEFAULT` has the values. */
export interface ListenerLimits {
  /** Open connections; one more is closed at once. 10,000: some 150 MB at the 15 KB that a watching one costs. */
  readonly connectionsMax: number;
  /**
   * Open connections of one client, as `ListenerOptions.networkOf` counts them. 1,000: a mobile network has many shoppers behind one
   * address; and somebody with one address must not keep all others out.
   */
  readonly connectionsPerNetworkMax: number;
  /**
   * Milliseconds from accepting a connection to knowing its protocol, the TLS handshake included, and from
   * there to the first SETTINGS of an HTTP/2 client. 10,000: time for three lost packets.
   */
  readonly firstByteMs: number;
  /** Milliseconds for the head of an HTTP/1.1 request. 10,000; `requestMs` where that is less. */
  readonly headersMs: number;
  /**
   * Milliseconds for receiving a whole request, body included. 30,000: bodies are a few KB. Long-lived
   * HTTP/2 streams are exempt, since their client may send at any time; HTTP/1.1 has no such requests.
   */
  readonly requestMs: number;
  /**
   * Milliseconds from a request's head to the end of its answer, so that a peer that never reads holds
   * nothing for ever. 120,000: above what a caller may ask for as a deadline. Long-lived paths are exempt.
   */
  readonly answerMs: number;
  /**
   * Milliseconds that a connection may stay without an open request. 75,000: balancers drop theirs after
   * 60 s, and must be the first to do so, or they send a request into a connection that is closing.
   */
  readonly idleMs: number;
  /** Milliseconds that a peer has to close its half after the server closed its own. 5,000; then it is cut. */
  readonly lingerMs: number;
  /** Milliseconds of silence after which TCP probes the peer. 60,000: finds watchers that lost their power. */
  readonly tcpKeepAliveMs: number;
  /** Milliseconds between looks at the times of requests and answers, which are cut late by up to this. 1,000; Node has 30,000. */
  readonly connectionsCheckingIntervalMs: number;
  /** Bytes of a request's head. 16,384, Node's default: tokens and cookies fit. */
  readonly headerBytesMax: number;
  /** Header fields of a request; one with more is refused, not cut short. 100. At least 4. */
  readonly headerPairsMax: number;
  /** Open streams of an HTTP/2 connection. 100, the least that the protocol asks for; Node has no limit. They may all come in one packet. */
  readonly streamsPerConnectionMax: number;
  /**
   * Requests that an HTTP/1.1 client may send before it has their answers. 16: browsers and edges wait for each; a thousand at once
   * would all begin in one turn of the event loop. Beyond, the connection is cut.
   */
  readonly pipelinedMax: number;
  /**
   * Bytes of answers that all peers together may leave unread. 268,435,456: beyond, whoever leaves most is cut. A reader of
   * the shop's own is quick; and who asks for the longest pages and reads none of them could fill any memory.
   */
  readonly unreadBytesMax: number;
  /** Milliseconds between looks at what is unread. 250. */
  readonly unreadCheckingIntervalMs: number;
  /**
   * Streams that a client may reset at once before its session ends. 100: all that it may have open, as an edge does when it
   * stops. Node has 1,000; whoever connects anew for every thousand has Orders wait for them.
   */
  readonly streamResetBurst: number;
  /** Resets a second by which that allowance grows back. 33, Node's default against rapid reset. */
  readonly streamResetRate: number;
  /** Megabytes that Node may hold for one HTTP/2 session before it refuses streams. 10, Node's default. */
  readonly sessionMemoryMbMax: number;
  /** Entries of one SETTINGS frame. 32, Node's default; under ten settings are in use. */
  readonly settingsMax: number;
  /** SETTINGS that a client may send on one connection; each costs an answer. 100: clients send one or two. */
  readonly settingsFramesMax: number;
  /**
   * PINGs of one connection from one look at times to the next, by default a second; each costs an answer. 10,000: clients of gRPC
   * measure their path with one each round trip, which in one data centre are some thousands.
   */
  readonly pingsPerLookMax: number;
  /** PINGs of the server that may be unanswered. 10, Node's default; it sends none of its own. */
  readonly outstandingPingsMax: number;
  /** Invalid frames after which a session ends. 100: a tenth of Node's default, for a sane client sends none. */
  readonly invalidFramesMax: number;
  /** Lines a second about connections that fail; what is beyond is counted. 10: a flood must not fill the disk. */
  readonly logLinesPerSecondMax: number;
  /** Streams refused for their number or their memory after which a session ends. 100, Node's default. */
  readonly rejectedStreamsMax: number;
}

export const LISTENER_LIMITS_DEFAULT: ListenerLimits = Object.freeze({
  connectionsMax: 10_000,
  connectionsPerNetworkMax: 1_000,
  firstByteMs: 10_000,
  headersMs: 10_000,
  requestMs: 30_000,
  answerMs: 120_000,
  idleMs: 75_000,
  lingerMs: 5_000,
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
  pingsPerLookMax: 10_000,
  outstandingPingsMax: 10,
  invalidFramesMax: 100,
  rejectedStreamsMax: 100,
  logLinesPerSecondMax: 10,
});
