import { base64Decode } from "@bufbuild/protobuf/wire";
import { Code, ConnectError, type HandlerContext } from "@connectrpc/connect";
import { parseTimeout } from "@connectrpc/connect/protocol-grpc";

// Connect calls some requests that nobody could read a fault of the server. Here they are the caller's.

/** How Connect begins to say that it cannot parse a message. */
const UNPARSABLE = "parse binary: ";

/** Longer than any deadline may be, and short enough for a timer. */
const REFUSED_TIMEOUT_MS = 99_999_999;

/** Whether it is Connect's error for a message that cannot be parsed. */
export function isMalformedRequest(error: unknown): error is ConnectError {
  return (
    error instanceof ConnectError && error.code === Code.Internal && error.rawMessage.startsWith(UNPARSABLE)
  );
}

/**
 * Lets a unary call with a message that cannot be parsed end in INVALID_ARGUMENT. No interceptor sees such a call; but
 * Connect aborts it with the very error that it then sends.
 */
export function reportMalformedAsInvalidArgument({ signal }: HandlerContext): void {
  const onAbort = (): void => {
    if (isMalformedRequest(signal.reason)) {
      Object.assign(signal.reason, { code: Code.InvalidArgument });
    }
  };
  signal.addEventListener("abort", onAbort, { once: true });
}

/** Throws where the message of a GET is not the base64 that it says it is. */
export function requireBase64({ requestMethod, url }: HandlerContext): void {
  if (requestMethod !== "GET") {
    return;
  }
  const query = new URL(url).searchParams;
  if (query.get("base64") === "1") {
    try {
      base64Decode(query.get("message") ?? "");
    } catch {
      throw new ConnectError("The message is not valid base64", Code.InvalidArgument);
    }
  }
}

/** Shortens a deadline that is refused anyway: Connect sets a timer for it first, which must not overflow. */
export function boundTimeouts(header: Headers): void {
  const { timeoutMs = 0 } = parseTimeout(header.get("grpc-timeout"), REFUSED_TIMEOUT_MS);
  if (timeoutMs > REFUSED_TIMEOUT_MS) {
    header.set("grpc-timeout", `${REFUSED_TIMEOUT_MS}m`);
  }
  if (Number(header.get("connect-timeout-ms")) > REFUSED_TIMEOUT_MS) {
    header.set("connect-timeout-ms", `${REFUSED_TIMEOUT_MS}`);
  }
}
