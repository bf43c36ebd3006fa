import type { IncomingMessage, ServerResponse } from "node:http";
import {
  Http2ServerRequest,
  Http2ServerResponse,
  type IncomingHttpHeaders,
  type ServerHttp2Stream,
} from "node:http2";
import type { Message } from "@bufbuild/protobuf";
import { ConnectError } from "@connectrpc/connect";
import { type Caller, callerOf, callerOfStream } from "../../http/caller.ts";
import { rejectRequestBodyAfterTrailers } from "../../http/reject-request-body.ts";
import type { CallPipeline } from "../call.ts";
import { type ConnectHandler, REQUEST_BYTES_MAX } from "../connect-handler.ts";
import { deadlineExceeded } from "../deadline.ts";
import type { ErrorReporter } from "../interceptors/errors.ts";
import { type FastPath, fallBackTo } from "./fast-path.ts";
import type { Metadata } from "./fast-path-call.ts";
import type { Awaitable, FastPathMethod } from "./methods.ts";
import { readBody, readPlainHead } from "./request.ts";
import { UnaryCall } from "./unary-call.ts";
import { type EncodedResponse, UNARY_PROTOCOLS, type UnaryProtocol } from "./unary-protocols.ts";
import { CompressingWriter, UnaryHttp1Writer, UnaryHttp2Writer, type UnaryWriter } from "./unary-writer.ts";
import { WriteBatch } from "./write-batch.ts";

interface UnaryFastPathOptions {
  readonly methods: ReadonlyMap<string, FastPathMethod>;
  /** Handles every request that falls back. */
  readonly connectHandler: ConnectHandler;
  readonly pipeline: CallPipeline;
  readonly reportError: ErrorReporter;
  /** By default `REQUEST_BYTES_MAX`. A larger request falls back to Connect, which has the same limit. */
  readonly requestBytesMax?: number;
}

/** A request that the fast path can handle, judged by its head. */
interface PlainRequest {
  readonly method: FastPathMethod;
  readonly protocol: UnaryProtocol;
  readonly headers: IncomingHttpHeaders | IncomingMessage["headers"];
  readonly timeoutMs: number | undefined;
  readonly acceptEncoding: string | null;
}

/**
 * Runs plain unary calls without Connect: from Node's streams through protobuf-es to the method, and without an async
 * iterable, `Headers` or AbortController per call. Any other request falls back to Connect, with the part of the body that
 * was read, so that one place handles the special cases. Errors, deadlines and limits are the same on both paths.
 */
export class UnaryFastPath implements FastPath {
  readonly #options: UnaryFastPathOptions;
  readonly #bytesMax: number;
  readonly #http1Writes = new WriteBatch();

  constructor(options: UnaryFastPathOptions) {
    this.#options = options;
    this.#bytesMax = options.requestBytesMax ?? REQUEST_BYTES_MAX;
  }

  /** Handles an HTTP/2 stream if it is a plain unary call. */
  tryHandleStream(
    stream: ServerHttp2Stream,
    headers: IncomingHttpHeaders,
    rawHeaders: readonly string[],
  ): boolean {
    const path = headers[":path"] ?? "";
    const plain = this.#match(path, headers[":method"], headers[":authority"], headers, true);
    // Cross-origin requests fall back: the router sets their CORS headers.
    if (plain === undefined || headers["origin"] !== undefined) {
      return false;
    }
    stream.on("error", ignore);
    const call = this.#start(plain, callerOfStream(stream), new UnaryHttp2Writer(stream));
    stream.on("close", () => call.close());
    if (!this.#admit(plain, call)) {
      rejectRequestBodyAfterTrailers(stream);
      stream.resume();
      return true;
    }
    readBody(stream, this.#bytesMax, (body, replay) => {
      const message = body && plain.protocol.decode(plain.method, body);
      if (message !== undefined) {
        this.#run(plain, message, call);
      } else if (call.release()) {
        const request = new Http2ServerRequest(stream, headers, {}, rawHeaders);
        const response = new Http2ServerResponse(stream);
        const started = { body: replay(), call: call.call };
        fallBackTo(this.#options.connectHandler, request, response, path, started);
      }
    });
    return true;
  }

