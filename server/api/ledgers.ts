import { timestampMs } from "@bufbuild/protobuf/wkt";
import type { HandlerContext } from "@connectrpc/connect";
import {
  DeletedFilter,
  LedgerOrder as LedgerOrderMessage,
  type ListLedgersRequest,
} from "../../gen/inventory/v1/supply_pb.ts";
import { STALE_HEADER } from "../http/headers.ts";
import { available, type Ledger, shortfall } from "../inventory/ledger.ts";
import { fingerprint } from "../inventory/operation.ts";
import type { InventoryStore } from "../inventory/store.ts";
import { show, Violations } from "../inventory/validation.ts";
import {
  type LedgerCursor,
  type LedgerFilter,
  LedgerList,
  type LedgerOrder,
  type LedgerQuery,
} from "../live/catalog/ledger-list.ts";
import { toLedger } from "../wire/stock-changed.ts";
import { decodeToken, encodeToken, readPageSize, readTime } from "./fields.ts";
import type { LiveView } from "./stock-service.ts";
import { requireLoaded } from "./watch-stock.ts";

const ORDERS: Readonly<Record<LedgerOrderMessage, LedgerOrder>> = {
  [LedgerOrderMessage.UNSPECIFIED]: "product_id",
  [LedgerOrderMessage.PRODUCT_ID]: "product_id",
  [LedgerOrderMessage.AVAILABLE]: "available",
  [LedgerOrderMessage.UPDATE_TIME]: "update_time",
};

const DELETED: Readonly<Record<DeletedFilter, LedgerFilter["deleted"]>> = {
  [DeletedFilter.UNSPECIFIED]: "excluded",
  [DeletedFilter.INCLUDED]: "included",
  [DeletedFilter.ONLY]: "only",
};

/** ListLedgers. The mirror selects the products of a page, and the store has their ledgers. */
export function ledgerMethods(store: InventoryStore, { mirror, catalog }: LiveView) {
  const list = new LedgerList(catalog, mirror.table);
  return {
    async listLedgers(request: ListLedgersRequest, context: HandlerContext) {
      const query = readListLedgers(request);
      requireLoaded(mirror);
      await mirror.caughtUp();
      if (mirror.isStale) {
        context.responseHeader.set(STALE_HEADER, "true");
      }
      const { productIds, total, next } = await list.page(query);
      const ledgers = await store.batchGetLedgers(productIds);
      return {
        ledgers: ledgers
          .filter((ledger) => ledger !== undefined)
          .filter((ledger) => stillMatches(ledger, query.filter))
          .map(toLedger),
        nextPageToken: next === undefined ? "" : ledgerToken(query, next),
        totalSize: total,
      };
    },
  };
}

/** Whether a ledger, which may be newer than its state in the mirror, matches the filters on its fields. */
function stillMatches(ledger: Ledger, filter: LedgerFilter): boolean {
  return (
    available(ledger) <= (filter.maxAvailable ?? Number.POSITIVE_INFINITY) &&
    (!filter.shortfallOnly || shortfall(ledger) > 0) &&
    (!filter.reservedOnly || ledger.reserved > 0) &&
    (filter.deleted === "included" || ledger.deleted === (filter.deleted === "only"))
  );
}

function readListLedgers(request: ListLedgersRequest): LedgerQuery {
  const violations = new Violations();
  const limit = readPageSize(violations, request.pageSize);
  const order = ORDERS[request.order];
  if (order === undefined) {
    violations.add("order", `is ${request.order}; it must be 0 to ${LedgerOrderMessage.UPDATE_TIME}`);
  }
  const deleted = DELETED[request.deleted];
  if (deleted === undefined) {
    violations.add("deleted", `is ${request.deleted}; it must be 0 to ${DeletedFilter.ONLY}`);
  }
  violations.optionalId("collection_id", request.collectionId);
  readTime(violations, "changed_since", request.changedSince);
  const query = {
    filter: {
      maxAvailable:
        request.maxAvailable === undefined
          ? undefined
          : violations.integer("max_available", request.maxAvailable, 0),
      shortfallOnly: request.shortfallOnly,
      reservedOnly: request.reservedOnly,
      deleted: deleted ?? "excluded",
      collectionId: request.collectionId,
      // Rounded up: times of changes have whole milliseconds, so the same products match.
      changedSinceMs: request.changedSince && Math.ceil(timestampMs(request.changedSince)),
    },
    order: order ?? "product_id",
    descending: request.descending,
    limit,
  };
  const after = readLedgerToken(violations, request.pageToken, query);
  violations.throwIfAny();
  return { ...query, after };
}

/** The token of the page that starts after a place. It belongs to one order and one set of filters. */
function ledgerToken(query: Omit<LedgerQuery, "after">, { key, productId }: LedgerCursor): string {
  return encodeToken(`ledgers:${queryFingerprint(query)}:${key}:${productId}`);
}

function readLedgerToken(
  violations: Violations,
  token: string,
  query: Omit<LedgerQuery, "after">,
): LedgerCursor | undefined {
  const [, ofQuery, key, productId] =
    decodeToken(violations, token, /^ledgers:([\w-]+):(\d{1,15}):(.+)$/s) ?? [];
  if (ofQuery === undefined || key === undefined || productId === undefined) {
    return undefined;
  }
  if (ofQuery !== queryFingerprint(query)) {
    violations.add(
      "page_token",
      `is ${show(token)}, which belongs to a list with other filters or in another order; keep them on every page`,
    );
    return undefined;
  }
  return { key: Number(key), productId };
}

function queryFingerprint({ filter, order, descending }: Omit<LedgerQuery, "after">): string {
  return fingerprint([JSON.stringify([filter, order, descending])]);
}
