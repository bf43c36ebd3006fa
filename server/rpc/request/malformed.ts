import { Code, ConnectError, type HandlerContext } from "@connectrpc/connect";
import { checkGetQuery } from "./get-query.ts";

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

/** The only version of the Connect protocol. */
const PROTOCOL_VERSION = "1";

/** Throws INVALID_ARGUMENT where a request of the Connect protocol names another version, or its query is malformed. */
export function checkConnectRequest({
  protocolName,
  requestMethod,
  requestHeader,
  url,
}: HandlerContext): void {
  if (protocolName !== "connect") {
    return;
  }
  const version = requestHeader.get("connect-protocol-version");
  if (version !== null && version !== PROTOCOL_VERSION) {
    throw new ConnectError(
      `connect-protocol-version is ${JSON.stringify(version)}; the supported version is "${PROTOCOL_VERSION}"`,
      Code.InvalidArgument,
    );
  }
  if (requestMethod === "GET") {
    checkGetQuery(url);
  }
}
