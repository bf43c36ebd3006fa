import type {
  AdjustStockRequest,
  CountStockRequest,
  DeleteProductRequest,
  ListChangesRequest,
  PutProductRequest,
  SetSafetyStockRequest,
} from "../../gen/inventory/v1/supply_pb.ts";
import type { ChangePosition, ReferencePage, ReferenceQuery } from "../inventory/change-history.ts";
import { QUANTITY_MAX } from "../inventory/ledger.ts";
import type { ProductDelete, ProductUpsert } from "../inventory/product-event.ts";
import type { ChangesPage, StockAdjustment, StockCount } from "../inventory/store.ts";
import { ID_BYTES_MAX, REASON_BYTES_MAX, Violations } from "../inventory/validation.ts";
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

/** A request for the changes of a product, or for those of a reference. */
export type ChangesRequest =
  | { readonly reference?: undefined; readonly productId: string; readonly page: ChangesPage }
  | { readonly reference: ReferenceQuery; readonly page: ReferencePage };

export function readListChanges(request: ListChangesRequest): ChangesRequest {
  const { productId, referenceId, pageToken } = request;
  const violations = new Violations();
  if (productId === "" && referenceId === "") {
    violations.add("product_id", `is empty; give 1 to ${ID_BYTES_MAX} bytes, or a reference_id`);
  }
  violations.optionalId("product_id", productId);
  violations.optionalId("reference_id", referenceId);
  const limit = readPageSize(violations, request.pageSize);
  if (referenceId === "") {
    const beforeVersion = readVersionToken(violations, pageToken);
    violations.throwIfAny();
    return { productId, page: { limit, beforeVersion } };
  }
  const after = readPositionToken(violations, pageToken);
  violations.throwIfAny();
  return { reference: { referenceId, productId: productId || undefined }, page: { limit, after } };
}

/** The token of the page that starts below a version. */
export function versionToken(version: number): string {
  return encodeToken(`version:${version}`);
}

function readVersionToken(violations: Violations, token: string): number | undefined {
  const [, version] = decodeToken(violations, token, /^version:(\d{1,15})$/) ?? [];
  return version === undefined ? undefined : Number(version);
}

/** The token of the page that starts after a change of a reference. */
export function positionToken({ changeTimeMs, version, productId }: ChangePosition): string {
  return encodeToken(`change:${changeTimeMs}:${version}:${productId}`);
}

function readPositionToken(violations: Violations, token: string): ChangePosition | undefined {
  const [, time, version, productId] =
    decodeToken(violations, token, /^change:(\d{1,15}):(\d{1,15}):(.+)$/s) ?? [];
  return productId === undefined
    ? undefined
    : { changeTimeMs: Number(time), version: Number(version), productId };
}
