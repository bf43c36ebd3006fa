import type { IncomingMessage, ServerResponse } from "node:http";
import {
  Http2ServerRequest,
  Http2ServerResponse,
  type IncomingHttpHeaders,
  type ServerHttp2Stream,
} from "node:http2";
import type { Writable } from "node:stream";
import { isMessage } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { StockService, WatchStockRequestSchema } from "../../gen/inventory/v1/stock_pb.ts";
import { type Caller, callerOf, callerOfStream } from "../http/caller.ts";
import type { CorsHeaders } from "../http/cors.ts";
import { rejectRequestBodyAfterTrailers } from "../http/reject-request-body.ts";
import type { Mirror } from "../live/mirror.ts";
import type { Hub } from "../live/watch/hub.ts";
import type { Watch, WatchSink } from "../live/watch/watch.ts";
import type { WatchUpdate } from "../live/watch/watch-message.ts";
import { type Call, type CallPipeline, procedureOf } from "../rpc/call.ts";
import { type ConnectHandler, REQUEST_BYTES_MAX } from "../rpc/connect-handler.ts";
import { deadlineExceeded } from "../rpc/deadline.ts";
import { type FastPath, fallBackTo } from "../rpc/fast-path/fast-path.ts";
import { type OnBody, type RequestLine, readBody, readPlainHead } from "../rpc/fast-path/request.ts";
import { STREAM_PROTOCOLS, type StreamProtocol } from "../rpc/fast-path/stream-protocols.ts";
import { Http1StreamWriter, Http2StreamWriter, type StreamWriter } from "../rpc/fast-path/stream-writer.ts";
import type { ErrorReporter } from "../rpc/interceptors/errors.ts";
import { WatchFrames } from "./watch-frames.ts";
import { openWatch } from "./watch-stock.ts";

const METHOD = StockService.method.watchStock;
const PATH = `/${procedureOf(METHOD)}`;

interface WatchFastPathOptions {
  readonly live: { readonly mirror: Mirror; readonly hub: Hub };
  /** Handles every request that falls back. */
  readonly connectHandler: ConnectHandler;
  readonly pipeline: CallPipeline;
  readonly reportError: ErrorReporter;
  readonly corsHeaders: CorsHeaders;
}

/** A request that the fast path can handle, judged by its head. */
interface PlainRequest {
  readonly protocol: StreamProtocol;
  readonly timeoutMs: number | undefined;
}

/**
 * Runs WatchStock without Connect: updates of the hub go directly into Node's streams, and an update for many watchers is
 * encoded once. Other requests fall back to Connect, as those of the unary fast path do. The watch is the same on both
 * paths.
 */
export class WatchFastPath implements FastPath {
  readonly #options: WatchFastPathOptions;
  readonly #frames = new WatchFrames();

  constructor(options: WatchFastPathOptions) {
    this.#options = options;
  }

  tryHandleStream(
    stream: ServerHttp2Stream,
    headers: IncomingHttpHeaders,
    rawHeaders: readonly string[],
  ): boolean {
    const { ":path": path, ":method": httpMethod, ":authority": authority, origin } = headers;
    const plain = this.#match(path, { httpMethod, authority, isHttp2: true }, headers);
    if (plain === undefined) {
      return false;
    }
    stream.on("error", ignore);
    const writer = new Http2StreamWriter(stream, plain.protocol.needsHttp2);
    const corsHeaders = this.#options.corsHeaders(PATH, origin);
    const call = this.#start(plain, headers, callerOfStream(stream), writer, corsHeaders);
    listen(stream, call);
    if (!call.admit()) {
      rejectRequestBodyAfterTrailers(stream);
      stream.resume();
      return true;
    }
    const onBody: OnBody = (body, replay) => {
      if (!call.read(body) && call.release()) {
        const request = new Http2ServerRequest(stream, headers, {}, rawHeaders);
        const response = new Http2ServerResponse(stream);
        for (const [name, value] of Object.entries(corsHeaders)) {
          response.setHeader(name, value);
        }
        const started = { body: replay(), call: call.call };
        fallBackTo(this.#options.connectHandler, request, response, PATH, started);
      }
    };
    readBody(stream, REQUEST_BYTES_MAX, onBody, true);
    return true;
  }

  tryHandleRequest(request: IncomingMessage, response: ServerResponse, path: string): boolean {
    const { headers, method: httpMethod } = request;
    const plain = this.#match(path, { httpMethod, authority: headers.host, isHttp2: false }, headers);
    // HTTP/1.0 has no chunked transfer coding.
    if (plain === undefined || request.url !== path || request.httpVersion !== "1.1") {
      return false;
    }
    const call = this.#start(plain, headers, callerOf(request), new Http1StreamWriter(response), {});
    listen(response, call);
    if (!call.admit()) {
      request.resume();
      return true;
    }
    const onBody: OnBody = (body, replay) => {
      if (!call.read(body) && call.release()) {
        const started = { body: replay(), call: call.call };
        fallBackTo(this.#options.connectHandler, request, response, PATH, started);
      }
    };
    readBody(request, REQUEST_BYTES_MAX, onBody, true);
    return true;
  }

  #match(
    path: string | undefined,
    line: RequestLine,
    headers: IncomingHttpHeaders,
  ): PlainRequest | undefined {
    const protocol = path === PATH ? STREAM_PROTOCOLS.get(headers["content-type"] ?? "") : undefined;
    const head = protocol && readPlainHead(protocol, line, headers);
    return protocol && head && { protocol, timeoutMs: head.timeoutMs };
  }

  /** Starts a call, and its deadline: the time in which the request arrives counts. */
  #start(
    { protocol, timeoutMs }: PlainRequest,
    headers: IncomingHttpHeaders,
    caller: Caller,
    writer: StreamWriter,
    extraHeaders: Readonly<Record<string, string>>,
  ): WatchCall {
    const call = this.#options.pipeline.start({ method: METHOD, headers, caller });
    const watchCall = new WatchCall(this.#options, this.#frames, call, protocol, writer, extraHeaders);
    if (timeoutMs !== undefined) {
      watchCall.setDeadline(timeoutMs);
    }
    return watchCall;
  }
}

/** A WatchStock call on the fast path, from the head of its request to the end of its response. */
class WatchCall implements WatchSink {
  readonly call: Call;
  readonly #options: WatchFastPathOptions;
  readonly #frames: WatchFrames;
  readonly #protocol: StreamProtocol;
  readonly #writer: StreamWriter;
  readonly #extraHeaders: Readonly<Record<string, string>>;
  #watch: Watch | undefined;
  #admission: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #hasHead = false;
  #isOver = false;

