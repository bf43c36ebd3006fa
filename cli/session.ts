import { type Client, createClient, type Interceptor, type Transport } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { ReservationService } from "../gen/inventory/v1/reservation_pb.ts";
import { StockService } from "../gen/inventory/v1/stock_pb.ts";
import { SupplyService } from "../gen/inventory/v1/supply_pb.ts";
import { Output } from "./output/output.ts";
import type { Settings } from "./settings.ts";

const STALE_HEADER = "stock-stale";
/** The server sends a heartbeat at least every 15 s in a watch, and pings detect a dead connection elsewhere. */
const PING_MS = 20_000;

/** A connection to the server with everything that a command needs. */
export interface Session extends Disposable {
  readonly url: string;
  readonly stock: Client<typeof StockService>;
  readonly supply: Client<typeof SupplyService>;
  readonly reservations: Client<typeof ReservationService>;
  readonly output: Output;
  /**
   * Aborted by the first SIGINT or SIGTERM; a second one ends the process. A command that does not read this ends at the
   * first one.
   */
  readonly signal: AbortSignal;
  readonly timeoutMs: number;
  /** True after a response that may be out of date, because the server does not reach its store. */
  readonly isStale: () => boolean;
}

export function openSession(settings: Settings, json: boolean): Session {
  let stale = false;
  let signal: AbortSignal | undefined;
  const intercept: Interceptor = (next) => async (request) => {
    if (settings.token !== undefined) request.header.set("authorization", `Bearer ${settings.token}`);
    const response = await next(request);
    stale ||= response.header.get(STALE_HEADER) === "true";
    return response;
  };
  const connection = new Http2SessionManager(settings.url, { pingIntervalMs: PING_MS }, { ...settings.tls });
  const transport: Transport = createGrpcTransport({
    baseUrl: settings.url,
    sessionManager: connection,
    interceptors: [intercept],
    defaultTimeoutMs: settings.timeoutMs,
  });
  return {
    url: settings.url,
    stock: createClient(StockService, transport),
    supply: createClient(SupplyService, transport),
    reservations: createClient(ReservationService, transport),
    output: new Output(json),
    get signal() {
      signal ??= interruptSignal();
      return signal;
    },
    timeoutMs: settings.timeoutMs,
    isStale: () => stale,
    [Symbol.dispose]: () => connection.abort(),
  };
}

function interruptSignal(): AbortSignal {
  const controller = new AbortController();
  for (const name of ["SIGINT", "SIGTERM"] as const) process.once(name, () => controller.abort());
  return controller.signal;
}
