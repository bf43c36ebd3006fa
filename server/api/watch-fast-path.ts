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
import type { Watch, WatchReader } from "../live/watch/watch.ts";
import type { WatchUpdate } from "../live/watch/watch-message.ts";
import { type Call, type CallPipeline, procedureOf } from "../rpc/call.ts";
import { type ConnectHandler, REQUEST_BYTES_MAX } from "../rpc/connect-handler.ts";
import { type FastPath, fallBackTo } from "../rpc/fast-path/fast-path.ts";
import { type Collected, collect, type RequestLine, readPlainHead } from "../rpc/fast-path/request.ts";
import { STREAM_PROTOCOLS, type StreamProtocol } from "../rpc/fast-path/stream-protocols.ts";
import { Http1StreamWriter, Http2StreamWriter, type StreamWriter } from "../rpc/fast-path/stream-writer.ts";
import { deadlineExceeded } from "../rpc/fast-path/unary-protocols.ts";
import type { ErrorReporter } from "../rpc/interceptors/errors.ts";
import { WatchFrames } from "./watch-frames.ts";
import { openWatch } from "./watch-stock.ts";

const METHOD = StockService.method.watchStock;
const PATH = `/${procedureOf(METHOD)}`;

interface WatchLaneOptions {
  readonly live: { readonly mirror: Mirror; readonly hub: Hub };
  /** Answers everything that the lane leaves. */
  readonly connectHandler: ConnectHandler;
  readonly pipeline: CallPipeline;
  readonly reportError: ErrorReporter;
  readonly corsHeaders: CorsHeaders;
}

/** A request that the lane has taken. */
interface Taken {
  readonly protocol: StreamProtocol;
  readonly timeoutMs: number | undefined;
}

/**
 * The short way of WatchStock: what the hub has to tell goes straight into node's streams, and
 * what many watchers are told is encoded once, the same bytes for all. What is odd goes to Connect, as in the
 * lane of unary calls; the watch itself is the same on both ways.
 */
export class WatchFastPath implements FastPath {
  readonly #options: WatchLaneOptions;
  readonly #frames = new WatchFrames();

  constructor(options: WatchLaneOptions) {
    this.#options = options;
  }

  tryHandleStream(
    stream: ServerHttp2Stream,
    headers: IncomingHttpHeaders,
    rawHeaders: readonly string[],
  ): boolean {
    const { ":path": path, ":method": httpMethod, ":authority": authority, origin } = headers;
    const taken = this.#take(path, { httpMethod, authority, isHttp2: true }, headers);
    if (taken === undefined) {
      return false;
    }
    stream.on("error", ignore);
    const wire = new Http2StreamWriter(stream, taken.protocol.needsHttp2);
    const shared = this.#options.corsHeaders(PATH, origin);
    const watching = this.#begin(taken, headers, callerOfStream(stream), wire, shared);
    attend(stream, watching);
    if (!watching.admit()) {
      rejectRequestBodyAfterTrailers(stream);
      stream.resume();
      return true;
    }
    const done: Collected = (body, again) => {
      if (!watching.read(body) && watching.leave()) {
        const request = new Http2ServerRequest(stream, headers, {}, rawHeaders);
        const response = new Http2ServerResponse(stream);
        for (const [name, value] of Object.entries(shared)) {
          response.setHeader(name, value);
        }
        fallBackTo(this.#options.connectHandler, request, response, PATH, {
          body: again(),
          call: watching.call,
        });
      }
    };
    collect(stream, REQUEST_BYTES_MAX, done, true);
    return true;
  }

  tryHandleRequest(request: IncomingMessage, response: ServerResponse, path: string): boolean {
    const { headers, method: httpMethod } = request;
    const taken = this.#take(path, { httpMethod, authority: headers.host, isHttp2: false }, headers);
    // Before 1.1 there were no chunks.
    if (taken === undefined || request.url !== path || request.httpVersion !== "1.1") {
      return false;
    }
    const watching = this.#begin(taken, headers, callerOf(request), new Http1StreamWriter(response), {});
    attend(response, watching);
    if (!watching.admit()) {
      request.resume();
      return true;
    }
    const done: Collected = (body, again) => {
      if (!watching.read(body) && watching.leave()) {
        fallBackTo(this.#options.connectHandler, request, response, PATH, {
          body: again(),
          call: watching.call,
        });
      }
    };
    collect(request, REQUEST_BYTES_MAX, done, true);
    return true;
  }

  #take(path: string | undefined, line: RequestLine, headers: IncomingHttpHeaders): Taken | undefined {
    const protocol = path === PATH ? STREAM_PROTOCOLS.get(headers["content-type"] ?? "") : undefined;
    const head = protocol && readPlainHead(protocol, line, headers);
    return protocol && head && { protocol, timeoutMs: head.timeoutMs };
  }

  /** Begins a call: its time runs from here, also while its request is still arriving. */
  #begin(
    { protocol, timeoutMs }: Taken,
    headers: IncomingHttpHeaders,
    caller: Caller,
    wire: StreamWriter,
    sharedHeaders: Readonly<Record<string, string>>,
  ): WatchCall {
    const call = this.#options.pipeline.begin({ method: METHOD, headers, caller });
    const watching = new WatchCall(this.#options, this.#frames, call, protocol, wire, sharedHeaders);
    if (timeoutMs !== undefined) {
      watching.endAfter(timeoutMs);
    }
    return watching;
  }
}

