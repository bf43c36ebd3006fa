import { compressionNegotiate } from "@connectrpc/connect/protocol";
import { COMPRESSIONS } from "../request/compression.ts";
import type { EncodedResponse } from "./unary-protocols.ts";

/** Below this size compression costs more than it saves. Same as Connect's default. */
const COMPRESS_BYTES_MIN = 1_024;

/** Whether this is a large response of the Connect protocol, and its client accepts a compression. */
export function isWorthCompressing(response: EncodedResponse, acceptEncoding: string): boolean {
  return (
    response.isUnframed &&
    response.body !== undefined &&
    Buffer.byteLength(response.body) >= COMPRESS_BYTES_MIN &&
    negotiated(acceptEncoding) !== null
  );
}

/** The response in a compression that its client accepts. */
export async function compressed(
  response: EncodedResponse,
  acceptEncoding: string,
): Promise<EncodedResponse> {
  const compression = negotiated(acceptEncoding);
  if (compression === null || response.body === undefined) {
    return response;
  }
  const body = await compression.compress(Buffer.from(response.body));
  return { ...response, headers: [...response.headers, "content-encoding", compression.name], body };
}

function negotiated(acceptEncoding: string | null) {
  return compressionNegotiate([...COMPRESSIONS], null, acceptEncoding, "accept-encoding").response;
}