  constructor(
    options: WatchFastPathOptions,
    frames: WatchFrames,
    call: Call,
    protocol: StreamProtocol,
    writer: StreamWriter,
    extraHeaders: Readonly<Record<string, string>>,
  ) {
    this.#options = options;
    this.#frames = frames;
    this.call = call;
    this.#protocol = protocol;
    this.#writer = writer;
    this.#extraHeaders = extraHeaders;
  }

  setDeadline(timeoutMs: number): void {
    this.call.deadline = this.call.startedAt + timeoutMs;
    this.#timer = setTimeout(() => this.#fail(deadlineExceeded()), timeoutMs);
  }

  /** Enters the middleware before the request is read. Returns false, with the error sent, where it rejects the call. */
  admit(): boolean {
    try {
      const admission = this.call.admit();
      if (admission instanceof Promise) {
        this.#admission = admission;
        // The rejection is reported when the admission is awaited. If the call is over by then, nothing awaits it.
        admission.catch(ignore);
      }
      return true;
    } catch (error) {
      this.#fail(error);
      return false;
    }
  }

  /** Opens the watch that the body asks for. Returns false where the request must fall back to Connect. */
  read(body: Buffer | undefined): boolean {
    const request = body && this.#protocol.decode(METHOD, body);
    if (request === undefined || !isMessage(request, WatchStockRequestSchema)) {
      return false;
    }
    this.call.request = request;
    const open = (): void => {
      if (!this.#isOver) {
        this.#watch = this.call.run(() => openWatch(this.#options.live, request, this.call.caller));
        this.#watch.start(this);
      }
    };
    if (this.#admission === undefined) {
      this.#attempt(open);
    } else {
      this.#admission.then(open).catch((error: unknown) => this.#fail(error));
    }
    return true;
  }

  get isReady(): boolean {
    return this.#writer.isReady;
  }

  write(update: WatchUpdate): void {
    this.#attempt(() => {
      this.#writeHead();
      this.#writer.write(this.#frames.of(update, this.#protocol.isJson));
    });
  }

  /** The watch has ended. */
  end(): void {
    if (this.release()) {
      this.#endResponse(undefined);
    }
  }

  /** The write buffer has drained. */
  resume(): void {
    this.#watch?.resume();
  }

  /** Call when the client disconnects, or the response is complete. */
  close(): void {
    if (this.release()) {
      this.#watch?.close();
      this.call.end(Code.Canceled);
    }
  }

  /** Ends the fast path's part of the call. Returns false where it has ended before. */
  release(): boolean {
    const wasOver = this.#isOver;
    this.#isOver = true;
    clearTimeout(this.#timer);
    return !wasOver;
  }

  #attempt(action: () => void): void {
    try {
      action();
    } catch (error) {
      this.#fail(error);
    }
  }

  #fail(error: unknown): void {
    if (this.release()) {
      this.#watch?.close();
      this.#endResponse(error);
    }
  }

  /** Sent with the first message, so that an error before it can still be the whole response. */
  #writeHead(): void {
    if (!this.#hasHead) {
      this.#hasHead = true;
      this.#writer.writeHead({ ...this.#extraHeaders, "content-type": this.#protocol.contentType });
    }
  }

  #endResponse(error: unknown): void {
    const reported = error === undefined ? undefined : this.#options.reportError(error, this.call, false);
    if (!this.#writer.isClosed) {
      this.#writeHead();
      this.#writer.end(this.#protocol.end(reported));
    }
    this.call.end(reported?.code);
  }
}

/** A function of its own, so that its closures do not keep the request alive for the lifetime of the watch. */
function listen(response: Writable, call: WatchCall): void {
  response.once("close", () => call.close());
  response.on("drain", () => call.resume());
}

function ignore(): void {
  // A stream that fails also closes. A rejected admission is reported where it is awaited.
}
