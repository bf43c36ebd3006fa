import { type Duration, durationMs, type Timestamp, timestampMs } from "@bufbuild/protobuf/wkt";
import type {
  CommitReservationRequest,
  ExtendReservationRequest,
  Line as LineMessage,
  ListReservationsRequest,
  ReserveRequest as ReserveMessage,
  ReturnReservationRequest,
} from "../../gen/inventory/v1/reservation_pb.ts";
import { QUANTITY_MAX } from "../inventory/ledger.ts";
import {
  type Line,
  RESERVATION_LINES_MAX,
  RESERVATION_TTL_MS_DEFAULT,
  RESERVATION_TTL_MS_MAX,
  RESERVATION_TTL_MS_MIN,
  type Reservation,
  sumLines,
} from "../inventory/reservation.ts";
import type { CommitRequest, ReservationsPage, ReserveRequest, ReturnRequest } from "../inventory/store.ts";
import { show, Violations } from "../inventory/validation.ts";
import { decodeToken, encodeToken, readPageSize, readTime } from "./fields.ts";

export function readReserve(request: ReserveMessage): ReserveRequest {
  const violations = new Violations();
  violations.id("reservation_id", request.reservationId);
  const lines = readLines(violations, request.lines, 1);
  const ttlMs = readTtl(violations, request.ttl);
  violations.throwIfAny();
  return { reservationId: request.reservationId, lines, ttlMs };
}

export function readCommit(request: CommitReservationRequest): CommitRequest {
  const violations = new Violations();
  violations.id("reservation_id", request.reservationId);
  const lines = readLines(violations, request.lines, 0);
  violations.throwIfAny();
  return {
    reservationId: request.reservationId,
    lines: lines.length === 0 ? undefined : lines,
    strict: request.strict,
  };
}

export function readExtend(request: ExtendReservationRequest): { reservationId: string; ttlMs: number } {
  const violations = new Violations();
  violations.id("reservation_id", request.reservationId);
  const ttlMs = readTtl(violations, request.ttl);
  violations.throwIfAny();
  return { reservationId: request.reservationId, ttlMs };
}

export function readReturn(request: ReturnReservationRequest): ReturnRequest {
  const violations = new Violations();
  violations.id("reservation_id", request.reservationId);
  violations.id("return_id", request.returnId);
  const lines = readLines(violations, request.lines, 1);
  violations.throwIfAny();
  return { reservationId: request.reservationId, returnId: request.returnId, lines };
}

export function readListReservations(request: ListReservationsRequest): ReservationsPage {
  const violations = new Violations();
  const limit = readPageSize(violations, request.pageSize);
  const after = readReservationToken(violations, request.pageToken);
  const expireBeforeMs = readDeadline(violations, request.expireBefore);
  violations.throwIfAny();
  return { limit, after, expireBeforeMs };
}

/** The token of the page that starts after a reservation. */
export function reservationToken(last: Reservation): string {
  return encodeToken(`reservation:${last.expireTimeMs}:${last.reservationId}`);
}

function readReservationToken(violations: Violations, token: string): ReservationsPage["after"] {
  const [, deadline, reservationId] = decodeToken(violations, token, /^reservation:(\d{1,15}):(.+)$/s) ?? [];
  return deadline !== undefined && reservationId !== undefined
    ? { expireTimeMs: Number(deadline), reservationId }
    : undefined;
}

/** The lines summed by product. */
function readLines(violations: Violations, lines: readonly LineMessage[], countMin: number): Line[] {
  if (lines.length < countMin || lines.length > RESERVATION_LINES_MAX) {
    violations.add("lines", `has ${lines.length} entries; give ${countMin} to ${RESERVATION_LINES_MAX}`);
    return [];
  }
  for (const [index, line] of lines.entries()) {
    violations.id(`lines[${index}].product_id`, line.productId);
    violations.integer(`lines[${index}].quantity`, line.quantity, 1);
  }
  const summed = sumLines(lines);
  for (const { productId, quantity } of summed) {
    if (quantity > QUANTITY_MAX) {
      violations.add(
        "lines",
        `has ${quantity} of ${show(productId)} in total; the maximum is ${QUANTITY_MAX}`,
      );
    }
  }
  return summed;
}

function readTtl(violations: Violations, ttl: Duration | undefined): number {
  if (ttl === undefined) {
    return RESERVATION_TTL_MS_DEFAULT;
  }
  const ms = Math.ceil(durationMs(ttl));
  if (!(ms >= RESERVATION_TTL_MS_MIN && ms <= RESERVATION_TTL_MS_MAX)) {
    violations.add(
      "ttl",
      `is ${durationMs(ttl) / 1_000} s; give ${RESERVATION_TTL_MS_MIN / 1_000} to ${RESERVATION_TTL_MS_MAX / 1_000} s`,
    );
  }
  return ms;
}

function readDeadline(violations: Violations, time: Timestamp | undefined): number | undefined {
  readTime(violations, "expire_before", time);
  return time && Math.ceil(timestampMs(time));
}
