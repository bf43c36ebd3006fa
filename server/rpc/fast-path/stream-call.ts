import type { Call } from "../call.ts";
import type { ErrorReporter } from "../interceptors/errors.ts";
import { FastPathCall } from "./fast-path-call.ts";
import type { Frame } from "./frame.ts";
import type { StreamProtocol } from "./stream-protocols.ts";
import type { StreamWriter } from "./stream-writer.ts";

/** Produces the messages of a response, by `StreamCall.write`. */
export interface MessageSource {
  start(): void;
  /** `StreamCall.isReady` is true again. */
  resume(): void;
  /** The call ended, and takes no more messages. */
  close(): void;
}

/** Encodes the messages of a method. An error ends the call. */
export interface FrameEncoder<T> {
  encode(message: T, isJson: boolean): Frame;
}

interface StreamCallOptions {
  readonly protocol: StreamProtocol;
  readonly writer: StreamWriter;
  /** Sent with the headers that the method sets. */
  readonly extraHeaders: Readonly<Record<string, string>>;
  readonly reportError: ErrorReporter;
}

/** A server-streaming call on the fast path, from the head of its request to the end of its response. */
export class StreamCall extends FastPathCall {
  readonly #writer: StreamWriter;
  readonly #protocol: StreamProtocol;
  readonly #reportError: ErrorReporter;
  /** `undefined` once the head of the response is written. */
  #extraHeaders: StreamCallOptions["extraHeaders"] | undefined;
  #source: MessageSource | undefined;

  constructor(call: Call, { protocol, writer, extraHeaders, reportError }: StreamCallOptions) {
    super(call);
    this.#protocol = protocol;
    this.#writer = writer;
    this.#extraHeaders = extraHeaders;
    this.#reportError = reportError;
  }

  /** False while the write buffer is full. */
  get isReady(): boolean {
    return this.#writer.isReady;
  }

  /** Starts a source, unless the call is over. An error of `open` ends the call. */
  start(open: () => MessageSource): void {
    try {
      if (!this.isOver) {
        this.#source = this.call.run(open);
        this.call.releaseRequest();
        this.#writer.releaseRequest();
        this.#source.start();
      }
    } catch (error) {
      this.fail(error);
    }
  }

  /** Sends a message. Allocates nothing: it runs once for every message and stream. */
  write<T>(message: T, encoder: FrameEncoder<T>): void {
    try {
      const frame = encoder.encode(message, this.#protocol.isJson);
      this.#writeHead();
      this.#writer.write(frame);
    } catch (error) {
      this.fail(error);
    }
  }

  /** Ends the response with OK. */
  end(): void {
    if (this.release()) {
      this.#endResponse(undefined);
    }
  }

  fail(error: unknown): void {
    if (this.release()) {
      this.#source?.close();
      this.#endResponse(error);
    }
  }

  /** Call when the write buffer has drained. */
  resume(): void {
    this.#source?.resume();
  }

  override close(): void {
    if (!this.isOver) {
      this.#source?.close();
    }
    super.close();
  }

  /** Sent with the first message, so that the method may set headers until then. */
  #writeHead(): void {
    const extraHeaders = this.#extraHeaders;
    if (extraHeaders !== undefined) {
      this.#extraHeaders = undefined;
      const headers = Object.fromEntries(this.metadata.headers ?? []);
      this.#writer.writeHead({ ...headers, ...extraHeaders, "content-type": this.#protocol.contentType });
    }
  }

  #endResponse(error: unknown): void {
    const reported = error === undefined ? undefined : this.#reportError(error, this.call, false);
    if (!this.#writer.isClosed) {
      this.#writeHead();
      this.#writer.end(this.#protocol.end(reported, this.metadata.trailers));
    }
    this.call.end(reported?.code);
  }
}
