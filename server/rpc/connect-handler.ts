import {
  Code,
  ConnectError,
  type ConnectRouter,
  createConnectRouter,
  createContextValues,
  type Interceptor,
} from "@connectrpc/connect";
import type { UniversalServerResponse } from "@connectrpc/connect/protocol";
import {
  compressionBrotli,
  compressionGzip,
  universalRequestFromNodeRequest,
  universalResponseToNodeResponse,
} from "@connectrpc/connect-node";
import { callerOf } from "../http/caller.ts";
import type { HttpRequest, HttpResponse } from "../http/message.ts";
import { rejectRequestBodyAfterTrailers } from "../http/reject-request-body.ts";
import { type Log, throttledLog } from "../ops/throttled-log.ts";
import { isGet, withCacheHeaders } from "./cacheable-get.ts";
import { type Call, type CallPipeline, callIn, callKey } from "./call.ts";
import type { JsonOptions } from "./fast-path/methods.ts";
import { withGrpcMessage } from "./grpc-message.ts";
import { boundTimeouts, reportMalformedAsInvalidArgument, requireBase64 } from "./malformed-request.ts";

/** Largest request message after decompression: 1,000 IDs of 128 bytes are 128 KiB, 100 lines far less. */
export const REQUEST_BYTES_MAX = 1_048_576;
/** Longest deadline a caller may ask for: a day is more than any watch lives, and far from where timers overflow. */
export const TIMEOUT_MS_MAX = 86_400_000;

/** Answers that nobody took, told to the log in a second. */
const UNDELIVERED_LOGGED_MAX = 10;

interface ConnectHandlerOptions {
  readonly routes: (router: ConnectRouter) => void;
  readonly interceptors: Interceptor[];
  readonly pipeline: CallPipeline;
  readonly log: Log;
  /** By default `REQUEST_BYTES_MAX`. */
  readonly requestBytesMax?: number;
  readonly json?: JsonOptions;
  /** Told the status of each answer to a request that never became a call. */
  readonly onNonRpcResponse?: ((status: number) => void) | undefined;
}

/** A call that was begun elsewhere, with what was read of its request. */
export interface StartedCall {
  readonly call: Call;
  readonly body: AsyncIterable<Uint8Array>;
}

/** Answers a request if it is for a method, and says whether it was. */
export type ConnectHandler = (
  request: HttpRequest,
  response: HttpResponse,
  path: string,
  begun?: StartedCall,
) => boolean;

/**
 * The methods, in the Connect, gRPC and gRPC-Web protocols. Like connect-node's own adapter, but
 * what goes wrong goes to the log instead of to the console.
 */
export function createConnectHandler(options: ConnectHandlerOptions): ConnectHandler {
  const { pipeline } = options;
  const log = throttledLog(options.log, UNDELIVERED_LOGGED_MAX);
  const router = createConnectRouter({
    interceptors: options.interceptors,
    acceptCompression: [compressionGzip, compressionBrotli],
    readMaxBytes: options.requestBytesMax ?? REQUEST_BYTES_MAX,
    maxTimeoutMs: TIMEOUT_MS_MAX,
    ...(options.json && { jsonOptions: options.json }),
    requestGate: async (context) => {
      reportMalformedAsInvalidArgument(context);
      await callIn(context.values).admit();
      requireBase64(context);
    },
  });
  options.routes(router);
  const handlers = new Map(router.handlers.map((handler) => [handler.requestPath, handler]));

  return (request, response, path, begun) => {
    const handler = handlers.get(path);
    if (handler === undefined) {
      return false;
    }
    if (!URL.canParse(`http://${authorityOf(request)}`)) {
      response.once("close", () => options.onNonRpcResponse?.(response.statusCode));
      refuseHost(response);
      return true;
    }
    if ("stream" in response) {
      rejectRequestBodyAfterTrailers(response.stream);
    }
    const head = { method: handler.method, headers: request.headers, caller: callerOf(request) };
    const call = begun?.call ?? pipeline.begin(head);
    response.once("close", () => {
      call.end(call.outcome);
      if (!call.wasAdmitted) {
        options.onNonRpcResponse?.(response.statusCode);
      }
    });
    const values = createContextValues().set(callKey, call);
    const universal = universalRequestFromNodeRequest(request, response, undefined, values);
    boundTimeouts(universal.header);
    const isRead = isGet(handler.method, request.method);
    // Node would destroy a request that is not read to its end, and stop its connection before the next one.
    const body = begun?.body ?? request.iterator({ destroyOnReturn: false });
    handler({ ...universal, body, ...(isRead && { method: "GET" }) })
      .then((answer) => (isRead ? withCacheHeaders(handler.method, request, response, answer) : answer))
      .then((answer) => universalResponseToNodeResponse(withTrailers(answer), response))
      .catch((error: unknown) => {
        // Nearly always a client that went away while it was answered.
        const level = ConnectError.from(error).code === Code.Aborted ? "debug" : "info";
        log[level]({ err: error, path }, "An answer could not be delivered");
        response.destroy();
      });
    return true;
  };
}

function authorityOf(request: HttpRequest): string | undefined {
  return "authority" in request ? request.authority : request.headers.host;
}

/** Connect throws on a Host that is none. */
function refuseHost(response: HttpResponse): void {
  response.statusCode = 400;
  response.setHeader("content-type", "text/plain; charset=utf-8");
  response.end("The Host of the request is none\n");
}

/** The trailers are read when the body has ended, and only then laid out. */
function withTrailers(answer: UniversalServerResponse): UniversalServerResponse {
  const { trailer } = answer;
  return trailer === undefined
    ? answer
    : {
        ...answer,
        get trailer() {
          return withGrpcMessage(trailer);
        },
      };
}
