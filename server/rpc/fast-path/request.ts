import type { IncomingHttpHeaders } from "node:http";
import type { Readable } from "node:stream";
import type { ParsedTimeout } from "../deadline.ts";

/** A host name or an address, and a port. Any other spelling falls back to Connect. */
const PLAIN_AUTHORITY = /^[\w.-]+(:\d{1,5})?$|^\[[0-9a-fA-F:.]+\](:\d{1,5})?$/;

/** The names and formats of a protocol's request headers. */
export interface RequestLayout {
  /** The header with the timeout. */
  readonly timeoutHeader: string;
  /** The header that names the compression of the request. */
  readonly encodingHeader: string;
  readonly needsHttp2: boolean;
  parseTimeout(value: string): ParsedTimeout;
}

/** The request line of HTTP/1.1, or its equivalent in HTTP/2. */
export interface RequestLine {
  readonly httpMethod: string | undefined;
  readonly authority: string | undefined;
  readonly isHttp2: boolean;
}

/** The timeout of a request that the fast path can handle; `undefined` where the request must fall back to Connect. */
export function readPlainHead(
  layout: RequestLayout,
  { httpMethod, authority, isHttp2 }: RequestLine,
  headers: IncomingHttpHeaders,
): { readonly timeoutMs: number | undefined } | undefined {
  const isPlain =
    httpMethod === "POST" &&
    headers[layout.encodingHeader] === undefined &&
    headers.expect === undefined &&
    (headers["connect-protocol-version"] ?? "1") === "1" &&
    (isHttp2 || !layout.needsHttp2) &&
    authority !== undefined &&
    PLAIN_AUTHORITY.test(authority);
  if (!isPlain) {
    return undefined;
  }
  const timeout = headers[layout.timeoutHeader];
  if (timeout === undefined) {
    return { timeoutMs: undefined };
  }
  const { timeoutMs, error } = layout.parseTimeout(String(timeout));
  return error === undefined && timeoutMs !== undefined ? { timeoutMs } : undefined;
}

type Body = Readable & { readonly aborted?: boolean };

/** `body` is `undefined` where it is too large. `replay` reads the request from its start. */
export type OnBody = (body: Buffer | undefined, replay: () => AsyncIterable<Uint8Array>) => void;

/**
 * Reads a body into one buffer. Stops at `bytesMax`: `replay` then yields what was read and the rest of the stream. Does
 * not call back for a body that is cut off. `isLongLived` removes all listeners at the end, for a stream that stays open
 * long after its request, as a watch does.
 */
export function readBody(source: Body, bytesMax: number, onBody: OnBody, isLongLived = false): void {
  const chunks: Buffer[] = [];
  let bytes = 0;
  const removeListeners = (): void => {
    source.off("data", onData);
    source.off("end", onEnd);
  };
  const onData = (chunk: Buffer): void => {
    chunks.push(chunk);
    bytes += chunk.length;
    if (bytes > bytesMax) {
      removeListeners();
      source.pause();
      onBody(undefined, () => replay(chunks, source));
    }
  };
  const onEnd = (): void => {
    if (isLongLived) {
      removeListeners();
    }
    // An HTTP/2 stream that the client reset also ends.
    if (source.aborted === true) {
      return;
    }
    const [only] = chunks;
    const body = chunks.length === 1 && only !== undefined ? only : Buffer.concat(chunks);
    onBody(body, () => replay(chunks));
  };
  source.on("data", onData);
  source.on("end", onEnd);
}

async function* replay(chunks: readonly Buffer[], rest?: Readable): AsyncGenerator<Uint8Array> {
  try {
    yield* chunks;
    if (rest !== undefined) {
      yield* rest.iterator({ destroyOnReturn: false });
    }
  } finally {
    // Discards what was not read: a stream with unread data does not close.
    rest?.resume();
  }
}
