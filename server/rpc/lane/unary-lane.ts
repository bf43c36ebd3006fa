import type { IncomingMessage, ServerResponse } from "node:http";
import {
  Http2ServerRequest,
  Http2ServerResponse,
  type IncomingHttpHeaders,
  type ServerHttp2Stream,
} from "node:http2";
import type { Message } from "@bufbuild/protobuf";
import { Code, ConnectError, type ContextValues, createContextValues } from "@connectrpc/connect";
import { type Call, callKey, type Gate } from "../call.ts";
import { type Caller, callerOf, callerOfStream } from "../caller.ts";
import { type ConnectHandler, REQUEST_BYTES_MAX } from "../connect-handler.ts";
import type { TellError } from "../interceptors/errors.ts";
import { stopUploadAfterTrailers } from "../stop-upload.ts";
import { compressed, isWorthCompressing } from "./compression.ts";
import { type Lane, leaveTo } from "./lane.ts";
import type { CallContext, LaneMethod } from "./methods.ts";
import {
  deadlineExceeded,
  LANE_PROTOCOLS,
  type LaneAnswer,
  type LaneProtocol,
  type Metadata,
} from "./protocols.ts";
import { collect, readPlainHead } from "./request.ts";

interface UnaryLaneOptions {
  readonly methods: ReadonlyMap<string, LaneMethod>;
  /** Answers everything that the lane leaves. */
  readonly longWay: ConnectHandler;
  readonly gate: Gate;
  readonly tellError: TellError;
  /** By default `REQUEST_BYTES_MAX`. Whatever is longer goes the long way, which has the same limit. */
  readonly requestBytesMax?: number;
}

/** A request that the lane has taken. */
interface Taken {
  readonly method: LaneMethod;
  readonly protocol: LaneProtocol;
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
export class UnaryLane implements Lane {
  readonly #options: UnaryLaneOptions;
  readonly #bytesMax: number;

  constructor(options: UnaryLaneOptions) {
    this.#options = options;
    this.#bytesMax = options.requestBytesMax ?? REQUEST_BYTES_MAX;
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
    stream.on("error", ignore);
    const call = this.#begin(taken, callerOfStream(stream), {
      isGone: () => stream.closed || stream.destroyed,
      send: (answer) => answerStream(stream, answer),
      cut: () => stream.destroy(),
    });
    stream.once("close", () => call.abandon());
    if (!this.#admit(taken, call)) {
      stopUploadAfterTrailers(stream);
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
        leaveTo(this.#options.longWay, request, response, path, { body: again(), call: call.call });
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
    const call = this.#begin(taken, callerOf(request), {
      isGone: () => response.destroyed,
      send: (answer) => {
        response.writeHead(answer.status, answer.headers);
        response.end(answer.body);
      },
      cut: () => response.destroy(),
    });
    response.once("close", () => call.abandon());
    if (!this.#admit(taken, call)) {
      request.resume();
      return true;
    }
    collect(request, this.#bytesMax, (body, again) => {
      const message = body && taken.protocol.decode(taken.method, body);
      if (message !== undefined) {
        this.#run(taken, message, call);
      } else if (call.leave()) {
        leaveTo(this.#options.longWay, request, response, path, { body: again(), call: call.call });
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
    const protocol = LANE_PROTOCOLS.get(headers["content-type"] ?? "");
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
  #begin(taken: Taken, caller: Caller, wire: LaneWire): LaneCall {
    const { method, protocol, headers, timeoutMs, acceptEncoding } = taken;
    const begun = this.#options.gate.begin({ method: method.desc, headers, caller });
    const call = new LaneCall(begun, acceptEncoding === null ? wire : compressing(wire, acceptEncoding));
    if (timeoutMs !== undefined) {
      call.endAfter(timeoutMs, () => this.#refuse(protocol, deadlineExceeded(), call));
    }
    return call;
  }

  /** Asks whether the call may come in, before its request is read. False where it was refused. */
  #admit({ protocol }: Taken, call: LaneCall): boolean {
    try {
      call.admit();
      return true;
    } catch (error) {
      this.#refuse(protocol, error, call);
      return false;
    }
  }

  #run({ method, protocol }: Taken, message: Message, call: LaneCall): void {
    call.call.request = message;
    const refuse = (error: unknown): void => this.#refuse(protocol, error, call);
    const run = (): Promise<Message> => call.call.run(() => method.invoke(message, call));
    const tell = (answered: Message): void => {
      try {
        // Laid out while the call can still be refused, since an answer may not fit its type.
        const answer = protocol.answer(method, answered, call.metadata);
        call.answer(undefined, () => answer);
      } catch (error) {
        refuse(error);
      }
    };
    try {
      (call.admission === undefined ? run() : call.admission.then(run)).then(tell, refuse);
    } catch (error) {
      refuse(error);
    }
  }

  #refuse(protocol: LaneProtocol, error: unknown, call: LaneCall): void {
    const told = this.#options.tellError(error, call.call, false);
    call.answer(told.code, () => layOut(protocol, told, call.metadata));
  }
}

