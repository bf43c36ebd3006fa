import type { IncomingMessage, ServerResponse } from "node:http";
import {
  Http2ServerRequest,
  Http2ServerResponse,
  type IncomingHttpHeaders,
  type ServerHttp2Stream,
} from "node:http2";
import type { Writable } from "node:stream";
import type { DescMethod, Message } from "@bufbuild/protobuf";
import { type Caller, callerOf, callerOfStream } from "../../http/caller.ts";
import type { CorsHeaders } from "../../http/cors.ts";
import { NO_HEADERS } from "../../http/headers.ts";
import { rejectRequestBodyAfterTrailers } from "../../http/reject-request-body.ts";
import { type CallPipeline, procedureOf } from "../call.ts";
import { type ConnectHandler, REQUEST_BYTES_MAX } from "../connect-handler.ts";
import { deadlineExceeded } from "../deadline.ts";
import type { ErrorReporter } from "../interceptors/errors.ts";
import { type FastPath, fallBackTo } from "./fast-path.ts";
import { type OnBody, type RequestLine, readBody, readPlainHead } from "./request.ts";
import { type MessageSource, StreamCall } from "./stream-call.ts";
import { STREAM_PROTOCOLS, type StreamProtocol } from "./stream-protocols.ts";
import { Http1StreamWriter, Http2StreamWriter, type StreamWriter } from "./stream-writer.ts";

/** A server-streaming method on the fast path. */
export interface StreamMethod {
  readonly desc: DescMethod;
  /** Opens the response to a request. Throws to refuse it. */
  open(request: Message, call: StreamCall): MessageSource;
}

interface StreamFastPathOptions {
  readonly methods: readonly StreamMethod[];
  /** Handles every request that falls back. */
  readonly connectHandler: ConnectHandler;
  readonly pipeline: CallPipeline;
  readonly reportError: ErrorReporter;
  readonly corsHeaders: CorsHeaders;
  /** By default `REQUEST_BYTES_MAX`. A larger request falls back to Connect, which has the same limit. */
  readonly requestBytesMax?: number;
}

/** A request that the fast path can handle, judged by its head. */
interface PlainRequest {
  readonly path: string;
  readonly method: StreamMethod;
  readonly protocol: StreamProtocol;
  readonly headers: IncomingHttpHeaders;
  readonly timeoutMs: number | undefined;
}

/**
 * Runs server-streaming methods without Connect: their messages go directly into Node's streams, and one that many calls send is
 * encoded once. Other requests fall back to Connect, as those of the unary fast path do.
 */
export class StreamFastPath implements FastPath {
  readonly #options: StreamFastPathOptions;
  readonly #methods: ReadonlyMap<string, StreamMethod>;
  readonly #bytesMax: number;

  constructor(options: StreamFastPathOptions) {
    this.#options = options;
    this.#methods = new Map(options.methods.map((method) => [`/${procedureOf(method.desc)}`, method]));
    this.#bytesMax = options.requestBytesMax ?? REQUEST_BYTES_MAX;
  }

  tryHandleStream(
    stream: ServerHttp2Stream,
    headers: IncomingHttpHeaders,
    rawHeaders: readonly string[],
  ): boolean {
    const { ":path": path = "", ":method": httpMethod, ":authority": authority, origin } = headers;
    const plain = this.#match(path, { httpMethod, authority, isHttp2: true }, headers);
    if (plain === undefined) {
      return false;
    }
    stream.on("error", ignore);
    const writer = new Http2StreamWriter(stream, plain.protocol.needsHttp2);
    const corsHeaders = this.#options.corsHeaders(path, origin);
    const call = this.#start(plain, callerOfStream(stream), writer, corsHeaders);
    attachListeners(stream, call);
    if (!this.#admit(call)) {
      rejectRequestBodyAfterTrailers(stream);
      stream.resume();
      return true;
    }
    const onBody: OnBody = (body, replay) => {
      if (!this.#run(plain, body, call) && call.release()) {
        const request = new Http2ServerRequest(stream, headers, {}, rawHeaders);
        const response = new Http2ServerResponse(stream);
        for (const [name, value] of Object.entries(corsHeaders)) {
          response.setHeader(name, value);
        }
        const started = { body: replay(), call: call.call };
        fallBackTo(this.#options.connectHandler, request, response, path, started);
      }
    };
    readBody(stream, this.#bytesMax, onBody, true);
    return true;
  }

  tryHandleRequest(request: IncomingMessage, response: ServerResponse, path: string): boolean {
    const { headers, method: httpMethod } = request;
    const plain = this.#match(path, { httpMethod, authority: headers.host, isHttp2: false }, headers);
    // HTTP/1.0 has no chunked transfer coding.
    if (plain === undefined || request.url !== path || request.httpVersion !== "1.1") {
      return false;
    }
    const call = this.#start(plain, callerOf(request), new Http1StreamWriter(response), NO_HEADERS);
    attachListeners(response, call);
    if (!this.#admit(call)) {
      request.resume();
      return true;
    }
    const onBody: OnBody = (body, replay) => {
      if (!this.#run(plain, body, call) && call.release()) {
        const started = { body: replay(), call: call.call };
        fallBackTo(this.#options.connectHandler, request, response, path, started);
      }
    };
    readBody(request, this.#bytesMax, onBody, true);
    return true;
  }

  #match(path: string, line: RequestLine, headers: IncomingHttpHeaders): PlainRequest | undefined {
    const method = this.#methods.get(path);
    const protocol = method && STREAM_PROTOCOLS.get(headers["content-type"] ?? "");
    const head = protocol && readPlainHead(protocol, line, headers);
    return method && protocol && head && { path, method, protocol, headers, timeoutMs: head.timeoutMs };
  }

  /** Starts a call, and its deadline: the time in which the request arrives counts. */
  #start(
    { method, protocol, headers, timeoutMs }: PlainRequest,
    caller: Caller,
    writer: StreamWriter,
    extraHeaders: Readonly<Record<string, string>>,
  ): StreamCall {
    const started = this.#options.pipeline.start({ method: method.desc, headers, caller });
    const { reportError } = this.#options;
    const call = new StreamCall(started, { protocol, writer, extraHeaders, reportError });
    if (timeoutMs !== undefined) {
      call.setDeadline(timeoutMs, () => call.fail(deadlineExceeded()));
    }
    return call;
  }

  /** Enters the middleware before the request is read. Returns false, with the error sent, where it rejects the call. */
  #admit(call: StreamCall): boolean {
    try {
      call.admit();
      return true;
    } catch (error) {
      call.fail(error);
      return false;
    }
  }

  /** Runs the method with the request in the body. Returns false where the request must fall back to Connect. */
  #run({ method, protocol }: PlainRequest, body: Buffer | undefined, call: StreamCall): boolean {
    const request = body && protocol.decode(method.desc, body);
    if (request === undefined) {
      return false;
    }
    call.call.request = request;
    const start = (): void => call.start(() => method.open(request, call));
    if (call.admission === undefined) {
      start();
    } else {
      call.admission.then(start).catch((error: unknown) => call.fail(error));
    }
    return true;
  }
}

/**
 * Ends and resumes the call with its response. A function of its own, so that its closures do not keep the request alive for the
 * lifetime of the stream. `on` and not `once`: the emitter would keep a wrapper of the listener.
 */
function attachListeners(response: Writable, call: StreamCall): void {
  response.on("close", () => call.close());
  response.on("drain", () => call.resume());
}

function ignore(): void {
  // A stream that fails also closes, which ends the call.
}
