import { Worker } from "node:worker_threads";
import { RecordHeaders } from "../records/headers.ts";
import { type Decoded, decodeMessage, type Subject } from "./decode.ts";
import type { IncomingMessage } from "./message.ts";

/**
 * Larger messages are decoded in a worker thread: JSON of a megabyte can take 65 ms to parse, in which the event loop
 * would serve no call. Up to this size it takes less than 5 ms.
 */
const INLINE_BYTES_MAX = 64 * 1024;
/** A worker that needs longer is ended: the message cannot be decoded. */
const DECODE_MS_MAX = 10_000;
const HEAP_MEGABYTES_MAX = 512;

/** The result of the decoder. */
type Result = Decoded | { readonly kind: "dead"; readonly reason: "too-large"; readonly detail: string };

/** A message for the worker. Its bytes are copied. */
export interface DecodeRequest {
  readonly message: Omit<IncomingMessage, "headers">;
  readonly headers: { readonly count: number; readonly bytes: Uint8Array };
  readonly subject: Subject;
}

export interface DecodeResponse {
  readonly decoded?: Decoded;
  /** An error that the decoder threw. */
  readonly error?: string;
}

/** Decodes messages of any size without delaying the event loop. */
export class LargeMessageDecoder {
  #worker: Worker | undefined;
  #last: Promise<unknown> = Promise.resolve();

  /** As `decodeMessage`, synchronous for a message that is not large. Rejects or throws if the decoder itself fails. */
  decode(message: IncomingMessage, subject: Subject): Result | Promise<Result> {
    const bytes = (message.value?.length ?? 0) + message.headers.bytes.length;
    if (bytes <= INLINE_BYTES_MAX) {
      return decodeMessage(message, subject);
    }
    const decoded = this.#last.then(() => this.#decodeInWorker(message, subject));
    this.#last = decoded.catch(() => {});
    return decoded;
  }

  async close(): Promise<void> {
    await this.#worker?.terminate();
    this.#worker = undefined;
  }

  async #decodeInWorker(message: IncomingMessage, subject: Subject): Promise<Result> {
    this.#worker ??= startWorker();
    const worker = this.#worker;
    const request = requestOf(message, subject);
    const { promise, resolve } = Promise.withResolvers<{ decoded: Result } | { error: Error }>();
    /** More time or memory than the bounds. The next message gets a new worker. */
    const giveUp = (detail: string) => {
      this.#worker = undefined;
      void worker.terminate();
      resolve({ decoded: { kind: "dead", reason: "too-large", detail: `decoding takes ${detail}` } });
    };
    const timer = setTimeout(() => giveUp(`longer than ${DECODE_MS_MAX} ms`), DECODE_MS_MAX);
    const onExit = () => giveUp(`more than ${HEAP_MEGABYTES_MAX} MB`);
    const onError = (error: Error) => giveUp(error.message);
    const onMessage = ({ decoded, error }: DecodeResponse) =>
      decoded === undefined ? resolve({ error: new Error(error) }) : resolve({ decoded });
    worker.once("message", onMessage).once("error", onError).once("exit", onExit);
    worker.postMessage(request);
    try {
      const result = await promise;
      if ("error" in result) {
        throw result.error;
      }
      return result.decoded;
    } finally {
      clearTimeout(timer);
      worker.off("message", onMessage).off("error", onError).off("exit", onExit);
    }
  }
}

function startWorker(): Worker {
  const worker = new Worker(new URL("./decode-worker.ts", import.meta.url), {
    resourceLimits: { maxOldGenerationSizeMb: HEAP_MEGABYTES_MAX },
  });
  worker.unref();
  return worker;
}

function requestOf(message: IncomingMessage, subject: Subject): DecodeRequest {
  const { headers, value, ...rest } = message;
  // A message's buffers are views of a whole response, which would be copied with them.
  const copy = (bytes: Buffer): Uint8Array => new Uint8Array(bytes);
  return {
    message: { ...rest, key: null, value: value && Buffer.from(copy(value).buffer) },
    headers: { count: headers.count, bytes: copy(headers.bytes) },
    subject,
  };
}

/** Restores a message in the worker, where buffers arrive as plain byte arrays. */
export function messageOf({ message, headers }: DecodeRequest): IncomingMessage {
  const toBuffer = (bytes: Uint8Array | null): Buffer | null =>
    bytes === null ? null : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return {
    ...message,
    key: toBuffer(message.key),
    value: toBuffer(message.value),
    headers: new RecordHeaders(headers.count, toBuffer(headers.bytes) ?? Buffer.alloc(0)),
  };
}