/** One watch on the lane, from the head of its request to the end of its answer. It reads what its watch tells. */
class WatchCall implements WatchReader {
  readonly call: Call;
  readonly #options: WatchLaneOptions;
  readonly #frames: WatchFrames;
  readonly #protocol: StreamProtocol;
  readonly #wire: StreamWriter;
  readonly #sharedHeaders: Readonly<Record<string, string>>;
  #watch: Watch | undefined;
  #admission: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #hasBegun = false;
  #isOver = false;

  constructor(
    options: WatchLaneOptions,
    frames: WatchFrames,
    call: Call,
    protocol: StreamProtocol,
    wire: StreamWriter,
    sharedHeaders: Readonly<Record<string, string>>,
  ) {
    this.#options = options;
    this.#frames = frames;
    this.call = call;
    this.#protocol = protocol;
    this.#wire = wire;
    this.#sharedHeaders = sharedHeaders;
  }

  endAfter(ms: number): void {
    this.#timer = setTimeout(() => this.#fail(deadlineExceeded()), ms);
  }

  /** Asks whether the call may come in, before its request is read. False where it was refused. */
  admit(): boolean {
    try {
      const admission = this.call.admit();
      if (admission instanceof Promise) {
        this.#admission = admission;
        // Who waits for it is told; a call that is over by then has nobody who waits.
        admission.catch(ignore);
      }
      return true;
    } catch (error) {
      this.#fail(error);
      return false;
    }
  }

  /** Takes the whole body of the request; false where it is for the long way. */
  read(body: Buffer | undefined): boolean {
    const request = body && this.#protocol.decode(WatchStockRequestSchema, body);
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
    return this.#wire.isReady;
  }

  take(update: WatchUpdate): void {
    this.#attempt(() => {
      this.#beginAnswer();
      this.#wire.write(this.#frames.of(update, this.#protocol.isJson));
    });
  }

  /** The watch has come to its end. */
  end(): void {
    if (this.leave()) {
      this.#endAnswer(undefined);
    }
  }

  /** The wire takes frames again. */
  resume(): void {
    this.#watch?.resume();
  }

  /** The caller is gone. */
  abandon(): void {
    if (this.leave()) {
      this.#watch?.close();
      this.call.end(Code.Canceled);
    }
  }

  /** Ends the lane's part of the call. False where it was over already. */
  leave(): boolean {
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
    if (this.leave()) {
      this.#watch?.close();
      this.#endAnswer(error);
    }
  }

  /** The head goes out with the first message. */
  #beginAnswer(): void {
    if (!this.#hasBegun) {
      this.#hasBegun = true;
      this.#wire.begin({ ...this.#sharedHeaders, "content-type": this.#protocol.contentType });
    }
  }

  #endAnswer(error: unknown): void {
    const told = error === undefined ? undefined : this.#options.reportError(error, this.call, false);
    if (!this.#wire.isGone) {
      this.#beginAnswer();
      this.#wire.end(this.#protocol.end(told));
    }
    this.call.end(told?.code);
  }
}

/** Apart from whoever reads the request, so that what that one knows is not kept for as long as the watch lives. */
function attend(answer: Writable, watching: WatchCall): void {
  answer.once("close", () => watching.abandon());
  answer.on("drain", () => watching.resume());
}

function ignore(): void {
  // A stream that fails closes; a refusal that nobody waits for is told when it is asked for.
}
