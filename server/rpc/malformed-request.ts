import { base64Decode } from "@bufbuild/protobuf/wire";
import { Code, ConnectError, type HandlerContext } from "@connectrpc/connect";

// Connect reports some malformed requests as INTERNAL. They are mapped to INVALID_ARGUMENT here.

/** Prefix of Connect's message where a binary message does not parse. */
const UNPARSABLE = "parse binary: ";

/** Whether it is Connect's error for a binary message that does not parse. */
export function isMalformedRequest(error: unknown): error is ConnectError {
  return (
    error instanceof ConnectError && error.code === Code.Internal && error.rawMessage.startsWith(UNPARSABLE)
  );
}

/**
 * Makes a unary call whose message does not parse end with INVALID_ARGUMENT. Interceptors do not see such a call, but
 * Connect aborts its signal with the error object that it then sends.
 */
export function reportMalformedAsInvalidArgument({ signal }: HandlerContext): void {
  const onAbort = (): void => {
    if (isMalformedRequest(signal.reason)) {
      Object.assign(signal.reason, { code: Code.InvalidArgument });
    }
  };
  signal.addEventListener("abort", onAbort, { once: true });
}

/** Throws where the message of a GET claims to be base64 and is not. */
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
