import { createContextKey } from "@connectrpc/connect";
import type { ListenerRequest } from "./listener.ts";

/** Who calls, as far as the connection tells. */
export interface Caller {
  readonly address: string;
  /** The same object for every call of one connection. */
  readonly connection: object;
}

/** Set on every call by the connect handler. */
export const callerKey = createContextKey<Caller>(
  { address: "unknown", connection: {} },
  { description: "caller" },
);

export function callerOf(request: ListenerRequest): Caller {
  const connection = "stream" in request ? (request.stream.session ?? request.socket) : request.socket;
  return { address: request.socket.remoteAddress ?? "unknown", connection };
}
