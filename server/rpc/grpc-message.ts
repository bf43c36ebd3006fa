/** What must be escaped in a gRPC status message: everything but printable ASCII, and the percent sign. */
const NEEDS_ESCAPE = /[^\x20-\x24\x26-\x7e]+/g;

/**
 * Encodes a status message as Status-Message of https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md: UTF-8,
 * percent-encoded only where necessary. Connect also escapes punctuation, which grpc-js does not decode: its callers
 * would read "%3A".
 */
export function encodeGrpcMessage(message: string): string {
  return message
    .toWellFormed()
    .replace(NEEDS_ESCAPE, (part) =>
      [...Buffer.from(part)].map((byte) => `%${byte.toString(16).toUpperCase().padStart(2, "0")}`).join(""),
    );
}

/** Re-encodes `grpc-message` in place, where there is one. */
export function withGrpcMessage(trailers: Headers): Headers {
  const message = trailers.get("grpc-message");
  if (message !== null) {
    trailers.set("grpc-message", encodeGrpcMessage(decodeURIComponent(message)));
  }
  return trailers;
}
