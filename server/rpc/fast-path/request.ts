import type { IncomingHttpHeaders } from "node:http";
import type { Readable } from "node:stream";
import type { ConnectError } from "@connectrpc/connect";

/** Names, addresses and ports as every client writes them. Anything else is for the long way to judge. */
const PLAIN_AUTHORITY = /^[\w.-]+(:\d{1,5})?$|^\[[0-9a-fA-F:.]+\](:\d{1,5})?$/;

/** Where a protocol has what a lane must know before it reads a request. */
export interface RequestLayout {
  /** The header with the caller's deadline. */
  readonly timeoutHeader: string;
  /** The header that names a compression of the request. */
  readonly encodingHeader: string;
  readonly needsHttp2: boolean;
  parseTimeout(value: string): { timeoutMs?: number | undefined; error?: ConnectError | undefined };
}

/** What a request says besides its headers. */
export interface RequestLine {
  readonly httpMethod: string | undefined;
  readonly authority: string | undefined;
  readonly isHttp2: boolean;
}

/** The deadline of a request that a lane may take; `undefined` where the request is for the long way. */
export function readPlainHead(
  layout: RequestLayout,
  { httpMethod, authority, isHttp2 }: RequestLine,
  headers: IncomingHttpHeaders,
): { readonly timeoutMs: number | undefined } | undefined {
  const isPlain =
    httpMethod === "POST" &&
    headers[layout.encodingHeader] === undefined &&
    headers.expect === undefined &&
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

/** A request as node reads it. */
type Body = Readable & { readonly aborted?: boolean };

/** What comes of a body: all of it, or `undefined` where it is too long; and a way to read it again. */
export type Collected = (body: Buffer | undefined, again: () => AsyncIterable<Uint8Array>) => void;

/**
 * Reads a body up to the limit and hands it over whole, with a way to read it again. A larger one
 * is handed over as what was read and the rest of the stream, for the long way to refuse. One that breaks off is
 * not handed over. `livesOn` says that the source stays for long after its end, as a watch's does: then nothing of this is left on it.
 */
export function collect(source: Body, bytesMax: number, done: Collected, livesOn = false): void {
  const chunks: Buffer[] = [];
  let bytes = 0;
  const leave = (): void => {
    source.off("data", onData);
    source.off("end", onEnd);
  };
  const onData = (chunk: Buffer): void => {
    chunks.push(chunk);
    bytes += chunk.length;
    if (bytes > bytesMax) {
      leave();
      source.pause();
      done(undefined, () => replay(chunks, source));
    }
  };
  const onEnd = (): void => {
    if (livesOn) {
      leave();
    }
    // What a client of HTTP/2 has reset ends, too.
    if (source.aborted === true) {
      return;
    }
    const [only] = chunks;
    const body = chunks.length === 1 && only !== undefined ? only : Buffer.concat(chunks);
    done(body, () => replay(chunks));
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
    // Where nobody reads on, what still comes is thrown away: a stream with unread data does not close.
    rest?.resume();
  }
}
