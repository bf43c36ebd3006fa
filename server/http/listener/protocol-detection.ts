import type { Socket } from "node:net";

export type Protocol = "HTTP/1.1" | "HTTP/2";

/** The connection preface of HTTP/2 (RFC 9113, section 3.4). No HTTP/1.1 request starts with these 24 bytes. */
export const HTTP2_PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "latin1");

/**
 * Reads a plaintext connection until its first bytes identify the protocol, pushes them back and calls `onProtocol`
 * once. One byte that differs from the HTTP/2 preface decides for HTTP/1.1; all 24 bytes decide for HTTP/2. The bytes
 * may arrive one at a time. There is no timeout here: the caller destroys a socket that stays undecided.
 */
export function detectProtocol(socket: Socket, onProtocol: (protocol: Protocol) => void): void {
  const chunks: Buffer[] = [];
  let matched = 0;

  function decide(protocol: Protocol): void {
    socket.off("readable", read);
    socket.unshift(Buffer.concat(chunks));
    onProtocol(protocol);
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
 * Calls `onProtocol` for a connection whose TLS handshake is complete. ALPN selects the protocol. Without ALPN it is
 * HTTP/1.1, since HTTP/2 over TLS requires ALPN (RFC 9113, section 3.2). HTTP/1.1 is reported with the first byte, so
 * that a silent connection stays undecided here as it does in plaintext.
 */
export function awaitAlpnProtocol(
  socket: Socket,
  alpn: string | false | null,
  onProtocol: (protocol: Protocol) => void,
): void {
  if (alpn === "h2") {
    onProtocol("HTTP/2");
    return;
  }

  function read(): void {
    const chunk: Buffer | null = socket.read();
    if (chunk === null) return;
    socket.off("readable", read);
    socket.unshift(chunk);
    onProtocol("HTTP/1.1");
  }

  socket.on("readable", read);
}
