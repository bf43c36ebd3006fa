import { untilDeadline } from "../deadline.ts";
import { withCheckedFlags } from "./envelope-flags.ts";
import { decodeBase64, isGrpcWebText } from "./grpc-web-text.ts";

/** Content types whose bodies consist of envelopes. */
const ENVELOPED = /^application\/(grpc|connect\+)/;

/**
 * The body of a request as Connect reads it. Fails where it is not complete at the deadline, in `performance.now()`, or where it
 * is malformed in a way that Connect does not check.
 */
export function checkedBody(
  received: AsyncIterable<Uint8Array>,
  contentType = "",
  deadline: number | undefined,
): AsyncIterable<Uint8Array> {
  const timed = deadline === undefined ? received : untilDeadline(received, deadline);
  const decoded = isGrpcWebText(contentType) ? decodeBase64(timed) : timed;
  return ENVELOPED.test(contentType) ? withCheckedFlags(decoded) : decoded;
}
