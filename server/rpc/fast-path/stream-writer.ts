import type { ServerResponse } from "node:http";
import type { ServerHttp2Stream } from "node:http2";
import { NO_HEADERS } from "../../http/headers.ts";
import type { Frame } from "./frame.ts";
import type { StreamEnd } from "./stream-protocols.ts";

const WITH_TRAILERS = { waitForTrailers: true };
/** Shared by all requests. */
const NO_RAW_HEADERS: string[] = [];

/** Writes a streaming response, over HTTP/1.1 or HTTP/2. */
export interface StreamWriter {
  /** False while the write buffer is full. The stream emits "drain" when it becomes true again. */
  readonly isReady: boolean;
  readonly isClosed: boolean;
  writeHead(headers: Record<string, string>): void;
  write(frame: Frame): void;
  end(end: StreamEnd): void;
  /** Drops what is kept of the request's head. */
  releaseRequest(): void;
}

export class Http2StreamWriter implements StreamWriter {
  readonly #stream: ServerHttp2Stream;
  readonly #hasTrailers: boolean;

  constructor(stream: ServerHttp2Stream, hasTrailers: boolean) {
    this.#stream = stream;
    this.#hasTrailers = hasTrailers;
  }

  get isReady(): boolean {
    return !this.#stream.writableNeedDrain && !this.isClosed;
  }

  get isClosed(): boolean {
    return this.#stream.closed || this.#stream.destroyed;
  }

  writeHead(headers: Record<string, string>): void {
    const fields = [":status", "200", ...Object.entries(headers).flat()];
    this.#stream.respond(fields, this.#hasTrailers ? WITH_TRAILERS : undefined);
    // The fields are sent. Node keeps the array for `sentHeaders`, which nothing reads.
    fields.length = 0;
  }

  write(frame: Frame): void {
    this.#stream.write(frame.envelope);
  }

  end({ body, trailers = {} }: StreamEnd): void {
    const stream = this.#stream;
    if (this.#hasTrailers) {
      stream.once("wantTrailers", () => stream.sendTrailers(trailers));
    }
    stream.end(body);
  }

  releaseRequest(): void {
    // Node keeps no headers of a stream.
  }
}

export class Http1StreamWriter implements StreamWriter {
  readonly #response: ServerResponse;

  constructor(response: ServerResponse) {
    this.#response = response;
  }

  get isReady(): boolean {
    return !this.#response.writableNeedDrain && !this.isClosed;
  }

  get isClosed(): boolean {
    return this.#response.destroyed;
  }

  writeHead(headers: Record<string, string>): void {
    this.#response.writeHead(200, headers);
  }

  /**
   * `frame.chunk` includes the chunk header; writing it avoids four writes per message. Node otherwise corks until the end
   * of the turn, about 10 % slower.
   */
  write(frame: Frame): void {
    const response = this.#response;
    const { socket } = response;
    response.chunkedEncoding = false;
    socket?.cork();
    response.write(frame.chunk);
    socket?.uncork();
    response.chunkedEncoding = true;
  }

  end({ body }: StreamEnd): void {
    this.#response.end(body);
  }

  releaseRequest(): void {
    const { req } = this.#response;
    req.rawHeaders = NO_RAW_HEADERS;
    req.rawTrailers = NO_RAW_HEADERS;
    req.headers = NO_HEADERS;
    req.url = "";
  }
}
