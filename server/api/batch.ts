import { Code, type ConnectError, type HandlerContext } from "@connectrpc/connect";
import type { Status } from "../../gen/google/rpc/status_pb.ts";
import type {
  AdjustStockRequest,
  BatchAdjustStockRequest,
  BatchCountStockRequest,
  BatchPutProductsRequest,
  CountStockRequest,
  PutProductRequest,
} from "../../gen/inventory/v1/supply_pb.ts";
import { type BulkItem, BulkQueue } from "../inventory/bulk.ts";
import type { InventoryStore } from "../inventory/store.ts";
import { BATCH_REQUESTS_MAX, Violations } from "../inventory/validation.ts";
import type { BatchCount } from "../ops/batch-metrics.ts";
import type { Tracing } from "../ops/tracing.ts";
import { type Call, callIn } from "../rpc/call.ts";
import type { ErrorReporter } from "../rpc/interceptors/errors.ts";
import { toStatus } from "../rpc/status.ts";
import { toLedger } from "../wire/stock-changed.ts";
import { actorOf } from "./actor.ts";
import { readAdjustStock, readCountStock, readPutProduct } from "./supply-requests.ts";

/** Errors that concern the server, not the request. A batch in which every request has one fails as a whole. */
const SERVER_ERRORS: ReadonlySet<Code | undefined> = new Set([Code.Unavailable, Code.ResourceExhausted]);

/** What the batch methods report to. */
export interface BatchInstruments {
  readonly reportError: ErrorReporter;
  readonly count: BatchCount;
  readonly tracing: Tracing | undefined;
}

/** The result of one request: its error, or its response. */
interface Result<Response> {
  readonly error?: Status;
  readonly response?: Response;
}

type Handled<Response> = { readonly response: Response } | { readonly error: ConnectError };

/** The batch methods of SupplyService. Each request of a batch is validated, and succeeds or fails, alone. */
export function batchMethods(store: InventoryStore, instruments: BatchInstruments) {
  const bulk = new BulkQueue((productId) => store.bucketOf(productId));

  const putProduct = (request: PutProductRequest, actor: string) => {
    const event = readPutProduct(request, actor);
    return {
      productId: event.productId,
      async run() {
        const { applied, ledger } = await store.putProduct(event);
        return { applied, ledger: toLedger(ledger) };
      },
    };
  };
  const countStock = (request: CountStockRequest, actor: string) => {
    const count = readCountStock(request, actor);
    return {
      productId: count.productId,
      run: async () => ({ ledger: toLedger(await store.countStock(count)) }),
    };
  };
  const adjustStock = (request: AdjustStockRequest, actor: string) => {
    const adjustment = readAdjustStock(request, actor);
    return {
      productId: adjustment.productId,
      run: async () => ({ ledger: toLedger(await store.adjustStock(adjustment)) }),
    };
  };

  async function run<Request, Response>(
    requests: readonly Request[],
    context: HandlerContext,
    read: (request: Request, actor: string) => BulkItem<Response>,
  ): Promise<{ results: Result<Response>[] }> {
    checkSize(requests);
    const call = callIn(context.values);
    const handled = await handle(requests, context, read);
    recordOutcome(call, handled, instruments.count);
    const errors = handled.map((each) => ("error" in each ? each.error : undefined));
    const [first] = errors;
    if (first !== undefined && errors.every((error) => SERVER_ERRORS.has(error?.code))) {
      throw first;
    }
    return { results: handled.map((each) => ("error" in each ? { error: toStatus(each.error) } : each)) };
  }

  /** Reads all requests, then runs those that are valid. */
  async function handle<Request, Response>(
    requests: readonly Request[],
    context: HandlerContext,
    read: (request: Request, actor: string) => BulkItem<Response>,
  ): Promise<Handled<Response>[]> {
    const { signal } = context;
    const call = callIn(context.values);
    const actor = actorOf(context);
    const failed = (error: unknown) => ({ error: instruments.reportError(error, call, signal.aborted) });
    const items: BulkItem<Response>[] = [];
    const places: number[] = [];
    const handled: Handled<Response>[] = [];
    for (const [index, request] of requests.entries()) {
      try {
        items.push(read(request, actor));
        places.push(index);
      } catch (error) {
        handled[index] = failed(error);
      }
    }
    const { tracing } = instruments;
    // A span of each request would take a quarter of the collector's queue; the span of the call has their number.
    const settled = await (tracing === undefined
      ? bulk.run(items, signal)
      : tracing.withoutSpan(() => bulk.run(items, signal)));
    for (const [n, result] of settled.entries()) {
      handled[places[n] ?? -1] =
        result.status === "fulfilled" ? { response: result.value } : failed(result.reason);
    }
    return handled;
  }

  return {
    batchPutProducts: ({ requests }: BatchPutProductsRequest, context: HandlerContext) =>
      run(requests, context, putProduct),
    batchCountStock: ({ requests }: BatchCountStockRequest, context: HandlerContext) =>
      run(requests, context, countStock),
    batchAdjustStock: ({ requests }: BatchAdjustStockRequest, context: HandlerContext) =>
      run(requests, context, adjustStock),
  };
}

function checkSize(requests: readonly unknown[]): void {
  const violations = new Violations();
  if (requests.length < 1 || requests.length > BATCH_REQUESTS_MAX) {
    violations.add("requests", `has ${requests.length} entries; give 1 to ${BATCH_REQUESTS_MAX}`);
  }
  violations.throwIfAny();
}

function recordOutcome(call: Call, handled: readonly Handled<unknown>[], count: BatchCount): void {
  const codes = handled.map((each) => ("error" in each ? each.error.code : undefined));
  count(call.method.name, codes);
  call.batch = { requests: codes.length, failed: codes.filter((code) => code !== undefined).length };
}
