/** What gRPC leaves as it is in a status message: printable ASCII, except for the sign that begins an escape. */
const NOT_PLAIN = /[^\x20-\x24\x26-\x7e]+/g;

/**
 * A status message as the gRPC specification lays it out: UTF-8, percent-encoded where it must be
 * (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, Status-Message). Connect escapes
 * punctuation too, which grpc-js does not undo, so its callers would read "%3A".
 */
export function encodeGrpcMessage(message: string): string {
  return message
    .toWellFormed()
    .replace(NOT_PLAIN, (part) =>
      [...Buffer.from(part)].map((byte) => `%${byte.toString(16).toUpperCase().padStart(2, "0")}`).join(""),
    );
}

/** The same trailers, with the message as gRPC lays it out where there is one. */
export function withGrpcMessage(trailers: Headers): Headers {
  const message = trailers.get("grpc-message");
  if (message !== null) {
    trailers.set("grpc-message", encodeGrpcMessage(decodeURIComponent(message)));
  }
  return trailers;
}
