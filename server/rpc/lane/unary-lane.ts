import type { IncomingMessage, ServerResponse } from "node:http";
import {
  Http2ServerRequest,
  Http2ServerResponse,
  type IncomingHttpHeaders,
  type ServerHttp2Stream,
} from "node:http2";
import type { Readable } from "node:stream";
import type { Message } from "@bufbuild/protobuf";
import { type ContextValues, createContextValues } from "@connectrpc/connect";
import { type Caller, callerKey, callerOf, callerOfStream } from "../caller.ts";
import { type ConnectHandler, REQUEST_BYTES_MAX } from "../connect-handler.ts";
import type { TellError } from "../interceptors/errors.ts";
import type { ListenerRequest, ListenerResponse } from "../listener.ts";
import { compressed, isWorthCompressing } from "./compression.ts";
import type { CallContext, LaneMethod } from "./methods.ts";
import { deadlineExceeded, LANE_PROTOCOLS, type LaneAnswer, type LaneProtocol } from "./protocols.ts";

/** Names, addresses and ports as every client writes them. Anything else is for the long way to judge. */
const PLAIN_AUTHORITY = /^[\w.-]+(:\d{1,5})?$|^\[[0-9a-fA-F:.]+\](:\d{1,5})?$/;

interface UnaryLaneOptions {
  readonly methods: ReadonlyMap<string, LaneMethod>;
  /** Answers everything that the lane leaves. */
  readonly longWay: ConnectHandler;
  readonly tellError: TellError;
}

/** A request that the lane has taken. */
interface Taken {
  readonly method: LaneMethod;
  readonly protocol: LaneProtocol;
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
export class UnaryLane {
  readonly #options: UnaryLaneOptions;

  constructor(options: UnaryLaneOptions) {
    this.#options = options;
  }

  /** Answers an HTTP/2 stream if it is a plain unary call, and says whether it was. */
  takeStream(
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
    stream.on("error", () => {
      // The stream closes; its answer is not sent.
    });
    collect(stream, (body, rest) => {
      const message = body && taken.protocol.decode(taken.method, body);
      if (message === undefined) {
        const request = new Http2ServerRequest(stream, headers, {}, rawHeaders);
        this.#leave(request, new Http2ServerResponse(stream), path, rest);
        return;
      }
      const call = new LaneCall(callerOfStream(stream), () => stream.closed || stream.destroyed);
      this.#run(taken, message, call, (answer) => answerStream(stream, answer));
    });
    return true;
  }

  /** The same for HTTP/1.1. */
  takeRequest(request: IncomingMessage, response: ServerResponse, path: string): boolean {
    const { headers } = request;
    const taken = this.#take(path, request.method, headers.host, headers, false);
    if (taken === undefined || request.url !== path) {
      return false;
    }
    collect(request, (body, rest) => {
      const message = body && taken.protocol.decode(taken.method, body);
      if (message === undefined) {
        this.#leave(request, response, path, rest);
        return;
      }
      const call = new LaneCall(callerOf(request), () => response.destroyed);
      this.#run(taken, message, call, (answer) => {
        response.writeHead(answer.status, answer.headers);
        response.end(answer.body);
      });
    });
    return true;
  }

  /** Hands a request over to the long way, which throws on what it cannot parse, such as a port above 65535. */
  #leave(
    request: ListenerRequest,
    response: ListenerResponse,
    path: string,
    body: AsyncIterable<Uint8Array>,
  ): void {
    try {
      this.#options.longWay(request, response, path, body);
    } catch {
      response.statusCode = 400;
      response.setHeader("content-type", "text/plain; charset=utf-8");
      response.end("Bad Request\n");
    }
  }

  #take(
    path: string,
    httpMethod: string | undefined,
    authority: string | undefined,
    headers: IncomingHttpHeaders | IncomingMessage["headers"],
    isHttp2: boolean,
  ): Taken | undefined {
    const method = this.#options.methods.get(path);
    const protocol = LANE_PROTOCOLS.get(headers["content-type"] ?? "");
    if (method === undefined || protocol === undefined || httpMethod !== "POST") {
      return undefined;
    }
    const isPlain =
      headers[protocol.encodingHeader] === undefined &&
      headers.expect === undefined &&
      (isHttp2 || !protocol.needsHttp2) &&
      authority !== undefined &&
      PLAIN_AUTHORITY.test(authority);
    if (!isPlain) {
      return undefined;
    }
    const acceptEncoding = headers["accept-encoding"];
    const taken = {
      method,
      protocol,
      acceptEncoding: acceptEncoding === undefined ? null : String(acceptEncoding),
    };
    const timeout = headers[protocol.timeoutHeader];
    if (timeout === undefined) {
      return { ...taken, timeoutMs: undefined };
    }
    const { timeoutMs, error } = protocol.parseTimeout(String(timeout));
    return error === undefined && timeoutMs !== undefined ? { ...taken, timeoutMs } : undefined;
  }

  /** Runs the method, and answers once: with its result, its error, or the end of its time. */
  #run(taken: Taken, message: Message, call: LaneCall, send: (answer: LaneAnswer) => void): void {
    const { method, protocol, timeoutMs, acceptEncoding } = taken;
    let isAnswered = false;
    const answerOnce = (make: () => LaneAnswer): void => {
      clearTimeout(timer);
      if (!isAnswered && !call.isGone()) {
        isAnswered = true;
        const answer = make();
        if (isWorthCompressing(answer, acceptEncoding)) {
          void compressed(answer, acceptEncoding).then((small) => call.isGone() || send(small));
        } else {
          send(answer);
        }
      }
    };
    const refuse = (error: unknown): void => {
      if (isAnswered) {
        return;
      }
      const told = this.#options.tellError(error, method.procedure, call.isGone());
      answerOnce(() => protocol.refuse(told, call.headers));
    };
    const timer =
      timeoutMs === undefined
        ? undefined
        : setTimeout(() => {
            call.abort(deadlineExceeded());
            refuse(deadlineExceeded());
          }, timeoutMs);
    method
      .invoke(message, call)
      .then((output) => answerOnce(() => protocol.answer(method, output, call.headers)), refuse);
  }
}

