import { constants, type ServerHttp2Stream } from "node:http2";

/** Between two looks whether the trailers are out, in milliseconds. They wait only for a peer that does not read. */
const LOOK_INTERVAL_MS = 10;

/**
 * Where a call was answered before its request was read, the client may stop sending (RFC 9113,
 * section 8.1). Node leaves such a stream open for as long as the client likes, and with bytes of the request unread its
 * connection too, also when the client is gone.
 */
export function rejectRequestBodyAfterTrailers(stream: ServerHttp2Stream): void {
  const stop = (): void => {
    const { localClose, remoteClose } = stream.state;
    if (stream.closed || remoteClose === 1) {
      return;
    }
    // A reset overtakes trailers that are not out, and the client never learns how its call ended.
    if (localClose !== 1) {
      setTimeout(stop, LOOK_INTERVAL_MS).unref();
      return;
    }
    stream.close(constants.NGHTTP2_NO_ERROR);
    stream.destroy();
  };
  stream.once("wantTrailers", () => setImmediate(stop));
}
