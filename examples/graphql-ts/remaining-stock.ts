import { timestampDate } from "@bufbuild/protobuf/wkt";
import { type Client, Code, ConnectError } from "@connectrpc/connect";
import DataLoader from "dataloader";
import { GraphQLError } from "graphql";
import { RetryInfoSchema } from "./gen/google/rpc/error_details_pb.ts";
import type { Stock, StockService } from "./gen/inventory/v1/stock_pb.ts";

/** How many units of a product can be bought. */
export interface RemainingStock {
  readonly units: number;
  /** Increases with every change of the product. */
  readonly version: bigint;
  readonly updateTime: Date | undefined;
  /** The number may be out of date: the service's store is unreachable. */
  readonly stale: boolean;
}

/** BatchGetStock takes up to 1,000. Fewer bound the calls that follow a refusal. */
const BATCH_MAX = 100;
/** A search result must not wait longer for its stock. */
const TIMEOUT_MS = 1_000;

export type StockLoader = DataLoader<string, RemainingStock | null>;

/**
 * Collects the products of one GraphQL request into one BatchGetStock. Make one for each request: it remembers what it has
 * loaded. `null` stands for a product that the service does not know.
 */
export function createStockLoader(stock: Client<typeof StockService>): StockLoader {
  return new DataLoader<string, RemainingStock | null>((productIds) => readBatch(stock, productIds), {
    maxBatchSize: BATCH_MAX,
  });
}

async function readBatch(
  stock: Client<typeof StockService>,
  productIds: readonly string[],
): Promise<(RemainingStock | null | GraphQLError)[]> {
  let stale = false;
  const onHeader = (header: Headers): void => {
    stale = header.get("stock-stale") === "true";
  };
  try {
    const request = { productIds: [...productIds] };
    const { stocks } = await stock.batchGetStock(request, { timeoutMs: TIMEOUT_MS, onHeader });
    const known = new Map(stocks.map((each) => [each.productId, toRemainingStock(each, stale)]));
    return productIds.map((productId) => known.get(productId) ?? null);
  } catch (reason) {
    const error = ConnectError.from(reason);
    // While its store is unreachable, the service cannot tell an unknown product from a new one, and one such ID refuses the
    // batch. The other products have their last known stock.
    const isRefusal = error.code === Code.Unavailable && error.findDetails(RetryInfoSchema).length > 0;
    if (isRefusal && productIds.length > 1) {
      return (await Promise.all(productIds.map((productId) => readBatch(stock, [productId])))).flat();
    }
    return productIds.map(() => toGraphQlError(error));
  }
}

export function toRemainingStock({ available, version, updateTime }: Stock, stale: boolean): RemainingStock {
  return { units: available, version, updateTime: updateTime && timestampDate(updateTime), stale };
}

/** The rest of the result is delivered: `remainingStock` is null, and `errors` says why. */
export function toGraphQlError(reason: unknown): GraphQLError {
  const { code } = ConnectError.from(reason);
  return new GraphQLError("The remaining stock cannot be read now", { extensions: { code: Code[code] } });
}
