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
    const isGone = (): boolean => stream.closed || stream.destroyed;
    const call = this.#begin(taken, callerOfStream(stream), isGone, (answer) => answerStream(stream, answer));
    stream.once("close", () => call.leave());
    collect(stream, (body, rest) => {
      const message = body && taken.protocol.decode(taken.method, body);
      if (message !== undefined) {
        this.#run(taken, message, call);
      } else if (call.leave()) {
        const request = new Http2ServerRequest(stream, headers, {}, rawHeaders);
        this.#leave(request, new Http2ServerResponse(stream), path, rest);
      }
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
    const isGone = (): boolean => response.destroyed;
    const call = this.#begin(taken, callerOf(request), isGone, (answer) => {
      response.writeHead(answer.status, answer.headers);
      response.end(answer.body);
    });
    response.once("close", () => call.leave());
    collect(request, (body, rest) => {
      const message = body && taken.protocol.decode(taken.method, body);
      if (message !== undefined) {
        this.#run(taken, message, call);
      } else if (call.leave()) {
        this.#leave(request, response, path, rest);
      }
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

  /** Begins a call: its time runs from here, also while its request is still arriving. */
  #begin(taken: Taken, caller: Caller, isGone: () => boolean, send: (answer: LaneAnswer) => void): LaneCall {
    const { method, protocol, timeoutMs, acceptEncoding } = taken;
    const call = new LaneCall(caller, isGone, (answer) => {
      if (isWorthCompressing(answer, acceptEncoding)) {
        void compressed(answer, acceptEncoding).then((small) => isGone() || send(small));
      } else {
        send(answer);
      }
    });
    if (timeoutMs !== undefined) {
      call.endAfter(timeoutMs, () => {
        const told = this.#options.tellError(deadlineExceeded(), method.procedure, false);
        return protocol.refuse(told, call.headers);
      });
    }
    return call;
  }

  #run({ method, protocol }: Taken, message: Message, call: LaneCall): void {
    method.invoke(message, call).then(
      (output) => call.answer(() => protocol.answer(method, output, call.headers)),
      (error: unknown) =>
        call.answer(() =>
          protocol.refuse(this.#options.tellError(error, method.procedure, false), call.headers),
        ),
    );
  }
}

/** One call on the lane, which is answered once. What few methods ask for is made when they ask. */
class LaneCall implements CallContext {
  readonly #isGone: () => boolean;
  readonly #send: (answer: LaneAnswer) => void;
  readonly #caller: Caller;
  #isOver = false;
  #timer: NodeJS.Timeout | undefined;
  #controller: AbortController | undefined;
  #responseHeader: Headers | undefined;
  #values: ContextValues | undefined;

  constructor(caller: Caller, isGone: () => boolean, send: (answer: LaneAnswer) => void) {
    this.#caller = caller;
    this.#isGone = isGone;
    this.#send = send;
  }

  /** Sends what `make` gives, unless the call is over or its caller gone. */
  answer(make: () => LaneAnswer): void {
    if (this.leave() && !this.#isGone()) {
      this.#send(make());
    }
  }

  /** Ends the lane's part of the call. False where it was over already. */
  leave(): boolean {
    const wasOver = this.#isOver;
    this.#isOver = true;
    clearTimeout(this.#timer);
    return !wasOver;
  }

  endAfter(ms: number, make: () => LaneAnswer): void {
    this.#timer = setTimeout(() => {
      this.#controller?.abort(deadlineExceeded());
      this.answer(make);
    }, ms);
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
