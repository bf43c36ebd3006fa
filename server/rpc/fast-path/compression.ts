import { compressionNegotiate } from "@connectrpc/connect/protocol";
import { compressionBrotli, compressionGzip } from "@connectrpc/connect-node";
import type { EncodedResponse } from "./unary-protocols.ts";

/** Below this many bytes compression costs more than it saves; Connect's own bound. */
const COMPRESS_BYTES_MIN = 1_024;

/** Whether an answer of the Connect protocol is long, and its client takes it compressed. */
export function isWorthCompressing(answer: EncodedResponse, acceptEncoding: string): boolean {
  return (
    answer.isWhole &&
    answer.body !== undefined &&
    Buffer.byteLength(answer.body) >= COMPRESS_BYTES_MIN &&
    negotiated(acceptEncoding) !== null
  );
}

/** The answer in what its client takes. */
export async function compressed(answer: EncodedResponse, acceptEncoding: string): Promise<EncodedResponse> {
  const compression = negotiated(acceptEncoding);
  if (compression === null || answer.body === undefined) {
    return answer;
  }
  const body = await compression.compress(Buffer.from(answer.body));
  return { ...answer, headers: [...answer.headers, "content-encoding", compression.name], body };
}

function negotiated(acceptEncoding: string | null) {
  return compressionNegotiate([compressionGzip, compressionBrotli], null, acceptEncoding, "accept-encoding")
    .response;
}
