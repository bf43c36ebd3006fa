import type { ConnectError } from "@connectrpc/connect";
import type { Call } from "../call.ts";
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

interface StreamCallOptions {
  readonly protocol: StreamProtocol;
  readonly writer: StreamWriter;
  /** Sent with the headers that the method sets. */
  readonly extraHeaders: Readonly<Record<string, string>>;
  readonly reportError: (error: unknown) => ConnectError;
}

/** A server-streaming call on the fast path, from the head of its request to the end of its response. */
export class StreamCall extends FastPathCall {
  readonly #options: StreamCallOptions;
  #source: MessageSource | undefined;
  #hasHead = false;

  constructor(call: Call, options: StreamCallOptions) {
    super(call);
    this.#options = options;
  }

  get protocol(): StreamProtocol {
    return this.#options.protocol;
  }

  /** False while the write buffer is full. */
  get isReady(): boolean {
    return this.#options.writer.isReady;
  }

  /** Starts a source, unless the call is over. An error of `open` ends the call. */
  start(open: () => MessageSource): void {
    this.#attempt(() => {
      if (!this.isOver) {
        this.#source = this.call.run(open);
        this.#source.start();
      }
    });
  }

  /** Sends a message. `makeFrame` may throw, which ends the call. */
  write(makeFrame: () => Frame): void {
    this.#attempt(() => {
      const frame = makeFrame();
      this.#writeHead();
      this.#options.writer.write(frame);
    });
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

  #attempt(action: () => void): void {
    try {
      action();
    } catch (error) {
      this.fail(error);
    }
  }

  /** Sent with the first message, so that the method may set headers until then. */
  #writeHead(): void {
    if (!this.#hasHead) {
      this.#hasHead = true;
      const { writer, extraHeaders, protocol } = this.#options;
      const headers = Object.fromEntries(this.metadata.headers ?? []);
      writer.writeHead({ ...headers, ...extraHeaders, "content-type": protocol.contentType });
    }
  }

  #endResponse(error: unknown): void {
    const { writer, protocol, reportError } = this.#options;
    const reported = error === undefined ? undefined : reportError(error);
    if (!writer.isClosed) {
      this.#writeHead();
      writer.end(protocol.end(reported, this.metadata.trailers));
    }
    this.call.end(reported?.code);
  }
}
