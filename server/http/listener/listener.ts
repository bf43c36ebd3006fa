import { once } from "node:events";
import type { Server as Http1Server, IncomingMessage, ServerResponse } from "node:http";
import { constants, type Http2Server, type Http2ServerRequest, type Http2ServerResponse } from "node:http2";
import type { Server, Socket } from "node:net";
import { type Log, throttledLog } from "../../ops/throttled-log.ts";
import { unmapped } from "../client-network.ts";
import { normalizeHeaders } from "../media-type.ts";
import { type HttpRequest, type HttpResponse, pathOf } from "../message.ts";
import { quote, type Refusal, type Refuse, refuseWithText } from "../refusal.ts";
import { AdmissionQueue } from "./admission-queue.ts";
import { Connection, type ConnectionContext, connectionOf } from "./connection.ts";
import { ConnectionCounts } from "./connection-counts.ts";
import { LISTENER_LIMITS_DEFAULT, type ListenerLimits } from "./limits.ts";
import { headTooLarge, type ParseError, refusalOf } from "./parse-errors.ts";
import type { Protocol } from "./protocol-detection.ts";
import {
  createHttp1Server,
  createHttp2Server,
  offerStreams,
  startSession,
  type TryHandleStream,
} from "./protocol-servers.ts";
import { checkHttp1Request, checkHttp2Request } from "./request-checks.ts";
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
  /**
   * Handles a request. Its target is in origin-form, and its headers are normalized (`media-type.ts`). When it throws, as on a
   * request that it cannot parse, the response is 400.
   */
  readonly handler: (request: HttpRequest, response: HttpResponse) => void;
  /** Writes the response to a request that the listener refuses. By default plain text. */
  readonly refuse?: Refuse;
  /** Whether a gateway at this address may send `https` targets over plaintext, because it terminates TLS. By default none. */
  readonly isTrustedGateway?: (address: string) => boolean;
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
  readonly #connectionContext: ConnectionContext;
  readonly #admissions = new AdmissionQueue();
  readonly #http1: Http1Server;
  readonly #http2: Http2Server;
  readonly #transport: Server;
  #drained: Promise<DrainResult> | undefined;

  constructor(options: ListenerOptions) {
    this.#options = options;
    this.#limits = { ...LISTENER_LIMITS_DEFAULT, ...options.limits };
    this.#log = throttledLog(options.log, this.#limits.logLinesPerSecondMax);
    this.#connectionContext = {
      limits: this.#limits,
      isLongLived: (target) => options.isLongLived?.(pathOf(target)) === true,
      log: this.#log,
      onClose: (connection) => this.#closed(connection),
    };
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
      const connection = this.#trackHttp1(request, response);
      if (connection !== undefined) this.#serve(connection, request, response);
    });
    http1.on("checkExpectation", (request, response) => {
      const connection = this.#trackHttp1(request, response);
      if (connection !== undefined) this.#refuse(request, response, refuseExpectation(request));
    });
    http1.on("connect", (_request, socket) => connectionOf(socket)?.refuseTunnel(NO_TUNNELS));
    http1.on("clientError", (error: ParseError, socket) => {
      const connection = connectionOf(socket);
      if (connection === undefined) return socket.destroy();
      connection.reportError(error);
      connection.refuseHttp1(refusalOf(error, this.#limits));
    });
    return http1;
  }

  /** The connection of a request that is well formed. Other requests are refused here. */
  #trackHttp1(request: IncomingMessage, response: ServerResponse): Connection | undefined {
    const { headerPairsMax } = this.#limits;
    const { isTrustedGateway = () => false } = this.#options;
    const connection = connectionOf(request.socket);
    if (connection === undefined || !connection.trackResponse(response)) {
      response.destroy();
      return undefined;
    }
    // Readers of the request see its end. An error event without a listener would end the process.
    request.on("error", ignoreError);
    const refusal =
      request.rawHeaders.length > 2 * headerPairsMax
        ? headTooLarge(this.#limits)
        : checkHttp1Request(request, { isTrustedGateway });
    normalizeHeaders(request.headers);
    if (refusal === undefined) return connection;
    this.#refuse(request, response, refusal);
    return undefined;
  }

  #createHttp2(): Http2Server {
    const { tryHandleStream } = this.#options;
    const http2 = createHttp2Server(this.#limits);
    http2.on("request", (request, response) => {
      const connection = this.#trackHttp2(request, response);
      if (connection === undefined) return;
      const serve = (): void => this.#serve(connection, request, response);
      // Authenticated requests skip the admission queue: they are few, and must not wait behind a burst of anonymous ones.
      if (request.headers.authorization !== undefined) return serve();
      this.#admissions.admit(connection, () => request.stream.destroyed || serve());
    });
    http2.on("checkExpectation", (request, response) => {
      if (this.#trackHttp2(request, response) !== undefined)
        this.#refuse(request, response, refuseExpectation(request));
    });
    http2.on("connect", (request: Http2ServerRequest, response: Http2ServerResponse) =>
      this.#refuse(request, response, NO_TUNNELS),
    );
    offerStreams(http2, (stream, headers, rawHeaders) => {
      normalizeHeaders(headers);
      return tryHandleStream?.(stream, headers, rawHeaders) === true;
    });
    return http2;
  }

  /** The connection of a request that is well formed. Other requests are refused here. */
  #trackHttp2(request: Http2ServerRequest, response: Http2ServerResponse): Connection | undefined {
    const { stream } = request;
    const connection = stream.session && connectionOf(stream.session);
    if (connection === undefined) {
      stream.destroy();
      return undefined;
    }
    request.on("error", ignoreError);
    const refusal = checkHttp2Request(request);
    if (refusal === undefined) return connection;
    this.#refuse(request, response, refusal);
    return undefined;
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
    const connection = new Connection(raw, this.#connectionContext);
    this.#open.add(connection);
    const network = this.#networkOf(connection);
    if (network !== undefined && this.#openByNetwork.add(network) > connectionsPerNetworkMax) {
      connection.report("info", `${connectionsPerNetworkMax} connections from ${network} are open`);
      connection.destroy();
    }
    return connection;
  }

  #closed(connection: Connection): void {
    this.#open.delete(connection);
    const network = this.#networkOf(connection);
    if (network !== undefined) this.#openByNetwork.remove(network);
  }

  #networkOf({ remoteAddress = "" }: Connection): string | undefined {
    return this.#options.networkOf?.(unmapped(remoteAddress));
  }

  /** Hands a connection to the HTTP server of its protocol. */
  #dispatch(connection: Connection, socket: Socket, protocol: Protocol): void {
    if (socket.destroyed) return;
    if (protocol === "HTTP/1.1") {
      connection.becameHttp1();
      this.#http1.emit("connection", socket);
      return;
    }
    startSession(this.#http2, socket, (session) => connection.becameHttp2(session));
  }

  #serve(connection: Connection, request: HttpRequest, response: HttpResponse): void {
    try {
      // Discards what the handler leaves unread: an HTTP/2 stream with unread data ends in a reset.
      if ("stream" in response) response.on("finish", () => request.resume());
      this.#options.handler(request, response);
    } catch (error) {
      connection.report("warn", "the handler threw on a request", error);
      if (!response.headersSent)
        this.#refuse(request, response, { status: 400, message: "The request could not be processed" });
      else if ("stream" in response) response.stream.close(constants.NGHTTP2_INTERNAL_ERROR);
      else response.destroy();
    }
  }

  /** Responds to a request that no handler gets. Closes an HTTP/1.1 connection, since the request's body is unread. */
  #refuse(request: HttpRequest, response: HttpResponse, refusal: Refusal): void {
    for (const name of response.getHeaderNames()) response.removeHeader(name);
    if (!("stream" in response)) {
      response.setHeader("Connection", "close");
      connectionOf(request.socket)?.awaitClose();
    }
    const { refuse = refuseWithText } = this.#options;
    refuse(request, response, refusal);
    request.resume();
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

/** CONNECT (RFC 9110, section 9.3.6). */
const NO_TUNNELS: Refusal = {
  status: 405,
  message: "The method CONNECT is not allowed: this server is not a proxy",
  headers: { Allow: "GET, HEAD, POST, OPTIONS" },
};

function refuseExpectation({ headers }: HttpRequest): Refusal {
  return {
    status: 417,
    message: `Expect is ${quote(headers.expect ?? "")}; the only supported expectation is 100-continue`,
  };
}

function ignoreError(): void {}
