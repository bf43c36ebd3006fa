import { createServer as createNodeHttp1Server, type Server as Http1Server } from "node:http";
import {
  createServer as createNodeHttp2Server,
  type Http2Server,
  type IncomingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from "node:http2";
import type { Socket } from "node:net";
import { connectionOf } from "./connection.ts";
import type { ListenerLimits } from "./limits.ts";

// Node's HTTP servers, which never listen: the listener accepts sockets and hands them over with "connection" events.

/** Handles an HTTP/2 stream without the cost of a request and a response object, and returns whether it did. */
export type TryHandleStream = (
  stream: ServerHttp2Stream,
  headers: IncomingHttpHeaders,
  rawHeaders: readonly string[],
) => boolean;

export function createHttp1Server(limits: ListenerLimits): Http1Server {
  const server = createNodeHttp1Server({
    headersTimeout: Math.min(limits.headersMs, limits.requestMs),
    requestTimeout: limits.requestMs,
    keepAliveTimeout: limits.idleMs,
    connectionsCheckingInterval: limits.connectionsCheckingIntervalMs,
    maxHeaderSize: limits.headerBytesMax,
    // The listener checks it itself: Node's own refusal has no body, and misses a second field.
    requireHostHeader: false,
  });
  // Node drops fields beyond the count. One more than the limit shows that there were too many.
  server.maxHeadersCount = limits.headerPairsMax + 1;
  // Node starts the checks of its timeouts on this event only.
  server.emit("listening");
  return server;
}

export function createHttp2Server(limits: ListenerLimits): Http2Server {
  return createNodeHttp2Server({
    maxHeaderListPairs: limits.headerPairsMax,
    maxSessionMemory: limits.sessionMemoryMbMax,
    maxSettings: limits.settingsMax,
    maxOutstandingPings: limits.outstandingPingsMax,
    maxSessionInvalidFrames: limits.invalidFramesMax,
    maxSessionRejectedStreams: limits.rejectedStreamsMax,
    streamResetBurst: limits.streamResetBurst,
    streamResetRate: limits.streamResetRate,
    settings: {
      maxConcurrentStreams: limits.streamsPerConnectionMax,
      maxHeaderListSize: limits.headerBytesMax,
    },
  });
}

/** Offers each stream to `tryHandleStream` first. Node makes requests and responses of the streams that it declines. */
export function offerStreams(http2: Http2Server, tryHandleStream: TryHandleStream): void {
  // Node's own listener, which emits "request" for a stream.
  const [emitRequest] = http2.listeners("stream");
  if (emitRequest === undefined) throw new Error('Node\'s HTTP/2 server has no listener for "stream"');
  http2.removeAllListeners("stream");
  http2.on("stream", (stream: ServerHttp2Stream, headers, flags, rawHeaders) => {
    const connection = stream.session && connectionOf(stream.session);
    // A session that exceeds the rate of resets is destroyed before the events of its last streams arrive.
    if (connection === undefined) return void stream.on("error", ignoreError).destroy();
    if (!tryHandleStream(stream, headers, rawHeaders)) {
      Reflect.apply(emitRequest, http2, [stream, headers, flags, rawHeaders]);
    }
    connection.trackStream(stream, headers[":path"]);
  });
}

/** Starts an HTTP/2 session on a socket. `onSession` runs before the session reads its first frame. */
export function startSession(
  http2: Http2Server,
  socket: Socket,
  onSession: (session: ServerHttp2Session) => void,
): void {
  joinBufferedChunks(socket);
  http2.once("session", onSession);
  http2.emit("connection", socket);
  http2.off("session", onSession);
}

/**
 * Joins the buffered chunks of a socket into one. Node passes them to a new session chunk by chunk, and throws an error that nothing
 * can catch when any chunk but the last ends the session.
 */
function joinBufferedChunks(socket: Socket): void {
  const chunks: Buffer[] = [];
  for (let chunk: Buffer | null = socket.read(); chunk !== null; chunk = socket.read()) chunks.push(chunk);
  if (chunks.length > 0) socket.unshift(Buffer.concat(chunks));
}

function ignoreError(): void {}
