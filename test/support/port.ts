import type { ConnectRouter } from "@connectrpc/connect";
import type { Logger } from "pino";
import { createCors, createCorsHeaders } from "../../server/http/cors.ts";
import { type Listener, startListener } from "../../server/http/listener/listener.ts";
import type { ListenerTls } from "../../server/http/listener/transport.ts";
import { createRouter } from "../../server/http/router.ts";
import { Health } from "../../server/ops/health.ts";
import { CallPipeline } from "../../server/rpc/call.ts";
import { createConnectHandler, REQUEST_BYTES_MAX } from "../../server/rpc/connect-handler.ts";
import type { FastPath } from "../../server/rpc/fast-path/fast-path.ts";
import {
  fastPathMethods,
  type ImplementedService,
  type JsonOptions,
} from "../../server/rpc/fast-path/methods.ts";
import { UnaryFastPath } from "../../server/rpc/fast-path/unary-fast-path.ts";
import { deadlineInterceptor } from "../../server/rpc/interceptors/deadline.ts";
import { createErrorReporter, errorInterceptor } from "../../server/rpc/interceptors/errors.ts";
import { refuseInProtocol, refuseUnknownMethod } from "../../server/rpc/refusals.ts";
import { createRpcHandler } from "../../server/rpc/rpc-handler.ts";

interface PortOptions {
  readonly routes: (router: ConnectRouter) => void;
  /** The same services, for the fast path. */
  readonly services: readonly ImplementedService[];
  readonly log: Logger;
  readonly requestBytesMax?: number;
  readonly json?: JsonOptions;
  readonly tls?: ListenerTls | undefined;
  /** Called for each request that was offered to the fast path with whether it was handled. */
  readonly onOffered?: (isTaken: boolean) => void;
}

/** The server's own listener, Connect path and fast path, joined as in `app.ts`, with other services behind them. */
export function startPort(options: PortOptions): Promise<Listener> {
  const { log, json = {}, tls, onOffered = () => {}, requestBytesMax = REQUEST_BYTES_MAX } = options;
  const reportError = createErrorReporter(log);
  const shared = { pipeline: new CallPipeline([]), requestBytesMax };
  const connectHandler = createConnectHandler({
    routes: options.routes,
    interceptors: [errorInterceptor(reportError), deadlineInterceptor],
    log,
    json,
    ...shared,
  });
  const unary = fastPathMethods(options.services, json);
  const fastPath = counted(
    new UnaryFastPath({ methods: unary, connectHandler, reportError, ...shared }),
    onOffered,
  );
  return startListener({
    host: "127.0.0.1",
    port: 0,
    handler: createRouter({
      health: new Health(),
      rpc: createRpcHandler({ fastPaths: [fastPath], connectHandler }),
      unknownMethod: refuseUnknownMethod,
      pages: () => false,
      cors: createCors(createCorsHeaders([])),
    }),
    refuse: refuseInProtocol,
    tryHandleStream: (stream, headers, rawHeaders) => fastPath.tryHandleStream(stream, headers, rawHeaders),
    log,
    tls,
  });
}

function counted(fastPath: FastPath, onOffered: (isTaken: boolean) => void): FastPath {
  const count = (isTaken: boolean): boolean => {
    onOffered(isTaken);
    return isTaken;
  };
  return {
    tryHandleStream: (...args) => count(fastPath.tryHandleStream(...args)),
    tryHandleRequest: (...args) => count(fastPath.tryHandleRequest(...args)),
  };
}