/** Where a call's answer goes. */
interface LaneWire {
  readonly isGone: () => boolean;
  readonly send: (answer: LaneAnswer) => void;
  readonly cut: () => void;
}

/** The same wire for a client that takes long answers compressed. */
function compressing(wire: LaneWire, acceptEncoding: string): LaneWire {
  return {
    ...wire,
    send: (answer) => {
      if (isWorthCompressing(answer, acceptEncoding)) {
        compressed(answer, acceptEncoding)
          .then((small) => wire.isGone() || wire.send(small))
          .catch(wire.cut);
      } else {
        wire.send(answer);
      }
    },
  };
}

function ignore(): void {
  // A stream that fails closes; its answer is not sent.
}

/** One call on the lane, which is answered once. What few methods ask for is made when they ask. */
class LaneCall implements CallContext {
  readonly #wire: LaneWire;
  readonly call: Call;
  /** Set while it is not known yet whether the call may come in. */
  admission: Promise<void> | undefined;
  #isOver = false;
  #timer: NodeJS.Timeout | undefined;
  #deadlineMs: number | undefined;
  #controller: AbortController | undefined;
  #requestHeader: Headers | undefined;
  #responseHeader: Headers | undefined;
  #responseTrailer: Headers | undefined;
  #values: ContextValues | undefined;

  constructor(call: Call, wire: LaneWire) {
    this.call = call;
    this.#wire = wire;
  }

  /** Throws where the call may not come in. */
  admit(): void {
    const admission = this.call.admit();
    if (admission instanceof Promise) {
      this.admission = admission;
      // Who waits for it is told; a call that is over by then has nobody who waits.
      admission.catch(() => {});
    }
  }

  /** Sends what `make` gives, unless the call is over or its caller gone. What cannot be sent is cut. No code is OK. */
  answer(code: Code | undefined, make: () => LaneAnswer): void {
    if (this.leave()) {
      try {
        if (!this.#wire.isGone()) {
          this.#wire.send(make());
        }
      } catch {
        this.#wire.cut();
      }
      this.call.end(code);
    }
  }

  /** The caller is gone. */
  abandon(): void {
    if (this.leave()) {
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

  endAfter(ms: number, end: () => void): void {
    this.#deadlineMs = Date.now() + ms;
    this.#timer = setTimeout(() => {
      this.#controller?.abort(deadlineExceeded());
      end();
    }, ms);
  }

  get signal(): AbortSignal {
    this.#controller ??= new AbortController();
    return this.#controller.signal;
  }

  get requestHeader(): Headers {
    this.#requestHeader ??= toHeaders(this.call.headers);
    return this.#requestHeader;
  }

  get responseHeader(): Headers {
    this.#responseHeader ??= new Headers();
    return this.#responseHeader;
  }

  get responseTrailer(): Headers {
    this.#responseTrailer ??= new Headers();
    return this.#responseTrailer;
  }

  get values(): ContextValues {
    this.#values ??= createContextValues().set(callKey, this.call);
    return this.#values;
  }

  timeoutMs(): number | undefined {
    return this.#deadlineMs === undefined ? undefined : this.#deadlineMs - Date.now();
  }

  get metadata(): Metadata {
    return {
      headers: this.#responseHeader === undefined ? {} : Object.fromEntries(this.#responseHeader),
      trailers: this.#responseTrailer && Object.fromEntries(this.#responseTrailer),
    };
  }
}

/** Without the pseudo-headers of HTTP/2, whose names no other header may have. */
function toHeaders(received: Taken["headers"]): Headers {
  const headers = new Headers();
  for (const [name, value = []] of Object.entries(received)) {
    if (!name.startsWith(":")) {
      for (const each of [value].flat()) headers.append(name, each);
    }
  }
  return headers;
}

/** An error whose details or metadata cannot be laid out is told without them. */
function layOut(protocol: LaneProtocol, error: ConnectError, metadata: Metadata): LaneAnswer {
  try {
    return protocol.refuse(error, metadata);
  } catch {
    const bare = new ConnectError(error.rawMessage.toWellFormed(), error.code);
    return protocol.refuse(bare, { headers: {}, trailers: undefined });
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
