import type { ConnectRouter } from "@connectrpc/connect";
import type { Logger } from "pino";
import { Health } from "../../server/ops/health.ts";
import { Gate } from "../../server/rpc/call.ts";
import { createConnectHandler, REQUEST_BYTES_MAX } from "../../server/rpc/connect-handler.ts";
import { createCors, createCorsHeaders } from "../../server/http/cors.ts";
import { createFront } from "../../server/http/router.ts";
import { deadlineInterceptor } from "../../server/rpc/interceptors/deadline.ts";
import { createTellError, errorInterceptor } from "../../server/rpc/interceptors/errors.ts";
import type { Lane } from "../../server/rpc/fast-path/fast-path.ts";
import { type ImplementedService, type JsonOptions, laneMethods } from "../../server/rpc/fast-path/methods.ts";
import { UnaryLane } from "../../server/rpc/fast-path/unary-fast-path.ts";
import { type Listener, type ListenerTls, startListener } from "../../server/http/listener.ts";

interface PortOptions {
  readonly routes: (router: ConnectRouter) => void;
  /** The same services, for the lane. Without them everything goes the long way. */
  readonly services: readonly ImplementedService[];
  readonly log: Logger;
  readonly requestBytesMax?: number;
  readonly json?: JsonOptions;
  readonly tls?: ListenerTls | undefined;
  /** Told of each request that was offered to the lane whether it took it. */
  readonly onOffered?: (isTaken: boolean) => void;
}

/** The server's own listener, long way and lane, joined as in `app.ts`, with other services behind them. */
export function startPort(options: PortOptions): Promise<Listener> {
  const { log, json = {}, tls, onOffered = () => {}, requestBytesMax = REQUEST_BYTES_MAX } = options;
  const tellError = createTellError(log);
  const shared = { gate: new Gate([]), requestBytesMax };
  const methods = createConnectHandler({
    routes: options.routes,
    interceptors: [errorInterceptor(tellError), deadlineInterceptor],
    log,
    json,
    ...shared,
  });
  const unary = laneMethods(options.services, json);
  const lane = counted(new UnaryLane({ methods: unary, longWay: methods, tellError, ...shared }), onOffered);
  return startListener({
    host: "127.0.0.1",
    port: 0,
    handler: createFront({
      health: new Health(),
      methods,
      pages: () => false,
      cors: createCors(createCorsHeaders([])),
      lanes: [lane],
    }),
    takeStream: (stream, headers, rawHeaders) => lane.takeStream(stream, headers, rawHeaders),
    log,
    tls,
  });
}

function counted(lane: Lane, onOffered: (isTaken: boolean) => void): Lane {
  const count = (isTaken: boolean): boolean => {
    onOffered(isTaken);
    return isTaken;
  };
  return {
    takeStream: (...args) => count(lane.takeStream(...args)),
    takeRequest: (...args) => count(lane.takeRequest(...args)),
  };
}
