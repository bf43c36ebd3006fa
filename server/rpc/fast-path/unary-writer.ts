import type { ServerResponse } from "node:http";
import type { ServerHttp2Stream } from "node:http2";
import { compressed, isWorthCompressing } from "./compression.ts";
import type { EncodedResponse } from "./unary-protocols.ts";

const WITH_TRAILERS = { waitForTrailers: true };

/** Where the one answer of a call goes. */
export interface UnaryWriter {
  readonly isGone: boolean;
  send(answer: EncodedResponse): void;
  /** For what cannot be sent. */
  cut(): void;
}

export class UnaryHttp2Writer implements UnaryWriter {
  readonly #stream: ServerHttp2Stream;

  constructor(stream: ServerHttp2Stream) {
    this.#stream = stream;
  }

  get isGone(): boolean {
    return this.#stream.closed || this.#stream.destroyed;
  }

  send(answer: EncodedResponse): void {
    const stream = this.#stream;
    const { status, trailers } = answer;
    const headers = [":status", String(status), ...headersOf(answer)];
    if (trailers === undefined) {
      stream.respond(headers);
    } else {
      stream.respond(headers, WITH_TRAILERS);
      stream.on("wantTrailers", () => stream.sendTrailers(trailers));
    }
    stream.end(answer.body);
  }

  cut(): void {
    this.#stream.destroy();
  }
}

export class UnaryHttp1Writer implements UnaryWriter {
  readonly #response: ServerResponse;

  constructor(response: ServerResponse) {
    this.#response = response;
  }

  get isGone(): boolean {
    return this.#response.destroyed;
  }

  send(answer: EncodedResponse): void {
    this.#response.writeHead(answer.status, headersOf(answer));
    this.#response.end(answer.body);
  }

  cut(): void {
    this.#response.destroy();
  }
}

/** For a client that takes long answers compressed. */
export class CompressingWriter implements UnaryWriter {
  readonly #wire: UnaryWriter;
  readonly #acceptEncoding: string;

  constructor(wire: UnaryWriter, acceptEncoding: string) {
    this.#wire = wire;
    this.#acceptEncoding = acceptEncoding;
  }

  get isGone(): boolean {
    return this.#wire.isGone;
  }

  send(answer: EncodedResponse): void {
    const wire = this.#wire;
    if (isWorthCompressing(answer, this.#acceptEncoding)) {
      compressed(answer, this.#acceptEncoding)
        .then((small) => wire.isGone || wire.send(small))
        .catch(() => wire.cut());
    } else {
      wire.send(answer);
    }
  }

  cut(): void {
    this.#wire.cut();
  }
}

function headersOf({ headers, body, isWhole }: EncodedResponse): string[] {
  return isWhole && body !== undefined
    ? [...headers, "content-length", String(Buffer.byteLength(body))]
    : [...headers];
}
