import { once } from "node:events";
import { type Server as Http1Server, STATUS_CODES } from "node:http";
import { constants, type Http2Server } from "node:http2";
import type { Server, Socket } from "node:net";
import { type Log, throttledLog } from "../../ops/throttled-log.ts";
import { unmapped } from "../client-network.ts";
import { type HttpRequest, type HttpResponse, pathOf } from "../message.ts";
import { AdmissionQueue } from "./admission-queue.ts";
import { Connection } from "./connection.ts";
import { ConnectionCounts } from "./connection-counts.ts";
import { LISTENER_LIMITS_DEFAULT, type ListenerLimits } from "./limits.ts";
import type { Protocol } from "./protocol-detection.ts";
import {
  createHttp1Server,
  createHttp2Server,
  offerStreams,
  startSession,
  type TryHandleStream,
} from "./protocol-servers.ts";
import { closeStalledReaders } from "./stalled-readers.ts";
import { createTransport, type ListenerTls } from "./transport.ts";

export interface ListenerOptions {
  /** The address to listen on: `127.0.0.1`, `0.0.0.0`, `::`. */
  readonly host: string;
  /** 0 selects a free port; `Listener.port` has it. */
  readonly port: number;
  /** With it the port speaks TLS only, and ALPN selects the protocol. */
  readonly tls?: ListenerTls | undefined;
  /** Overrides single values of `LISTENER_LIMITS_DEFAULT`. */
  readonly limits?: Partial<ListenerLimits>;
  /** Handles a request. When it throws, as on a request that it cannot parse, the response is 400. */
  readonly handler: (request: HttpRequest, response: HttpResponse) => void;
  /** Whether a stream on this path, without its query, may stay open for hours. By default none may. */
  readonly isLongLived?: (path: string) => boolean;
  readonly tryHandleStream?: TryHandleStream | undefined;
  /** Groups addresses into clients for `connectionsPerNetworkMax`. Addresses for which it returns `undefined` are not limited. */
  readonly networkOf?: (address: string) => string | undefined;
  readonly log: Log;
}

interface DrainResult {
  /** Connections that were still open at the deadline. */
  readonly destroyed: number;
}

/** One TCP port that speaks HTTP/1.1 and HTTP/2. */
export interface Listener {
  readonly port: number;
  readonly host: string;
  /** Open connections, including those that have not sent a byte. */
  connections(): number;
  /**
   * Closes the listener without interrupting a request: it accepts no more connections, closes idle ones, sends GOAWAY
   * on HTTP/2 and `Connection: close` on HTTP/1.1, and resolves when the last connection has closed. After
   * `deadlineMs` it destroys the rest. Never rejects. Further calls return the promise of the first.
   */
  drain(deadlineMs: number): Promise<DrainResult>;
}

/** Resolves when the port accepts connections. Rejects with Node's error, such as `EADDRINUSE`, when it cannot. */
export async function startListener(options: ListenerOptions): Promise<Listener> {
  const port = new Port(options);
  return await port.listen(options);
}

class Port {
  readonly #options: ListenerOptions;
  readonly #limits: ListenerLimits;
  readonly #log: Log;
  readonly #open = new Set<Connection>();
  readonly #openByNetwork = new ConnectionCounts();
  /** By the socket of an HTTP/1.1 connection, or the session of an HTTP/2 connection. */
  readonly #connections = new WeakMap<object, Connection>();
  readonly #admissions = new AdmissionQueue();
  readonly #http1: Http1Server;
  readonly #http2: Http2Server;
  readonly #transport: Server;
  #drained: Promise<DrainResult> | undefined;

  constructor(options: ListenerOptions) {
    this.#options = options;
    this.#limits = { ...LISTENER_LIMITS_DEFAULT, ...options.limits };
    this.#log = throttledLog(options.log, this.#limits.logLinesPerSecondMax);
    this.#http1 = this.#createHttp1();
    this.#http2 = this.#createHttp2();
    this.#transport = this.#createTransport();
  }

