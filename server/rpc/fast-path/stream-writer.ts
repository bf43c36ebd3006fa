import type { ServerResponse } from "node:http";
import type { ServerHttp2Stream } from "node:http2";
import type { Frame } from "./frame.ts";
import type { StreamEnd } from "./stream-protocols.ts";

/** One answer of many frames, over either version of HTTP. */
export interface StreamWriter {
  /** Whether a frame may be written now; when it may again after it might not, the wire has a "drain". */
  readonly isReady: boolean;
  readonly isGone: boolean;
  begin(headers: Record<string, string>): void;
  write(frame: Frame): void;
  end(end: StreamEnd): void;
}

export class Http2StreamWriter implements StreamWriter {
  readonly #stream: ServerHttp2Stream;
  readonly #hasTrailers: boolean;

  constructor(stream: ServerHttp2Stream, hasTrailers: boolean) {
    this.#stream = stream;
    this.#hasTrailers = hasTrailers;
  }

  get isReady(): boolean {
    return !this.#stream.writableNeedDrain && !this.isGone;
  }

  get isGone(): boolean {
    return this.#stream.closed || this.#stream.destroyed;
  }

  begin(headers: Record<string, string>): void {
    this.#stream.respond({ ":status": 200, ...headers }, { waitForTrailers: this.#hasTrailers });
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
}

export class Http1StreamWriter implements StreamWriter {
  readonly #response: ServerResponse;

  constructor(response: ServerResponse) {
    this.#response = response;
  }

  get isReady(): boolean {
    return !this.#response.writableNeedDrain && !this.isGone;
  }

  get isGone(): boolean {
    return this.#response.destroyed;
  }

  begin(headers: Record<string, string>): void {
    this.#response.writeHead(200, headers);
  }

  /**
   * A frame is a chunk already, so that all readers are written the same bytes, by one write instead of four. Corked,
   * for node would else cork by itself until the end of the turn, at a tenth of the cost of a delivery.
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
}
