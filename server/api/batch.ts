import { Code, type ConnectError, type HandlerContext } from "@connectrpc/connect";
import type { Status } from "../../gen/google/rpc/status_pb.ts";
import type {
  AdjustStockRequest,
  CountStockRequest,
  PutProductRequest,
} from "../../gen/inventory/v1/supply_pb.ts";
import type { BulkItem, BulkQueue } from "../inventory/bulk.ts";
import type { InventoryStore } from "../inventory/store.ts";
import { BATCH_PRODUCTS_MAX, Violations } from "../inventory/validation.ts";
import { toConnectError } from "../rpc/errors.ts";
import { toStatus } from "../rpc/status.ts";
import { toLedger } from "../wire/stock-changed.ts";
import { readAdjustStock, readCountStock, readPutProduct } from "./supply-requests.ts";

/** Errors that concern the server, not the request: a batch of nothing else fails as a whole. */
const RETRYABLE: ReadonlySet<Code> = new Set([Code.Unavailable, Code.ResourceExhausted]);

interface Result<Response> {
  readonly error?: Status;
  readonly response?: Response;
}

interface Batch<Request, Response> {
  readonly requests: readonly Request[];
  /** Validates a request. Throws `INVALID_INPUT`. */
  readonly read: (request: Request) => BulkItem<Response>;
}

/** The batch methods of SupplyService. Each request of a batch is validated, and succeeds or fails, alone. */
export function batchMethods(store: InventoryStore, bulk: BulkQueue) {
  return {
    batchPutProducts: async (
      { requests }: { readonly requests: readonly PutProductRequest[] },
      { signal }: HandlerContext,
    ) => ({
      results: await runBatch(bulk, signal, {
        requests,
        read: (request) => {
          const event = readPutProduct(request);
          return {
            productId: event.productId,
            run: async () => {
              const { applied, ledger } = await store.putProduct(event);
              return { applied, ledger: toLedger(ledger) };
            },
          };
        },
      }),
    }),
    batchCountStock: async (
      { requests }: { readonly requests: readonly CountStockRequest[] },
      { signal }: HandlerContext,
    ) => ({
      results: await runBatch(bulk, signal, {
        requests,
        read: (request) => {
          const count = readCountStock(request);
          return {
            productId: count.productId,
            run: async () => ({ ledger: toLedger(await store.countStock(count)) }),
          };
        },
      }),
    }),
    batchAdjustStock: async (
      { requests }: { readonly requests: readonly AdjustStockRequest[] },
      { signal }: HandlerContext,
    ) => ({
      results: await runBatch(bulk, signal, {
        requests,
        read: (request) => {
          const adjustment = readAdjustStock(request);
          return {
            productId: adjustment.productId,
            run: async () => ({ ledger: toLedger(await store.adjustStock(adjustment)) }),
          };
        },
      }),
    }),
  };
}

async function runBatch<Request, Response>(
  bulk: BulkQueue,
  signal: AbortSignal,
  { requests, read }: Batch<Request, Response>,
): Promise<Result<Response>[]> {
  checkSize(requests);
  const errors: ConnectError[] = [];
  const items: BulkItem<Response>[] = [];
  const places: number[] = [];
  for (const [index, request] of requests.entries()) {
    try {
      items.push(read(request));
      places.push(index);
    } catch (error) {
      errors[index] = toConnectError(error);
    }
  }
  const responses: Response[] = [];
  const settled = await bulk.run(items, signal);
  for (const [n, result] of settled.entries()) {
    const index = places[n] ?? -1;
    if (result.status === "fulfilled") {
      responses[index] = result.value;
    } else {
      errors[index] = toConnectError(result.reason);
    }
  }
  const [first] = errors;
  if (
    first !== undefined &&
    requests.every((_, index) => RETRYABLE.has(errors[index]?.code ?? Code.Unknown))
  ) {
    throw first;
  }
  return requests.map((_, index) => {
    const error = errors[index];
    if (error !== undefined) {
      return { error: toStatus(error) };
    }
    const response = responses[index];
    return response === undefined ? {} : { response };
  });
}

function checkSize(requests: readonly unknown[]): void {
  const violations = new Violations();
  if (requests.length < 1 || requests.length > BATCH_PRODUCTS_MAX) {
    violations.add("requests", `has ${requests.length} entries; give 1 to ${BATCH_PRODUCTS_MAX}`);
  }
  violations.throwIfAny();
}
