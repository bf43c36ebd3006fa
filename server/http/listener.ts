import { once } from "node:events";
import {
  createServer as createHttp1Server,
  type Server as Http1Server,
  type IncomingMessage,
  type ServerResponse,
  STATUS_CODES,
} from "node:http";
import {
  constants,
  createServer as createHttp2Server,
  type Http2Server,
  type Http2ServerRequest,
  type Http2ServerResponse,
  type IncomingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from "node:http2";
import { createServer as createNetServer, type Server, type ServerOpts, type Socket } from "node:net";
import { createServer as createTlsServer } from "node:tls";
import { type Log, throttledLog } from "../ops/throttled-log.ts";
import { AdmissionQueue } from "./admission-queue.ts";
import { unmapped } from "./client-network.ts";
import { Connection, closeStalledReaders } from "./connection.ts";
import { LISTENER_LIMITS_DEFAULT, type ListenerLimits } from "./listener-limits.ts";
import { awaitNegotiated, type Protocol, sniffProtocol } from "./protocol-detection.ts";

export { LISTENER_LIMITS_DEFAULT, type ListenerLimits } from "./listener-limits.ts";

/** PEM. With `clientCa`, clients are asked for a certificate, and may go without. */
export interface ListenerTls {
  readonly cert: Buffer | string;
  readonly key: Buffer | string;
  readonly clientCa?: Buffer | string | undefined;
}

export type ListenerRequest = IncomingMessage | Http2ServerRequest;
export type ListenerResponse = ServerResponse | Http2ServerResponse;

export interface ListenerOptions {
  /** The address to listen on: `127.0.0.1`, `0.0.0.0`, `::`. */
  readonly host: string;
  /** 0 takes a free port; `Listener.port` tells which. */
  readonly port: number;
  /** With it (PEM) the port speaks TLS only, and ALPN chooses the protocol. */
  readonly tls?: ListenerTls | undefined;
  /** Replaces single values of `LISTENER_LIMITS_DEFAULT`. */
  readonly limits?: Partial<ListenerLimits>;
  /** Answers a request. When it throws, the answer is 400: it does so on a request that it cannot read. */
  readonly handler: (req: ListenerRequest, res: ListenerResponse) => void;
  /** Says of a path, without its query, that its stream may stay open for hours. By default none may. */
  readonly isLongLived?: (path: string) => boolean;
  /** Answers an HTTP/2 stream without the cost of a request and a response, and says whether it did. */
  readonly tryHandleStream?: TryHandleStream | undefined;
  /** What counts as one client for `connectionsPerNetworkMax`, by address; by default, and where it is `undefined`, nothing does. */
  readonly networkOf?: (address: string) => string | undefined;
  readonly log: Log;
}

export type TryHandleStream = (
  stream: ServerHttp2Stream,
  headers: IncomingHttpHeaders,
  rawHeaders: readonly string[],
) => boolean;

/** One TCP port that speaks HTTP/1.1 and HTTP/2. */
export interface Listener {
  readonly port: number;
  readonly host: string;
  /** How many connections are open, those included that have not sent a byte. */
  connections(): number;
  /**
   * Ends the listener without cutting a request: it accepts nothing more, closes what is idle, sends GOAWAY
   * on HTTP/2 and `Connection: close` on HTTP/1.1, and resolves when the last connection closed. After
   * `deadlineMs` it destroys what is left; `destroyed` counts those. Never rejects; a second call gets the
   * first one's promise.
   */
  drain(deadlineMs: number): Promise<{ readonly destroyed: number }>;
}

/** Resolves when the port accepts connections. Rejects with Node's error when it cannot, as `EADDRINUSE`. */
export async function startListener(options: ListenerOptions): Promise<Listener> {
  const limits: ListenerLimits = { ...LISTENER_LIMITS_DEFAULT, ...options.limits };
  const log = throttledLog(options.log, limits.logLinesPerSecondMax);
  const networks = new Map<string, number>();
  const open = new Set<Connection>();
  const http1 = createHttp1(limits);
  const http2 = createHttp2(limits);
  const bySocket = new WeakMap<object, Connection>();
  const bySession = new WeakMap<object, Connection>();
  const serve = createServe(options);
  const isLongLived = (target: string | undefined) => options.isLongLived?.(pathOf(target)) === true;
  const beginnings = new AdmissionQueue();
  let drained: Promise<{ destroyed: number }> | undefined;

  http1.on("request", (req, res) => {
    const connection = bySocket.get(req.socket);
    if (connection === undefined || !connection.answering(res)) return res.destroy();
    // Whoever reads the request is told by its end; an error that comes after he has left would be nobody's, and end the process.
    req.on("error", ignore);
    if (req.rawHeaders.length > 2 * limits.headerPairsMax) return refuse(res, 431);
    serve(connection, req, res);
  });
  http1.on("clientError", (error, socket) => {
    const connection = bySocket.get(socket);
    if (connection === undefined) socket.destroy();
    else connection.refuseHttp1(error);
  });
  http2.on("request", (req, res) => {
    const connection = req.stream.session && bySession.get(req.stream.session);
    if (connection === undefined) return req.stream.destroy();
    req.on("error", ignore);
    // Who says who he is, is one of few, and does not wait for a crowd.
    if (req.headers.authorization !== undefined) return serve(connection, req, res);
    beginnings.add(connection, () => req.stream.destroyed || serve(connection, req, res));
  });
  if (options.tryHandleStream !== undefined) offerStreams(http2, options.tryHandleStream, bySession);

  function dispatch(connection: Connection, socket: Socket, protocol: Protocol): void {
    if (socket.destroyed) return;
    if (protocol === "HTTP/1.1") {
      connection.becameHttp1();
      bySocket.set(socket, connection);
      http1.emit("connection", socket);
      return;
    }
    const adopt = (session: ServerHttp2Session): void => {
      connection.becameHttp2(session);
      bySession.set(session, connection);
    };
    joinBuffered(socket);
    http2.once("session", adopt);
    http2.emit("connection", socket);
    http2.off("session", adopt);
  }

  function accept(raw: Socket): Connection {
    const connection = new Connection(raw, limits, isLongLived, log);
    open.add(connection);
    const network = options.networkOf?.(unmapped(raw.remoteAddress ?? ""));
    const ofNetwork = 1 + (network ? (networks.get(network) ?? 0) : 0);
    if (network) networks.set(network, ofNetwork);
    raw.once("close", () => {
      open.delete(connection);
      if (network) leave(networks, network);
    });
    if (network && ofNetwork > limits.connectionsPerNetworkMax) {
      connection.report("info", `${limits.connectionsPerNetworkMax} of ${network} are open`);
      connection.destroy();
    }
    return connection;
  }

  const dispatchInTurn: Dispatch = (connection, socket, protocol) =>
    beginnings.add(connection, () => dispatch(connection, socket, protocol));
  const server = options.tls
    ? createTls(limits, options.tls, accept, dispatchInTurn)
    : createPlain(limits, accept, dispatchInTurn);
  server.maxConnections = limits.connectionsMax;
  const unreadCheck = setInterval(
    () => closeStalledReaders(open, limits),
    limits.unreadCheckingIntervalMs,
  ).unref();
  const lateCheck = setInterval(() => {
    for (const connection of open) connection.closeOverdue();
  }, limits.connectionsCheckingIntervalMs).unref();
  server.once("close", () => {
    clearInterval(unreadCheck);
    clearInterval(lateCheck);
  });
  server.on("drop", (peer) => {
    const remote = `${peer?.remoteAddress}:${peer?.remotePort}`;
    log.info({ remote }, `Connection of ${remote} refused: ${limits.connectionsMax} are open`);
  });

  server.listen(options.port, options.host);
  await once(server, "listening").catch((error: unknown) => {
    http1.close();
    throw error;
  });
  server.on("error", (err) => log.error({ err }, `Cannot accept a connection: ${err.message}`));
  const address = server.address();
  if (address === null || typeof address === "string")
    throw new Error(`Cannot tell the port of "${address}"`);

  async function drain(deadlineMs: number): Promise<{ destroyed: number }> {
    let destroyed = 0;
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    const deadline = setTimeout(() => {
      destroyed = open.size;
      for (const connection of open) {
        connection.report("info", `it was open ${deadlineMs} ms after the drain began`);
        connection.destroy();
      }
    }, deadlineMs);
    for (const connection of open) connection.drain();
    http1.closeIdleConnections();
    await closed;
    // Node calls a server closed a moment before its last sockets are.
    await Promise.all([...open].map((connection) => connection.ended()));
    clearTimeout(deadline);
    http1.close();
    return { destroyed };
  }

  return {
    port: address.port,
    host: address.address,
    connections: () => open.size,
    drain: (deadlineMs) => {
      drained ??= drain(deadlineMs);
      return drained;
    },
  };
}

function ignore(): void {}

/**
 * Makes one chunk of what the socket has buffered. Node hands a new session chunk after chunk, and throws, with nobody there to catch
 * it, where the session ended itself by one that was not the last.
 */
function joinBuffered(socket: Socket): void {
  const chunks: Buffer[] = [];
  for (let chunk: Buffer | null = socket.read(); chunk !== null; chunk = socket.read()) chunks.push(chunk);
  if (chunks.length > 0) socket.unshift(Buffer.concat(chunks));
}

function leave(counts: Map<string, number>, key: string): void {
  const left = (counts.get(key) ?? 0) - 1;
  if (left > 0) counts.set(key, left);
  else counts.delete(key);
}

type Accept = (raw: Socket) => Connection;
type Dispatch = (connection: Connection, socket: Socket, protocol: Protocol) => void;

function tcpOptions(limits: ListenerLimits): ServerOpts {
  return { noDelay: true, keepAlive: true, keepAliveInitialDelay: limits.tcpKeepAliveMs };
}

function createPlain(limits: ListenerLimits, accept: Accept, dispatch: Dispatch): Server {
  return createNetServer(tcpOptions(limits), (socket) => {
    const connection = accept(socket);
    sniffProtocol(socket, (protocol) => dispatch(connection, socket, protocol));
  });
}

function createTls(
  limits: ListenerLimits,
  { cert, key, clientCa }: ListenerTls,
  accept: Accept,
  dispatch: Dispatch,
): Server {
  const server = createTlsServer({
    ...tcpOptions(limits),
    cert,
    key,
    ALPNProtocols: ["h2", "http/1.1"],
    ...(clientCa !== undefined && { ca: clientCa, requestCert: true, rejectUnauthorized: false }),
  });
  // The two sockets of a TLS connection do not know each other, but have the same two addresses.
  const handshaking = new Map<string, Connection>();
  server.on("connection", (raw: Socket) => {
    const addresses = addressesOf(raw);
    const connection = accept(raw);
    handshaking.set(addresses, connection);
    raw.once("close", () => {
      if (handshaking.get(addresses) !== connection) return;
      handshaking.delete(addresses);
      connection.report("debug", "it ended in the TLS handshake");
    });
  });
  server.on("tlsClientError", (error, socket) => {
    handshaking.get(addressesOf(socket))?.reportError(error);
    socket.destroy();
  });
  server.on("secureConnection", (socket) => {
    const addresses = addressesOf(socket);
    const connection = handshaking.get(addresses);
    if (connection === undefined) return socket.destroy();
    handshaking.delete(addresses);
    connection.secured(socket);
    awaitNegotiated(socket, socket.alpnProtocol, (protocol) => dispatch(connection, socket, protocol));
  });
  return server;
}

function addressesOf(socket: Socket): string {
  return `${socket.remoteAddress} ${socket.remotePort} ${socket.localAddress} ${socket.localPort}`;
}

function createHttp1(limits: ListenerLimits): Http1Server {
  const server = createHttp1Server({
    headersTimeout: Math.min(limits.headersMs, limits.requestMs),
    requestTimeout: limits.requestMs,
    keepAliveTimeout: limits.idleMs,
    connectionsCheckingInterval: limits.connectionsCheckingIntervalMs,
    maxHeaderSize: limits.headerBytesMax,
  });
  // Node cuts what is over the count. One more than the limit shows that there was more.
  server.maxHeadersCount = limits.headerPairsMax + 1;
  // It never listens itself, and without this event it would ignore its time-outs.
  server.emit("listening");
  return server;
}

function createHttp2(limits: ListenerLimits): Http2Server {
  return createHttp2Server({
    maxHeaderListPairs: limits.headerPairsMax,
    maxSessionMemory: limits.sessionMemoryMbMax,
    maxSettings: limits.settingsMax,
    maxOutstandingPings: limits.outstandingPingsMax,
    maxSessionInvalidFrames: limits.invalidFramesMax,
    maxSessionRejectedStreams: limits.rejectedStreamsMax,
    streamResetBurst: limits.streamResetBurst,
    streamResetRate: limits.streamResetRate,
    settings: {
      maxConcurrentStreams: limits.streamsPerConnectionMax,
      maxHeaderListSize: limits.headerBytesMax,
    },
  });
}

/** Offers each stream to `take` first; Node makes a request and a response of those that it leaves. */
function offerStreams(
  http2: Http2Server,
  take: TryHandleStream,
  bySession: WeakMap<object, Connection>,
): void {
  // Node's own bridge from streams to requests, which it put there for the listener of "request".
  const [toRequest] = http2.listeners("stream");
  if (toRequest === undefined) throw new Error("There is nobody who makes requests of streams");
  http2.removeAllListeners("stream");
  http2.on("stream", (stream: ServerHttp2Stream, headers, flags, rawHeaders) => {
    const connection = stream.session && bySession.get(stream.session);
    // Who resets what he opens at once has lost his session before his streams are told of.
    if (connection === undefined) return void stream.on("error", ignore).destroy();
    if (!take(stream, headers, rawHeaders)) {
      Reflect.apply(toRequest, http2, [stream, headers, flags, rawHeaders]);
    }
  });
}

/** The path of a request's target, without its query. */
export function pathOf(target = ""): string {
  const query = target.indexOf("?");
  return query < 0 ? target : target.slice(0, query);
}

/** The handler with its bounds: a time for the request, one for the answer, and 400 when it throws. */
function createServe({
  handler,
}: ListenerOptions): (connection: Connection, req: ListenerRequest, res: ListenerResponse) => void {
  return (connection, req, res) => {
    try {
      // What nobody reads of a request is thrown away: a stream with unread data ends in a reset, and a
      // connection of HTTP/1.1 never comes to its next request.
      res.on("finish", () => req.resume());
      handler(req, res);
    } catch (error) {
      connection.report("warn", "the handler threw on a request", error);
      if (!res.headersSent) refuse(res, 400);
      else if ("stream" in res) res.stream.close(constants.NGHTTP2_INTERNAL_ERROR);
      else res.destroy();
    }
  };
}

/** Answers with nothing but a status and its name, and ends an HTTP/1.1 connection, whose body is unread. */
function refuse(res: ListenerResponse, status: number): void {
  for (const name of res.getHeaderNames()) res.removeHeader(name);
  res.statusCode = status;
  res.setHeader("Content-Type", "text/plain; charset=utf-8");
  if (!("stream" in res)) res.setHeader("Connection", "close");
  res.end(`${STATUS_CODES[status]}\n`);
}