  tryHandleRequest(request: IncomingMessage, response: ServerResponse, path: string): boolean {
    const { headers } = request;
    const plain = this.#match(path, request.method, headers.host, headers, false);
    if (plain === undefined || request.url !== path) {
      return false;
    }
    const call = this.#start(plain, callerOf(request), new UnaryHttp1Writer(response, this.#http1Writes));
    response.on("close", () => call.close());
    if (!this.#admit(plain, call)) {
      request.resume();
      return true;
    }
    readBody(request, this.#bytesMax, (body, replay) => {
      const message = body && plain.protocol.decode(plain.method, body);
      if (message !== undefined) {
        this.#run(plain, message, call);
      } else if (call.release()) {
        const started = { body: replay(), call: call.call };
        fallBackTo(this.#options.connectHandler, request, response, path, started);
      }
    });
    return true;
  }

  #match(
    path: string,
    httpMethod: string | undefined,
    authority: string | undefined,
    headers: IncomingHttpHeaders | IncomingMessage["headers"],
    isHttp2: boolean,
  ): PlainRequest | undefined {
    const method = this.#options.methods.get(path);
    const protocol = UNARY_PROTOCOLS.get(headers["content-type"] ?? "");
    if (method === undefined || protocol === undefined) {
      return undefined;
    }
    const head = readPlainHead(protocol, { httpMethod, authority, isHttp2 }, headers);
    if (head === undefined) {
      return undefined;
    }
    const acceptEncoding = headers["accept-encoding"];
    return {
      method,
      protocol,
      headers,
      timeoutMs: head.timeoutMs,
      acceptEncoding: acceptEncoding === undefined ? null : String(acceptEncoding),
    };
  }

  /** Starts a call, and its deadline: the time in which the request arrives counts. */
  #start(plain: PlainRequest, caller: Caller, writer: UnaryWriter): UnaryCall {
    const { method, protocol, headers, timeoutMs, acceptEncoding } = plain;
    const call = new UnaryCall(
      this.#options.pipeline.start({ method: method.desc, headers, caller }),
      acceptEncoding === null ? writer : new CompressingWriter(writer, acceptEncoding),
    );
    if (timeoutMs !== undefined) {
      call.setDeadline(timeoutMs, () => this.#fail(protocol, deadlineExceeded(), call));
    }
    return call;
  }

  /** Enters the middleware before the request is read. Returns false, with the error sent, where it rejects the call. */
  #admit({ protocol }: PlainRequest, call: UnaryCall): boolean {
    try {
      call.admit();
      return true;
    } catch (error) {
      this.#fail(protocol, error, call);
      return false;
    }
  }

  #run(plain: PlainRequest, message: Message, call: UnaryCall): void {
    call.call.request = message;
    try {
      const { admission } = call;
      const result =
        admission === undefined
          ? invoke(plain, message, call)
          : admission.then(() => invoke(plain, message, call));
      if (result instanceof Promise) {
        result
          .then((response) => respond(plain, response, call))
          .catch((error: unknown) => this.#fail(plain.protocol, error, call));
      } else {
        respond(plain, result, call);
      }
    } catch (error) {
      this.#fail(plain.protocol, error, call);
    }
  }

  #fail(protocol: UnaryProtocol, error: unknown, call: UnaryCall): void {
    const reported = this.#options.reportError(error, call.call, false);
    call.respond(reported.code, () => encodeError(protocol, reported, call.metadata));
  }
}

function invoke({ method }: PlainRequest, message: Message, call: UnaryCall): Awaitable<Message> {
  return call.call.run(() => method.invoke(message, call));
}

function respond({ method, protocol }: PlainRequest, message: Message, call: UnaryCall): void {
  // Encoded before the call is released: a value that is out of range must still become an error.
  const response = protocol.encodeResponse(method, message, call.metadata);
  call.call.response = message;
  call.respond(undefined, () => response);
}

function ignore(): void {
  // A stream that fails also closes, which ends the call.
}

/** Drops details and metadata that cannot be encoded. */
function encodeError(protocol: UnaryProtocol, error: ConnectError, metadata: Metadata): EncodedResponse {
  try {
    return protocol.encodeError(error, metadata);
  } catch {
    const bare = new ConnectError(error.rawMessage.toWellFormed(), error.code);
    return protocol.encodeError(bare, { headers: undefined, trailers: undefined });
  }
}
