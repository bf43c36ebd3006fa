import type { IncomingHttpHeaders, ServerHttp2Stream } from "node:http2";
import { unmapped } from "./client-network.ts";
import type { ListenerRequest } from "./listener.ts";
import type { TrustedProxies } from "./trusted-proxies.ts";

/** Who calls, as far as the connection tells. */
export interface Caller {
  readonly address: string;
  /** The same object for every call of one connection; of its own for each call that a proxy passes on. */
  readonly connection: object;
}

/** The peers of open connections: looked up once, and not for every call. */
const peers = new WeakMap<object, Caller>();

export function callerOfStream(stream: ServerHttp2Stream): Caller {
  const { session } = stream;
  return session === undefined
    ? peerOf(stream, undefined)
    : (peers.get(session) ?? peerOf(session, session.socket));
}

export function callerOf(request: ListenerRequest): Caller {
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
 * The client for whom a trusted proxy calls, or else the peer itself. A proxy carries many clients on one connection, so
 * they share no limit that it has, and what it has proved of itself, by a certificate, speaks for none of them.
 */
export function clientBehind(peer: Caller, headers: IncomingHttpHeaders, proxies: TrustedProxies): Caller {
  const forwardedFor = headers["x-forwarded-for"];
  return forwardedFor !== undefined && proxies.includes(peer.address)
    ? { address: proxies.clientOf(peer.address, String(forwardedFor)), connection: {} }
    : peer;
}
