import { setTimeout as sleep } from "node:timers/promises";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { type Client, Code, ConnectError } from "@connectrpc/connect";
import {
  type ReservationService,
  ReservationState,
  type Shortage_ShortLine,
  ShortageSchema,
} from "./gen/inventory/v1/reservation_pb.ts";
import { OutcomeUnknown, repeat } from "./retry.ts";
import type { Card, FakePayments, OrderBook, Payment } from "./stand-ins.ts";

export interface Shop {
  readonly reservations: Client<typeof ReservationService>;
  readonly orders: OrderBook;
  readonly payments: FakePayments;
}

export interface Order {
  /** Also the reservation ID. A new attempt after `expired` or `cancelled` needs a new one. */
  readonly id: string;
  readonly lines: readonly { readonly productId: string; readonly quantity: number }[];
  readonly card: Card;
  readonly ttlMs: number;
  /** How long the shopper takes to enter the card. */
  readonly pauseMs: number;
}

export type Outcome =
  /** Paid and sold. `revived`: the reservation had expired, and its units were still there. */
  | { readonly outcome: "shipped"; readonly revived: boolean }
  /** Nothing is held, nothing was charged. Show the shopper what is left. */
  | { readonly outcome: "sold_out"; readonly short: readonly ShortLine[] }
  /** A product does not exist or was deleted. Nothing is held, nothing was charged. */
  | { readonly outcome: "unknown_product"; readonly message: string }
  /** The ID was released, or its units were taken back. Nothing was charged, or it was refunded. */
  | { readonly outcome: "cancelled" }
  /** The shopper took too long. Nothing was charged: start again under a new ID. */
  | { readonly outcome: "expired" }
  | { readonly outcome: "declined" }
  /** Charged, but the units were gone: the money was returned. */
  | { readonly outcome: "refunded"; readonly short: readonly ShortLine[] }
  /** Charged, or perhaps charged: the recovery job will finish the order. Do not start another one. */
  | { readonly outcome: "pending" }
  /** The service cannot be reached. Nothing was charged: try again under the same ID. */
  | { readonly outcome: "unavailable" };

type ShortLine = Pick<Shortage_ShortLine, "productId" | "requested" | "available">;

/** Throws a `ConnectError` for a fault of this program, such as a reused ID (ALREADY_EXISTS) or INVALID_ARGUMENT. */
export async function checkout(shop: Shop, order: Order): Promise<Outcome> {
  try {
    return (await reserve(shop, order)) ?? (await pay(shop, order));
  } catch (error) {
    if (!(error instanceof OutcomeUnknown)) throw error;
    // Before the charge, a reservation that was made nevertheless expires by itself.
    return { outcome: shop.orders.stateOf(order.id) === undefined ? "unavailable" : "pending" };
  }
}

/** Resolves with `undefined` if the units are held, else with the outcome. */
async function reserve(shop: Shop, { id, lines, ttlMs }: Order): Promise<Outcome | undefined> {
  const request = { reservationId: id, lines: [...lines], ttl: durationFromMs(ttlMs) };
  try {
    const { reservation } = await repeat((options) => shop.reservations.reserve(request, options));
    // A repetition gets the current state: an earlier attempt, or the recovery job, may have ended the reservation.
    switch (reservation?.state) {
      case ReservationState.COMMITTED:
        // Also of an order that was cancelled later, with its units returned.
        return shop.orders.stateOf(id) === "cancelled"
          ? { outcome: "cancelled" }
          : shipped(shop, id, reservation.revived);
      case ReservationState.RELEASED:
        return { outcome: "cancelled" };
      case ReservationState.EXPIRED:
        return shop.orders.stateOf(id) === "charging"
          ? settle(shop, id, await shop.payments.find(id))
          : { outcome: "expired" };
      default:
        return undefined;
    }
  } catch (reason) {
    const error = refusalOf(reason);
    switch (error.code) {
      case Code.FailedPrecondition: {
        const short = shortLinesOf(error);
        return short === undefined ? { outcome: "cancelled" } : { outcome: "sold_out", short };
      }
      case Code.NotFound:
        return { outcome: "unknown_product", message: error.rawMessage };
      default:
        throw error;
    }
  }
}

