import { constants } from "node:crypto";
import { createServer as createNetServer, type Server, type ServerOpts, type Socket } from "node:net";
import { createServer as createTlsServer } from "node:tls";
import type { Connection } from "./connection.ts";
import type { ListenerLimits } from "./limits.ts";
import { awaitAlpnProtocol, detectProtocol, type Protocol } from "./protocol-detection.ts";

/** PEM. With `clientCa`, clients are asked for a certificate, and may connect without one. */
export interface ListenerTls {
  readonly cert: Buffer | string;
  readonly key: Buffer | string;
  readonly clientCa?: Buffer | string | undefined;
}

/**
 * TLS 1.3, and of TLS 1.2 the suites with forward secrecy and authenticated encryption: the ones that RFC 9113 allows for HTTP/2
 * (section 9.2.2 and appendix A) and that RFC 9325 recommends.
 */
const CIPHERS = [
  "TLS_AES_128_GCM_SHA256",
  "TLS_AES_256_GCM_SHA384",
  "TLS_CHACHA20_POLY1305_SHA256",
  "ECDHE-ECDSA-AES128-GCM-SHA256",
  "ECDHE-RSA-AES128-GCM-SHA256",
  "ECDHE-ECDSA-AES256-GCM-SHA384",
  "ECDHE-RSA-AES256-GCM-SHA384",
  "ECDHE-ECDSA-CHACHA20-POLY1305",
  "ECDHE-RSA-CHACHA20-POLY1305",
].join(":");

interface TransportOptions {
  readonly limits: ListenerLimits;
  readonly tls: ListenerTls | undefined;
  /** Called for each accepted TCP connection. */
  readonly accept: (raw: Socket) => Connection;
  /** Called once the protocol of a connection is known. `socket` carries its plain bytes. */
  readonly dispatch: (connection: Connection, socket: Socket, protocol: Protocol) => void;
}

/** The server that listens: plain TCP, or TLS. */
export function createTransport(options: TransportOptions): Server {
  return options.tls === undefined ? createPlaintext(options) : createTls(options, options.tls);
}

function createPlaintext({ limits, accept, dispatch }: TransportOptions): Server {
  return createNetServer(tcpOptions(limits), (socket) => {
    const connection = accept(socket);
    detectProtocol(socket, (protocol) => dispatch(connection, socket, protocol));
  });
}

function createTls(
  { limits, accept, dispatch }: TransportOptions,
  { cert, key, clientCa }: ListenerTls,
): Server {
  const server = createTlsServer({
    ...tcpOptions(limits),
    cert,
    key,
    minVersion: "TLSv1.2",
    ciphers: CIPHERS,
    // HTTP/2 forbids renegotiation, which TLS 1.2 has (RFC 9113, section 9.2.1).
    secureOptions: constants.SSL_OP_NO_RENEGOTIATION,
    ALPNProtocols: ["h2", "http/1.1"],
    ...(clientCa !== undefined && { ca: clientCa, requestCert: true, rejectUnauthorized: false }),
  });
  // Node does not link the TCP socket with the TLS socket on top of it. Their four addresses and ports are the same.
  const handshaking = new Map<string, Connection>();
  server.on("connection", (raw: Socket) => {
    const addresses = addressesOf(raw);
    const connection = accept(raw);
    handshaking.set(addresses, connection);
    raw.once("close", () => {
      if (handshaking.get(addresses) !== connection) return;
      handshaking.delete(addresses);
      connection.report("debug", "the connection closed during the TLS handshake");
    });
  });
  server.on("tlsClientError", (error, socket) => {
    handshaking.get(addressesOf(socket))?.reportError(error);
    socket.destroy();
  });
  server.on("secureConnection", (socket) => {
    const addresses = addressesOf(socket);
    const connection = handshaking.get(addresses);
    if (connection === undefined) return socket.destroy();
    handshaking.delete(addresses);
    connection.secured(socket);
    awaitAlpnProtocol(socket, socket.alpnProtocol, (protocol) => dispatch(connection, socket, protocol));
  });
  return server;
}

function tcpOptions(limits: ListenerLimits): ServerOpts {
  return { noDelay: true, keepAlive: true, keepAliveInitialDelay: limits.tcpKeepAliveMs };
}

function addressesOf(socket: Socket): string {
  return `${socket.remoteAddress} ${socket.remotePort} ${socket.localAddress} ${socket.localPort}`;
}
