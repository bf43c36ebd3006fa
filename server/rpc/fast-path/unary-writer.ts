import type { ServerResponse } from "node:http";
import type { ServerHttp2Stream } from "node:http2";
import { compressed, isWorthCompressing } from "./compression.ts";
import type { EncodedResponse } from "./unary-protocols.ts";
import type { WriteBatch } from "./write-batch.ts";

const WITH_TRAILERS = { waitForTrailers: true };

/** Writes the response of a unary call, over HTTP/1.1 or HTTP/2. */
export interface UnaryWriter {
  readonly isClosed: boolean;
  send(response: EncodedResponse): void;
  /** Aborts the response. */
  destroy(): void;
}

export class UnaryHttp2Writer implements UnaryWriter {
  readonly #stream: ServerHttp2Stream;

  constructor(stream: ServerHttp2Stream) {
    this.#stream = stream;
  }

  get isClosed(): boolean {
    return this.#stream.closed || this.#stream.destroyed;
  }

  send(response: EncodedResponse): void {
    const stream = this.#stream;
    const { status, trailers } = response;
    const headers = headersOf(response, [":status", String(status)]);
    if (trailers === undefined) {
      stream.respond(headers);
    } else {
      stream.respond(headers, WITH_TRAILERS);
      stream.on("wantTrailers", () => stream.sendTrailers(trailers));
    }
    stream.end(response.body);
  }

  destroy(): void {
    this.#stream.destroy();
  }
}

export class UnaryHttp1Writer implements UnaryWriter {
  readonly #response: ServerResponse;
  readonly #batch: WriteBatch;
  #encoded: EncodedResponse | undefined;

  constructor(response: ServerResponse, batch: WriteBatch) {
    this.#response = response;
    this.#batch = batch;
  }

  get isClosed(): boolean {
    return this.#response.destroyed;
  }

  send(response: EncodedResponse): void {
    this.#encoded = response;
    this.#batch.add(this);
  }

  flush(): void {
    const encoded = this.#encoded;
    if (encoded === undefined || this.isClosed) {
      return;
    }
    try {
      this.#response.writeHead(encoded.status, headersOf(encoded, []));
      this.#response.end(encoded.body);
    } catch {
      this.destroy();
    }
  }

  destroy(): void {
    this.#response.destroy();
  }
}

/** Compresses large responses for a client that accepts a compression. */
export class CompressingWriter implements UnaryWriter {
  readonly #writer: UnaryWriter;
  readonly #acceptEncoding: string;

  constructor(writer: UnaryWriter, acceptEncoding: string) {
    this.#writer = writer;
    this.#acceptEncoding = acceptEncoding;
  }

  get isClosed(): boolean {
    return this.#writer.isClosed;
  }

  send(response: EncodedResponse): void {
    const writer = this.#writer;
    if (isWorthCompressing(response, this.#acceptEncoding)) {
      compressed(response, this.#acceptEncoding)
        .then((smaller) => writer.isClosed || writer.send(smaller))
        .catch(() => writer.destroy());
    } else {
      writer.send(response);
    }
  }

  destroy(): void {
    this.#writer.destroy();
  }
}

/** Appends to `fields`, which Node appends to as well. */
function headersOf({ headers, body, isUnframed }: EncodedResponse, fields: string[]): string[] {
  fields.push(...headers);
  if (isUnframed && body !== undefined) {
    fields.push("content-length", String(Buffer.byteLength(body)));
  }
  return fields;
}