async function pay(shop: Shop, { id, card, ttlMs, pauseMs }: Order): Promise<Outcome> {
  const begin = performance.now();
  await sleep(pauseMs);
  // A charge must not begin shortly before the deadline. Measured here, because the deadline is by the store's clock.
  if (performance.now() - begin > ttlMs / 2 && !(await extend(shop, id, ttlMs))) {
    return { outcome: "expired" };
  }
  // Recorded before the charge, so that the recovery job finds the order whenever this process ends.
  shop.orders.record(id, "charging");
  const payment = await shop.payments.charge(id, card).catch(() => shop.payments.find(id));
  return settle(shop, id, payment);
}

/** Resolves with `false` if the reservation has ended. */
async function extend({ reservations }: Shop, id: string, ttlMs: number): Promise<boolean> {
  const request = { reservationId: id, ttl: durationFromMs(ttlMs) };
  try {
    await repeat((options) => reservations.extendReservation(request, options));
    return true;
  } catch (reason) {
    const error = refusalOf(reason);
    if (error.code === Code.FailedPrecondition || error.code === Code.NotFound) return false;
    throw error;
  }
}

/** What follows from a payment, for the checkout and for the recovery job. May be repeated, also by both at once. */
export async function settle(shop: Shop, id: string, payment: Payment): Promise<Outcome> {
  switch (payment) {
    case "charged":
      return commit(shop, id);
    case "declined":
      if (!(await release(shop, id)))
        throw new Error(`Order ${id} is sold although its payment was declined`);
      shop.orders.record(id, "declined");
      return { outcome: "declined" };
    case "refunded":
      // The reservation was released, or its units were returned, before the refund.
      shop.orders.record(id, "refunded");
      return { outcome: "refunded", short: [] };
    case "unknown":
      return { outcome: "pending" };
  }
}

async function commit(shop: Shop, id: string): Promise<Outcome> {
  try {
    const { reservation } = await repeat((options) =>
      shop.reservations.commitReservation({ reservationId: id }, options),
    );
    return shipped(shop, id, reservation?.revived ?? false);
  } catch (reason) {
    const error = refusalOf(reason);
    // With a Shortage: it had expired and its units are sold. Without: it was released. NOT_FOUND: it is forgotten.
    if (error.code !== Code.FailedPrecondition && error.code !== Code.NotFound) throw error;
    return refund(shop, id, shortLinesOf(error) ?? []);
  }
}

/** Releases first: otherwise another job could still commit the expired reservation, if units return to stock. */
async function refund(shop: Shop, id: string, short: readonly ShortLine[]): Promise<Outcome> {
  if (!(await release(shop, id))) return shipped(shop, id, true);
  await shop.payments.refund(id);
  shop.orders.record(id, "refunded");
  return { outcome: "refunded", short };
}

/** Cancels an order at any time: releases what is held, or takes back what was sold. */
export async function cancel(shop: Shop, id: string): Promise<Outcome> {
  if (!(await release(shop, id))) {
    const { reservation } = await repeat((options) =>
      shop.reservations.getReservation({ reservationId: id }, options),
    );
    const request = { reservationId: id, returnId: `${id}-cancelled`, lines: reservation?.lines ?? [] };
    await repeat((options) => shop.reservations.returnReservation(request, options));
  }
  await shop.payments.refund(id);
  // A charge may still be on its way. The recovery job then finds the reservation released, and refunds it.
  const isOpen = shop.orders.stateOf(id) === "charging" && (await shop.payments.find(id)) === "unknown";
  if (!isOpen) shop.orders.record(id, "cancelled");
  return { outcome: "cancelled" };
}

/** Resolves with `false` if the reservation is committed. */
async function release({ reservations }: Shop, id: string): Promise<boolean> {
  try {
    await repeat((options) => reservations.releaseReservation({ reservationId: id }, options));
    return true;
  } catch (reason) {
    const error = refusalOf(reason);
    if (error.code === Code.FailedPrecondition) return false;
    throw error;
  }
}

function shipped(shop: Shop, id: string, revived: boolean): Outcome {
  shop.orders.record(id, "shipped");
  return { outcome: "shipped", revived };
}

/** The service's refusal. Any other error is thrown again. */
function refusalOf(reason: unknown): ConnectError {
  if (!(reason instanceof ConnectError)) throw reason;
  return reason;
}

function shortLinesOf(error: ConnectError): ShortLine[] | undefined {
  const [shortage] = error.findDetails(ShortageSchema);
  return shortage?.lines.map(({ productId, requested, available }) => ({ productId, requested, available }));
}
