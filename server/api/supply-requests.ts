import type {
  AdjustStockRequest,
  CountStockRequest,
  DeleteProductRequest,
  ListChangesRequest,
  PutProductRequest,
  SetSafetyStockRequest,
} from "../../gen/inventory/v1/supply_pb.ts";
import { QUANTITY_MAX } from "../inventory/ledger.ts";
import type { ProductDelete, ProductUpsert } from "../inventory/product-event.ts";
import type { ChangesPage, StockAdjustment, StockCount } from "../inventory/store.ts";
import { REASON_BYTES_MAX, Violations } from "../inventory/validation.ts";
import { decodeToken, encodeToken, readEventTime, readPageSize } from "./fields.ts";

// Mapping from the wire to the domain. Every field is validated, and an error names all invalid fields.

export function readPutProduct(request: PutProductRequest, actor: string): ProductUpsert {
  const violations = new Violations();
  violations.id("product_id", request.productId);
  const details = request.product && violations.details("product", request.product);
  const declared =
    request.declared === undefined ? undefined : violations.integer("declared", request.declared, 0);
  const time = readEventTime(violations, request.updateTime);
  violations.throwIfAny();
  return { productId: request.productId, details, declared, actor, ...time };
}

export function readDeleteProduct(request: DeleteProductRequest, actor: string): ProductDelete {
  const violations = new Violations();
  violations.id("product_id", request.productId);
  const time = readEventTime(violations, request.updateTime);
  violations.throwIfAny();
  return { productId: request.productId, actor, ...time };
}

export function readCountStock(request: CountStockRequest, actor: string): StockCount {
  const violations = new Violations();
  violations.id("product_id", request.productId);
  const count = violations.integer("count", request.count, 0);

  violations.id("count_id", request.countId);
  violations.text("reason", request.reason, REASON_BYTES_MAX);
  violations.throwIfAny();
  return {
    productId: request.productId,
    count,
    expectedVersion: request.expectedVersion,
    countId: request.countId,
    reason: request.reason,
    actor,
  };
}

export function readAdjustStock(request: AdjustStockRequest, actor: string): StockAdjustment {
  const violations = new Violations();
  violations.id("product_id", request.productId);
  const delta = violations.integer("delta", request.delta, -QUANTITY_MAX);
  if (delta === 0) {
    violations.add("delta", "is 0; give the number of units added (above 0) or removed (below 0)");
  }
  violations.id("adjustment_id", request.adjustmentId);
  violations.text("reason", request.reason, REASON_BYTES_MAX);
  violations.throwIfAny();
  const { productId, adjustmentId, reason } = request;
  return { productId, delta, adjustmentId, reason, actor };
}

export function readSetSafetyStock(request: SetSafetyStockRequest): { productId: string; safety: number } {
  const violations = new Violations();
  violations.id("product_id", request.productId);
  const safety = violations.integer("safety", request.safety, 0);
  violations.throwIfAny();
  return { productId: request.productId, safety };
}

export function readListChanges(request: ListChangesRequest): { productId: string; page: ChangesPage } {
  const violations = new Violations();
  violations.id("product_id", request.productId);
  const limit = readPageSize(violations, request.pageSize);
  const beforeVersion = readVersionToken(violations, request.pageToken);
  violations.throwIfAny();
  return { productId: request.productId, page: { limit, beforeVersion } };
}

/** The token of the page that starts below a version. */
export function versionToken(version: number): string {
  return encodeToken(`version:${version}`);
}

function readVersionToken(violations: Violations, token: string): number | undefined {
  const [, version] = decodeToken(violations, token, /^version:(\d{1,15})$/) ?? [];
  return version === undefined ? undefined : Number(version);
}
