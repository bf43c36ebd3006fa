import { type Duration, type Timestamp, timestampMs } from "@bufbuild/protobuf/wkt";
import type {
  CommitReservationRequest,
  ExtendReservationRequest,
  Line as LineMessage,
  ListReservationsRequest,
  ReserveRequest as ReserveMessage,
  ReturnReservationRequest,
} from "../../gen/inventory/v1/reservation_pb.ts";
import { QUANTITY_MAX } from "../inventory/ledger.ts";
import { violationsOfTotal } from "../inventory/refusals.ts";
import {
  type Line,
  RESERVATION_LINES_MAX,
  RESERVATION_TTL_MS_DEFAULT,
  RESERVATION_TTL_MS_MAX,
  RESERVATION_TTL_MS_MIN,
  type ReservationPosition,
  sumLines,
} from "../inventory/reservation.ts";
import type { CommitRequest, ReservationsPage, ReserveRequest, ReturnRequest } from "../inventory/store.ts";
import { Violations } from "../inventory/validation.ts";
import { decodeToken, encodeToken, readDuration, readPageSize, readTime } from "./fields.ts";

export function readReserve(request: ReserveMessage, actor: string): ReserveRequest {
  const violations = new Violations();
  violations.id("reservation_id", request.reservationId);
  const lines = readLines(violations, request.lines, 1);
  const ttlMs = readTtl(violations, request.ttl);
  violations.throwIfAny();
  return { reservationId: request.reservationId, lines, ttlMs, actor };
}

export function readCommit(request: CommitReservationRequest, actor: string): CommitRequest {
  const violations = new Violations();
  violations.id("reservation_id", request.reservationId);
  const lines = readLines(violations, request.lines, 0);
  violations.throwIfAny();
  return {
    reservationId: request.reservationId,
    lines: lines.length === 0 ? undefined : lines,
    strict: request.strict,
    actor,
  };
}

export function readExtend(request: ExtendReservationRequest): { reservationId: string; ttlMs: number } {
  const violations = new Violations();
  violations.id("reservation_id", request.reservationId);
  const ttlMs = readTtl(violations, request.ttl);
  violations.throwIfAny();
  return { reservationId: request.reservationId, ttlMs };
}

export function readReturn(request: ReturnReservationRequest, actor: string): ReturnRequest {
  const violations = new Violations();
  violations.id("reservation_id", request.reservationId);
  violations.id("return_id", request.returnId);
  const lines = readLines(violations, request.lines, 1);
  violations.throwIfAny();
  return { reservationId: request.reservationId, returnId: request.returnId, lines, actor };
}

/** `productId` is empty without that filter. */
export function readListReservations(
  request: ListReservationsRequest,
): ReservationsPage & { readonly productId: string } {
  const violations = new Violations();
  const limit = readPageSize(violations, request.pageSize);
  const after = readReservationToken(violations, request.pageToken);
  const expireBeforeMs = readDeadline(violations, request.expireBefore);
  violations.optionalId("product_id", request.productId);
  violations.throwIfAny();
  return { limit, after, expireBeforeMs, productId: request.productId };
}

/** The token of the page that starts after a position. */
export function reservationToken({ expireTimeMs, reservationId }: ReservationPosition): string {
  return encodeToken(`reservation:${expireTimeMs}:${reservationId}`);
}

function readReservationToken(violations: Violations, token: string): ReservationsPage["after"] {
  const [, deadline, reservationId] = decodeToken(violations, token, /^reservation:(\d{1,15}):(.+)$/s) ?? [];
  return deadline !== undefined && reservationId !== undefined
    ? { expireTimeMs: Number(deadline), reservationId }
    : undefined;
}

/** The lines as sent. The sum of the lines of a product is bounded as well. */
function readLines(violations: Violations, sent: readonly LineMessage[], countMin: number): Line[] {
  if (sent.length < countMin || sent.length > RESERVATION_LINES_MAX) {
    violations.add("lines", `has ${sent.length} entries; give ${countMin} to ${RESERVATION_LINES_MAX}`);
    return [];
  }
  const lines = sent.map(({ productId, quantity }, index) => {
    violations.id(`lines[${index}].product_id`, productId);
    return { productId, quantity: violations.integer(`lines[${index}].quantity`, quantity, 1) };
  });
  for (const { productId, quantity } of sumLines(lines)) {
    if (quantity > QUANTITY_MAX) {
      violations.addAll(violationsOfTotal(lines, productId, `the maximum is ${QUANTITY_MAX}`));
    }
  }
  return lines;
}

function readTtl(violations: Violations, ttl: Duration | undefined): number {
  return ttl === undefined
    ? RESERVATION_TTL_MS_DEFAULT
    : Math.ceil(readDuration(violations, "ttl", ttl, RESERVATION_TTL_MS_MIN, RESERVATION_TTL_MS_MAX));
}

/** ms since 1970, rounded up: deadlines have whole milliseconds, so the same reservations are listed. */
function readDeadline(violations: Violations, time: Timestamp | undefined): number | undefined {
  readTime(violations, "expire_before", time);
  return time && Math.ceil(timestampMs(time));
}
