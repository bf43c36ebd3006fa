import type { Socket } from "node:net";

/** The two protocols that the port speaks. */
export type Protocol = "HTTP/1.1" | "HTTP/2";

/** What every HTTP/2 client sends first (RFC 9113, section 3.4): 24 bytes that no HTTP/1.1 request starts with. */
export const HTTP2_PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "latin1");

/**
 * Reads a plaintext connection's first bytes until they say which protocol it is, puts them back and
 * calls `decided` once. One byte that differs from the HTTP/2 preface is enough for HTTP/1.1, all 24 are
 * needed for HTTP/2, and they may arrive one at a time. It has no time-out: the caller destroys a socket
 * that stays undecided.
 */
export function sniffProtocol(socket: Socket, decided: (protocol: Protocol) => void): void {
  const chunks: Buffer[] = [];
  let matched = 0;

  function decide(protocol: Protocol): void {
    socket.off("readable", read);
    socket.unshift(Buffer.concat(chunks));
    decided(protocol);
  }

  function read(): void {
    for (;;) {
      const chunk: Buffer | null = socket.read();
      if (chunk === null) return;
      chunks.push(chunk);
      const count = Math.min(chunk.length, HTTP2_PREFACE.length - matched);
      const differs = HTTP2_PREFACE.compare(chunk, 0, count, matched, matched + count) !== 0;
      matched += count;
      if (differs || matched === HTTP2_PREFACE.length) {
        decide(differs ? "HTTP/1.1" : "HTTP/2");
        return;
      }
    }
  }

  socket.on("readable", read);
}

/**
 * Calls `decided` for a connection whose TLS handshake is done. ALPN names the protocol; without ALPN it is
 * HTTP/1.1, as RFC 9113 forbids HTTP/2 there. HTTP/1.1 is decided with the first byte, so that a silent
 * connection is undecided here as it is in plaintext.
 */
export function awaitNegotiated(
  socket: Socket,
  alpn: string | false | null,
  decided: (protocol: Protocol) => void,
): void {
  if (alpn === "h2") {
    decided("HTTP/2");
    return;
  }

  function read(): void {
    const chunk: Buffer | null = socket.read();
    if (chunk === null) return;
    socket.off("readable", read);
    socket.unshift(chunk);
    decided("HTTP/1.1");
  }

  socket.on("readable", read);
}
