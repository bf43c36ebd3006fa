import { constants, type ServerHttp2Stream } from "node:http2";

/** Milliseconds between checks whether the trailers were sent. They wait only for a peer that does not read. */
const CHECK_INTERVAL_MS = 10;

/**
 * Resets a stream with NO_ERROR once its response is complete, if its request is not: the client may stop sending
 * (RFC 9113, section 8.1). Otherwise Node keeps the stream open for as long as the client likes, and with unread bytes of the
 * request it keeps the connection as well, even after the client has disconnected.
 */
export function rejectRequestBodyAfterTrailers(stream: ServerHttp2Stream): void {
  const stop = (): void => {
    const { localClose, remoteClose } = stream.state;
    if (stream.closed || remoteClose === 1) {
      return;
    }
    // A reset discards trailers that are not sent yet, and the client would not learn how its call ended.
    if (localClose !== 1) {
      setTimeout(stop, CHECK_INTERVAL_MS).unref();
      return;
    }
    stream.close(constants.NGHTTP2_NO_ERROR);
    stream.destroy();
  };
  stream.once("wantTrailers", () => setImmediate(stop));
}
