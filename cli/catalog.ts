import type { JsonObject } from "@bufbuild/protobuf";
import type { Timestamp } from "@bufbuild/protobuf/wkt";
import { type Command, InvalidArgumentError, Option } from "commander";
import { type Product, ProductSchema } from "../gen/inventory/v1/stock_pb.ts";
import { DeletedFilter, type Ledger, LedgerOrder, LedgerSchema } from "../gen/inventory/v1/supply_pb.ts";
import { messageJson } from "./output/output.ts";
import { withRetry } from "./retry.ts";
import type { Session } from "./session.ts";
import { timeFromNow, wholeNumber } from "./values.ts";

/** The largest page, and the largest batch, that the server accepts. */
export const PAGE_SIZE = 1_000;
/** Units below which stock is low, if `--low` has no number. */
const LOW_DEFAULT = 5;
/** How long the reads of a list are retried while the server is unavailable, ms. */
const RETRY_MS_MAX = 30_000;

const ORDERS = {
  id: LedgerOrder.PRODUCT_ID,
  available: LedgerOrder.AVAILABLE,
  "update-time": LedgerOrder.UPDATE_TIME,
} as const;

/** The filters of `list` and `export`. */
export interface LedgerFilterOptions {
  readonly low?: number | true;
  readonly shortfall?: boolean;
  readonly reserved?: boolean;
  readonly collection?: string;
  readonly changedSince?: Timestamp;
  readonly deleted?: boolean;
  readonly withDeleted?: boolean;
  readonly order?: keyof typeof ORDERS;
  readonly desc?: boolean;
  readonly limit?: number;
}

/** A product with its ledger. The details are absent if it is deleted. */
export interface CatalogEntry {
  readonly ledger: Ledger;
  readonly product: Product | undefined;
}

export function addLedgerFilters(command: Command): Command {
  return command
    .option("--low [units]", `only products with at most this many units available (${LOW_DEFAULT})`, units)
    .option("--shortfall", "only products with more units reserved than in stock")
    .option("--reserved", "only products with reserved units")
    .option("--collection <id>", "only products of this collection")
    .option(
      "--changed-since <time>",
      "only products that changed since: a time, or 30m, 2h, 7d ago",
      timeFromNow("ago"),
    )
    .addOption(new Option("--deleted", "only deleted products").conflicts("withDeleted"))
    .option("--with-deleted", "deleted products too")
    .addOption(new Option("--order <order>", "sort by").choices(Object.keys(ORDERS)).default("id"))
    .option("--desc", "highest first")
    .option("--limit <count>", "at most this many products", wholeNumber(1));
}

function units(text: string): number {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError("Give a whole number of units.");
  return wholeNumber(0)(text);
}

/** The products that match, page by page, with the total over all pages. */
export async function* listCatalog(
  session: Session,
  options: LedgerFilterOptions,
): AsyncGenerator<{ readonly entries: readonly CatalogEntry[]; readonly total: number }> {
  let left = options.limit ?? Number.POSITIVE_INFINITY;
  let pageToken = "";
  do {
    // The first page is not retried, so that a wrong address is reported at once.
    const page = await retried(pageToken === "" ? 0 : RETRY_MS_MAX, () =>
      session.supply.listLedgers({ ...toFilter(options), pageSize: Math.min(PAGE_SIZE, left), pageToken }),
    );
    left -= page.ledgers.length;
    pageToken = page.nextPageToken;
    yield { entries: await withDetails(session, page.ledgers), total: page.totalSize };
  } while (pageToken !== "" && left > 0);
}

function toFilter({ low, changedSince, ...options }: LedgerFilterOptions) {
  const withDeleted = options.withDeleted ? DeletedFilter.INCLUDED : DeletedFilter.UNSPECIFIED;
  return {
    ...(low !== undefined && { maxAvailable: low === true ? LOW_DEFAULT : low }),
    ...(changedSince && { changedSince }),
    shortfallOnly: options.shortfall ?? false,
    reservedOnly: options.reserved ?? false,
    collectionId: options.collection ?? "",
    deleted: options.deleted ? DeletedFilter.ONLY : withDeleted,
    order: ORDERS[options.order ?? "id"],
    descending: options.desc ?? false,
  };
}

async function withDetails(session: Session, ledgers: readonly Ledger[]): Promise<CatalogEntry[]> {
  const productIds = ledgers.filter(({ deleted }) => !deleted).map(({ productId }) => productId);
  const { stocks } =
    productIds.length === 0
      ? { stocks: [] }
      : await retried(RETRY_MS_MAX, () => session.stock.batchGetStock({ productIds }));
  const details = new Map(stocks.map(({ productId, product }) => [productId, product]));
  return ledgers.map((ledger) => ({ ledger, product: details.get(ledger.productId) }));
}

function retried<Result>(limitMs: number, call: () => Promise<Result>): Promise<Result> {
  return withRetry(call, { limitMs });
}

/** A product as JSON: a PutProductRequest that `import` accepts, with the ledger besides. */
export function catalogJson({ ledger, product }: CatalogEntry): JsonObject {
  return {
    productId: ledger.productId,
    ...(product && { product: messageJson(ProductSchema, product) }),
    declared: ledger.declared,
    ...(ledger.deleted && { deleted: true }),
    ledger: messageJson(LedgerSchema, ledger),
  };
}
