import {
  Code,
  ConnectError,
  type ConnectRouter,
  createConnectRouter,
  createContextValues,
  type Interceptor,
} from "@connectrpc/connect";
import type { UniversalServerResponse } from "@connectrpc/connect/protocol";
import { universalRequestFromNodeRequest, universalResponseToNodeResponse } from "@connectrpc/connect-node";
import { callerOf } from "../http/caller.ts";
import type { HttpRequest, HttpResponse } from "../http/message.ts";
import { rejectRequestBodyAfterTrailers } from "../http/reject-request-body.ts";
import { type Log, throttledLog } from "../ops/throttled-log.ts";
import { isGet, withCacheHeaders } from "./cacheable-get.ts";
import { type Call, type CallPipeline, callIn, callKey } from "./call.ts";
import { applyTimeout, untilAborted } from "./deadline.ts";
import type { JsonOptions } from "./fast-path/methods.ts";
import { withGrpcMessage } from "./grpc-message.ts";
import { explainRefusal } from "./refusals.ts";
import { checkedBody } from "./request/body.ts";
import { COMPRESSIONS } from "./request/compression.ts";
import { isGrpcWebText, runAsText } from "./request/grpc-web-text.ts";
import { withJsonReaders } from "./request/json-routes.ts";
import { checkConnectRequest, reportMalformedAsInvalidArgument } from "./request/malformed.ts";

/** Largest request message after decompression: 1,000 IDs of 128 bytes are 128 KiB, 100 lines far less. */
export const REQUEST_BYTES_MAX = 1_048_576;

/** Log lines a second about undeliverable responses. */
const UNDELIVERED_LOGGED_MAX = 10;

interface ConnectHandlerOptions {
  readonly routes: (router: ConnectRouter) => void;
  readonly interceptors: Interceptor[];
  readonly pipeline: CallPipeline;
  readonly log: Log;
  /** By default `REQUEST_BYTES_MAX`. */
  readonly requestBytesMax?: number;
  readonly json?: JsonOptions;
  /** Called with the status of each response to a request that did not become a call. */
  readonly onNonRpcResponse?: ((status: number) => void) | undefined;
}

/** A call that the fast path started, with the body of its request. */
export interface StartedCall {
  readonly call: Call;
  readonly body: AsyncIterable<Uint8Array>;
}

/** Handles a request whose path is a method. Returns false, and does nothing, where it is not. */
export type ConnectHandler = (
  request: HttpRequest,
  response: HttpResponse,
  path: string,
  started?: StartedCall,
) => boolean;

/**
 * The Connect path: runs methods in the Connect, gRPC and gRPC-Web protocols. Replaces connect-node's adapter, which
 * throws on an invalid Host header and writes errors to the console.
 */
export function createConnectHandler(options: ConnectHandlerOptions): ConnectHandler {
  const { pipeline } = options;
  const log = throttledLog(options.log, UNDELIVERED_LOGGED_MAX);
  const router = createConnectRouter({
    interceptors: options.interceptors,
    acceptCompression: [...COMPRESSIONS],
    readMaxBytes: options.requestBytesMax ?? REQUEST_BYTES_MAX,
    requestGate: async (context) => {
      reportMalformedAsInvalidArgument(context);
      const admission = callIn(context.values).admit();
      if (admission !== undefined) {
        await untilAborted(admission, context.signal);
      }
      checkConnectRequest(context);
    },
  });
  options.routes(withJsonReaders(router, options.json ?? {}));
  const handlers = new Map(router.handlers.map((handler) => [handler.requestPath, handler]));

  return (request, response, path, started) => {
    const handler = handlers.get(path);
    if (handler === undefined) {
      return false;
    }
    if ("stream" in response) {
      rejectRequestBodyAfterTrailers(response.stream);
    }
    const head = { method: handler.method, headers: request.headers, caller: callerOf(request) };
    const call = started?.call ?? pipeline.start(head);
    response.once("close", () => {
      call.end(call.outcome);
      if (!call.reachedMiddleware) {
        options.onNonRpcResponse?.(response.statusCode);
      }
    });
    const values = createContextValues().set(callKey, call);
    const universal = universalRequestFromNodeRequest(request, response, undefined, values);
    applyTimeout(call, universal.header);
    const isRead = isGet(handler.method, request.method);
    if (isRead) {
      // A GET has no content; its query names the codec.
      universal.header.delete("content-type");
    }
    // By default, Node destroys a request that is not read to its end, and with it an HTTP/1.1 connection.
    const received = started?.body ?? request.iterator({ destroyOnReturn: false });
    const contentType = request.headers["content-type"];
    const body = checkedBody(received, contentType, call.deadline);
    const checked = { ...universal, body, ...(isRead && { method: "GET" }) };
    (isGrpcWebText(contentType) ? runAsText(handler, checked) : handler(checked))
      .then((result) => (isRead ? withCacheHeaders(handler.method, request, response, result) : result))
      .then((result) => explainRefusal(handler.method, request, result))
      .then((result) => universalResponseToNodeResponse(withTrailers(result), response))
      .catch((error: unknown) => {
        // Nearly always a client that disconnected during the response.
        const level = ConnectError.from(error).code === Code.Aborted ? "debug" : "info";
        log[level]({ err: error, path }, "A response could not be delivered");
        response.destroy();
      });
    return true;
  };
}

/** With `grpc-message` re-encoded. A getter, since the trailers are complete only after the body. */
function withTrailers(result: UniversalServerResponse): UniversalServerResponse {
  const { trailer } = result;
  return trailer === undefined
    ? result
    : {
        ...result,
        get trailer() {
          return withGrpcMessage(trailer);
        },
      };
}
