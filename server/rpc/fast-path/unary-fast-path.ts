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
import type { ErrorReporter } from "../interceptors/errors.ts";
import { type FastPath, fallBackTo } from "./fast-path.ts";
import type { Awaitable, FastPathMethod } from "./methods.ts";
import { collect, readPlainHead } from "./request.ts";
import { UnaryCall } from "./unary-call.ts";
import {
  deadlineExceeded,
  type EncodedResponse,
  type Metadata,
  UNARY_PROTOCOLS,
  type UnaryProtocol,
} from "./unary-protocols.ts";
import { CompressingWriter, UnaryHttp1Writer, UnaryHttp2Writer, type UnaryWriter } from "./unary-writer.ts";

interface UnaryLaneOptions {
  readonly methods: ReadonlyMap<string, FastPathMethod>;
  /** Answers everything that the lane leaves. */
  readonly connectHandler: ConnectHandler;
  readonly pipeline: CallPipeline;
  readonly reportError: ErrorReporter;
  /** By default `REQUEST_BYTES_MAX`. Whatever is longer goes the long way, which has the same limit. */
  readonly requestBytesMax?: number;
}

/** A request that the lane has taken. */
interface Taken {
  readonly method: FastPathMethod;
  readonly protocol: UnaryProtocol;
  readonly headers: IncomingHttpHeaders | IncomingMessage["headers"];
  readonly timeoutMs: number | undefined;
  /** What the client takes of compressed answers; Connect alone compresses here, since its bodies may go to browsers. */
  readonly acceptEncoding: string | null;
}

/**
 * The short way of plain unary calls: from node's streams through protobuf to the same methods that
 * Connect runs, without its async iterables, Headers and AbortControllers for each call. It takes what is
 * plain, and hands everything else to Connect, with the body that it has read; so whatever is odd is
 * judged in one place. Errors, deadlines and limits are those of the long way.
 */
export class UnaryFastPath implements FastPath {
  readonly #options: UnaryLaneOptions;
  readonly #bytesMax: number;

  constructor(options: UnaryLaneOptions) {
    this.#options = options;
    this.#bytesMax = options.requestBytesMax ?? REQUEST_BYTES_MAX;
  }

  /** Answers an HTTP/2 stream if it is a plain unary call, and says whether it was. */
  tryHandleStream(
    stream: ServerHttp2Stream,
    headers: IncomingHttpHeaders,
    rawHeaders: readonly string[],
  ): boolean {
    const path = headers[":path"] ?? "";
    const taken = this.#take(path, headers[":method"], headers[":authority"], headers, true);
    // What a page of another origin may read is decided on the long way.
    if (taken === undefined || headers["origin"] !== undefined) {
      return false;
    }
    stream.on("error", ignore);
    const call = this.#begin(taken, callerOfStream(stream), new UnaryHttp2Writer(stream));
    stream.on("close", () => call.abandon());
    if (!this.#admit(taken, call)) {
      rejectRequestBodyAfterTrailers(stream);
      stream.resume();
      return true;
    }
    collect(stream, this.#bytesMax, (body, again) => {
      const message = body && taken.protocol.decode(taken.method, body);
      if (message !== undefined) {
        this.#run(taken, message, call);
      } else if (call.leave()) {
        const request = new Http2ServerRequest(stream, headers, {}, rawHeaders);
        const response = new Http2ServerResponse(stream);
        fallBackTo(this.#options.connectHandler, request, response, path, { body: again(), call: call.call });
      }
    });
    return true;
  }

  /** The same for HTTP/1.1. */
  tryHandleRequest(request: IncomingMessage, response: ServerResponse, path: string): boolean {
    const { headers } = request;
    const taken = this.#take(path, request.method, headers.host, headers, false);
    if (taken === undefined || request.url !== path) {
      return false;
    }
    const call = this.#begin(taken, callerOf(request), new UnaryHttp1Writer(response));
    response.on("close", () => call.abandon());
    if (!this.#admit(taken, call)) {
      request.resume();
      return true;
    }
    collect(request, this.#bytesMax, (body, again) => {
      const message = body && taken.protocol.decode(taken.method, body);
      if (message !== undefined) {
        this.#run(taken, message, call);
      } else if (call.leave()) {
        fallBackTo(this.#options.connectHandler, request, response, path, { body: again(), call: call.call });
      }
    });
    return true;
  }

  #take(
    path: string,
    httpMethod: string | undefined,
    authority: string | undefined,
    headers: IncomingHttpHeaders | IncomingMessage["headers"],
    isHttp2: boolean,
  ): Taken | undefined {
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

  /** Begins a call: its time runs from here, also while its request is still arriving. */
  #begin(taken: Taken, caller: Caller, wire: UnaryWriter): UnaryCall {
    const { method, protocol, headers, timeoutMs, acceptEncoding } = taken;
    const begun = this.#options.pipeline.begin({ method: method.desc, headers, caller });
    const call = new UnaryCall(
      begun,
      acceptEncoding === null ? wire : new CompressingWriter(wire, acceptEncoding),
    );
    if (timeoutMs !== undefined) {
      call.endAfter(timeoutMs, () => this.#refuse(protocol, deadlineExceeded(), call));
    }
    return call;
  }

  /** Asks whether the call may come in, before its request is read. False where it was refused. */
  #admit({ protocol }: Taken, call: UnaryCall): boolean {
    try {
      call.admit();
      return true;
    } catch (error) {
      this.#refuse(protocol, error, call);
      return false;
    }
  }

  #run({ method, protocol }: Taken, message: Message, call: UnaryCall): void {
    call.call.request = message;
    const refuse = (error: unknown): void => this.#refuse(protocol, error, call);
    const run = (): Awaitable<Message> => call.call.run(() => method.invoke(message, call));
    const tell = (answered: Message): void => {
      // Laid out while the call can still be refused, since an answer may not fit its type.
      const answer = protocol.answer(method, answered, call.metadata);
      call.answer(undefined, () => answer);
    };
    try {
      const answered = call.admission === undefined ? run() : call.admission.then(run);
      if (answered instanceof Promise) {
        answered.then(tell).catch(refuse);
      } else {
        tell(answered);
      }
    } catch (error) {
      refuse(error);
    }
  }

  #refuse(protocol: UnaryProtocol, error: unknown, call: UnaryCall): void {
    const told = this.#options.reportError(error, call.call, false);
    call.answer(told.code, () => layOut(protocol, told, call.metadata));
  }
}

function ignore(): void {
  // A stream that fails closes; its answer is not sent.
}

/** An error whose details or metadata cannot be laid out is told without them. */
function layOut(protocol: UnaryProtocol, error: ConnectError, metadata: Metadata): EncodedResponse {
  try {
    return protocol.refuse(error, metadata);
  } catch {
    const bare = new ConnectError(error.rawMessage.toWellFormed(), error.code);
    return protocol.refuse(bare, { headers: undefined, trailers: undefined });
  }
}
