import type { ServerHttp2Stream } from "node:http2";
import type { ListenerRequest } from "./listener.ts";

/** Who calls, as far as the connection tells. */
export interface Caller {
  readonly address: string;
  /** The same object for every call of one connection. */
  readonly connection: object;
}

export function callerOfStream(stream: ServerHttp2Stream): Caller {
  return { address: stream.session?.socket.remoteAddress ?? "unknown", connection: stream.session ?? stream };
}

export function callerOf(request: ListenerRequest): Caller {
  return "stream" in request
    ? callerOfStream(request.stream)
    : { address: request.socket.remoteAddress ?? "unknown", connection: request.socket };
}
