import { constants, type ServerHttp2Stream } from "node:http2";

/**
 * Where a call was answered before its request was read, the client may stop sending (RFC 9113,
 * section 8.1). Node leaves such a stream open for as long as the client likes, and with bytes of the request unread its
 * connection too, also when the client is gone.
 */
export function stopUploadAfterTrailers(stream: ServerHttp2Stream): void {
  // The trailers go out in this turn of the loop; a reset in the same turn would overtake them.
  stream.once("wantTrailers", () => {
    setImmediate(() => {
      if (!stream.closed && stream.state.remoteClose !== 1) {
        stream.close(constants.NGHTTP2_NO_ERROR);
        stream.destroy();
      }
    });
  });
}
