import type { IncomingHttpHeaders, ServerHttp2Stream } from "node:http2";
import { unmapped } from "./client-network.ts";
import type { HttpRequest } from "./message.ts";
import type { TrustedProxies } from "./trusted-proxies.ts";

/** The caller as the connection identifies it. */
export interface Caller {
  readonly address: string;
  /** The same object for every call of one connection. Each call forwarded by a proxy has its own object. */
  readonly connection: object;
}

/** By connection, so that the address is looked up once and not for every call. */
const peers = new WeakMap<object, Caller>();

export function callerOfStream(stream: ServerHttp2Stream): Caller {
  const { session } = stream;
  return session === undefined
    ? peerOf(stream, undefined)
    : (peers.get(session) ?? peerOf(session, session.socket));
}

export function callerOf(request: HttpRequest): Caller {
  if ("stream" in request) {
    return callerOfStream(request.stream);
  }
  const { socket } = request;
  return peers.get(socket) ?? peerOf(socket, socket);
}

function peerOf(
  connection: object,
  socket: { readonly remoteAddress?: string | undefined } | undefined,
): Caller {
  const peer = { address: unmapped(socket?.remoteAddress ?? "unknown"), connection };
  peers.set(connection, peer);
  return peer;
}

/**
 * The client for which a trusted proxy calls; otherwise the peer itself. A proxy carries many clients on one connection.
 * They share none of its per-connection limits, and the proxy's client certificate does not authenticate them.
 */
export function clientBehind(peer: Caller, headers: IncomingHttpHeaders, proxies: TrustedProxies): Caller {
  const forwardedFor = headers["x-forwarded-for"];
  return forwardedFor !== undefined && proxies.includes(peer.address)
    ? { address: proxies.clientOf(peer.address, String(forwardedFor)), connection: {} }
    : peer;
}