  async listen({ host, port }: ListenerOptions): Promise<Listener> {
    const transport = this.#transport;
    transport.listen(port, host);
    await once(transport, "listening").catch((error: unknown) => {
      this.#http1.close();
      throw error;
    });
    transport.on("error", (err) => this.#log.error({ err }, `Could not accept a connection: ${err.message}`));
    this.#startChecks();
    const address = transport.address();
    if (address === null || typeof address === "string") throw new Error(`"${address}" has no port`);
    return {
      port: address.port,
      host: address.address,
      connections: () => this.#open.size,
      drain: (deadlineMs) => {
        this.#drained ??= this.#drain(deadlineMs);
        return this.#drained;
      },
    };
  }

  #createHttp1(): Http1Server {
    const http1 = createHttp1Server(this.#limits);
    http1.on("request", (request, response) => {
      const connection = this.#connections.get(request.socket);
      if (connection === undefined || !connection.trackResponse(response)) return response.destroy();
      // Readers of the request see its end. An error event without a listener would end the process.
      request.on("error", ignoreError);
      if (request.rawHeaders.length > 2 * this.#limits.headerPairsMax) return refuse(response, 431);
      this.#serve(connection, request, response);
    });
    http1.on("clientError", (error, socket) => {
      const connection = this.#connections.get(socket);
      if (connection === undefined) socket.destroy();
      else connection.refuseHttp1(error);
    });
    return http1;
  }

  #createHttp2(): Http2Server {
    const { tryHandleStream } = this.#options;
    const http2 = createHttp2Server(this.#limits);
    http2.on("request", (request, response) => {
      const { stream } = request;
      const connection = stream.session && this.#connections.get(stream.session);
      if (connection === undefined) return stream.destroy();
      request.on("error", ignoreError);
      const serve = (): void => this.#serve(connection, request, response);
      // Authenticated requests skip the admission queue: they are few, and must not wait behind a burst of anonymous ones.
      if (request.headers.authorization !== undefined) return serve();
      this.#admissions.admit(connection, () => stream.destroyed || serve());
    });
    if (tryHandleStream !== undefined) offerStreams(http2, tryHandleStream, this.#connections);
    return http2;
  }

  #createTransport(): Server {
    const { connectionsMax } = this.#limits;
    const transport = createTransport({
      limits: this.#limits,
      tls: this.#options.tls,
      accept: (raw) => this.#accept(raw),
      dispatch: (connection, socket, protocol) =>
        this.#admissions.admit(connection, () => this.#dispatch(connection, socket, protocol)),
    });
    transport.maxConnections = connectionsMax;
    transport.on("drop", (peer) => {
      const remote = `${peer?.remoteAddress}:${peer?.remotePort}`;
      this.#log.info({ remote }, `Connection from ${remote} refused: ${connectionsMax} are open`);
    });
    return transport;
  }

  #accept(raw: Socket): Connection {
    const { connectionsPerNetworkMax } = this.#limits;
    const { isLongLived, networkOf } = this.#options;
    const connection = new Connection({
      raw,
      limits: this.#limits,
      isLongLived: (target) => isLongLived?.(pathOf(target)) === true,
      log: this.#log,
    });
    this.#open.add(connection);
    raw.once("close", () => this.#open.delete(connection));
    const network = networkOf?.(unmapped(raw.remoteAddress ?? ""));
    if (network !== undefined) {
      const open = this.#openByNetwork.add(network);
      raw.once("close", () => this.#openByNetwork.remove(network));
      if (open > connectionsPerNetworkMax) {
        connection.report("info", `${connectionsPerNetworkMax} connections from ${network} are open`);
        connection.destroy();
      }
    }
    return connection;
  }

  /** Hands a connection to the HTTP server of its protocol. */
  #dispatch(connection: Connection, socket: Socket, protocol: Protocol): void {
    if (socket.destroyed) return;
    if (protocol === "HTTP/1.1") {
      connection.becameHttp1();
      this.#connections.set(socket, connection);
      this.#http1.emit("connection", socket);
      return;
    }
    startSession(this.#http2, socket, (session) => {
      connection.becameHttp2(session);
      this.#connections.set(session, connection);
    });
  }

  #serve(connection: Connection, request: HttpRequest, response: HttpResponse): void {
    try {
      // Discard what the handler leaves unread: an HTTP/2 stream with unread data ends in a reset, and an
      // HTTP/1.1 connection does not reach its next request.
      response.on("finish", () => request.resume());
      this.#options.handler(request, response);
    } catch (error) {
      connection.report("warn", "the handler threw on a request", error);
      if (!response.headersSent) refuse(response, 400);
      else if ("stream" in response) response.stream.close(constants.NGHTTP2_INTERNAL_ERROR);
      else response.destroy();
    }
  }

  #startChecks(): void {
    const { unreadCheckingIntervalMs, connectionsCheckingIntervalMs } = this.#limits;
    const checks = [
      setInterval(() => closeStalledReaders(this.#open, this.#limits), unreadCheckingIntervalMs),
      setInterval(() => {
        for (const connection of this.#open) connection.closeOverdue();
      }, connectionsCheckingIntervalMs),
    ];
    for (const check of checks) check.unref();
    this.#transport.once("close", () => {
      for (const check of checks) clearInterval(check);
    });
  }

  async #drain(deadlineMs: number): Promise<DrainResult> {
    let destroyed = 0;
    const closed = new Promise<void>((resolve) => this.#transport.close(() => resolve()));
    const deadline = setTimeout(() => {
      destroyed = this.#open.size;
      for (const connection of this.#open) {
        connection.report("info", `it was open ${deadlineMs} ms after the drain began`);
        connection.destroy();
      }
    }, deadlineMs);
    for (const connection of this.#open) connection.drain();
    this.#http1.closeIdleConnections();
    await closed;
    // Node reports the server as closed shortly before the last sockets are.
    await Promise.all([...this.#open].map((connection) => connection.ended()));
    clearTimeout(deadline);
    this.#http1.close();
    return { destroyed };
  }
}

/** Responds with a status and its name, and closes an HTTP/1.1 connection, since the request's body is unread. */
function refuse(response: HttpResponse, status: number): void {
  for (const name of response.getHeaderNames()) response.removeHeader(name);
  response.statusCode = status;
  response.setHeader("Content-Type", "text/plain; charset=utf-8");
  if (!("stream" in response)) response.setHeader("Connection", "close");
  response.end(`${STATUS_CODES[status]}\n`);
}

function ignoreError(): void {}