/** What a method sees of a call on the lane. What few methods ask for is made when they ask. */
class LaneCall implements CallContext {
  readonly isGone: () => boolean;
  readonly #caller: Caller;
  #controller: AbortController | undefined;
  #responseHeader: Headers | undefined;
  #values: ContextValues | undefined;

  constructor(caller: Caller, isGone: () => boolean) {
    this.#caller = caller;
    this.isGone = isGone;
  }

  get signal(): AbortSignal {
    this.#controller ??= new AbortController();
    return this.#controller.signal;
  }

  get responseHeader(): Headers {
    this.#responseHeader ??= new Headers();
    return this.#responseHeader;
  }

  get values(): ContextValues {
    this.#values ??= createContextValues().set(callerKey, this.#caller);
    return this.#values;
  }

  /** What the method has set to go out with the answer. */
  get headers(): Record<string, string> {
    return this.#responseHeader === undefined ? {} : Object.fromEntries(this.#responseHeader);
  }

  abort(reason: unknown): void {
    this.#controller?.abort(reason);
  }
}

function answerStream(stream: ServerHttp2Stream, answer: LaneAnswer): void {
  const { trailers } = answer;
  if (trailers === undefined) {
    stream.respond({ ":status": answer.status, ...answer.headers });
  } else {
    stream.respond({ ":status": answer.status, ...answer.headers }, { waitForTrailers: true });
    stream.once("wantTrailers", () => stream.sendTrailers(trailers));
  }
  stream.end(answer.body);
}

/**
 * Reads a body up to the limit and hands it over whole, with a copy to read again. A larger one
 * is handed over as what was read and the rest of the stream, for the long way to refuse. One that breaks off is
 * not handed over.
 */
function collect(
  source: Readable,
  done: (body: Buffer | undefined, again: AsyncIterable<Uint8Array>) => void,
): void {
  const chunks: Buffer[] = [];
  let bytes = 0;
  const onData = (chunk: Buffer): void => {
    chunks.push(chunk);
    bytes += chunk.length;
    if (bytes > REQUEST_BYTES_MAX) {
      source.off("data", onData);
      source.off("end", onEnd);
      source.pause();
      done(undefined, replay(chunks, source));
    }
  };
  const onEnd = (): void => {
    const [only] = chunks;
    const body = chunks.length === 1 && only !== undefined ? only : Buffer.concat(chunks);
    done(body, replay(chunks));
  };
  source.on("data", onData);
  source.on("end", onEnd);
}

async function* replay(chunks: readonly Buffer[], rest?: Readable): AsyncGenerator<Uint8Array> {
  try {
    yield* chunks;
    if (rest !== undefined) {
      yield* rest;
    }
  } finally {
    // Where nobody reads on, what still comes is thrown away: a stream with unread data does not close.
    rest?.resume();
  }
}
