import { setTimeout as pause } from "node:timers/promises";
import { Code, ConnectError } from "@connectrpc/connect";
import type { Logger } from "pino";
import { DEMO_CATALOG, DEMO_COLLECTIONS } from "./catalog.ts";
import type { DemoClients } from "./clients.ts";

/** Interval between two shoppers, ms. */
const SHOPPER_INTERVAL_MS = 600;
/** Average time from the reservation to the payment, ms. */
const CHECKOUT_MS = 2_500;
/** Time to live of a reservation, s: abandoned ones expire after it. */
const HOLD_SECONDS = 6n;
/** Average number of units of a delivery, which follows when a product is sold out. */
const DELIVERY_UNITS = 20;
/** Concurrent checkouts, a bound for a slow server. */
const CHECKOUTS_MAX = 20;

export interface Demo {
  /** Stops the traffic, and waits for pending calls. */
  stop(): Promise<void>;
}

/**
 * Creates the demo catalog and simulates shoppers, all through the server's own API over gRPC, as
 * Orders would: reserve, then commit, release, or let the reservation expire.
 */
export async function startDemo(
  { supply, reservations }: DemoClients,
  log: Logger,
  hasShoppers = true,
): Promise<Demo> {
  const ending = new AbortController();
  const options = { signal: ending.signal };
  const checkouts = new Set<Promise<void>>();

  for (const collection of DEMO_COLLECTIONS) {
    await supply.putCollection({ collection });
  }
  for (const { productId, declared, details } of DEMO_CATALOG) {
    await supply.putProduct({ productId, declared, product: { ...details } });
  }

  const shop = async (): Promise<void> => {
    const reservationId = crypto.randomUUID();
    const productId = pick(DEMO_CATALOG).productId;
    const lines = [{ productId, quantity: upTo(3) }];
    try {
      await reservations.reserve({ reservationId, lines, ttl: { seconds: HOLD_SECONDS } }, options);
    } catch (error) {
      if (ConnectError.from(error).code === Code.FailedPrecondition) {
        const delivery = { productId, delta: upTo(2 * DELIVERY_UNITS), adjustmentId: reservationId };
        await supply.adjustStock({ ...delivery, reason: "demo delivery" }, options);
        return;
      }
      throw error;
    }
    await pause(upTo(2 * CHECKOUT_MS), undefined, options);
    const choice = Math.random();
    if (choice < 0.6) {
      await reservations.commitReservation({ reservationId }, options);
    } else if (choice < 0.85) {
      await reservations.releaseReservation({ reservationId }, options);
    }
    // The other reservations are abandoned and expire.
  };

  const timer = setInterval(() => {
    if (!hasShoppers || checkouts.size >= CHECKOUTS_MAX) {
      return;
    }
    const checkout = shop().catch((error: unknown) => {
      if (!ending.signal.aborted) {
        log.debug({ err: error }, "A call of the demo failed");
      }
    });
    checkouts.add(checkout);
    void checkout.finally(() => checkouts.delete(checkout));
  }, SHOPPER_INTERVAL_MS);

  return {
    stop: async () => {
      clearInterval(timer);
      ending.abort();
      await Promise.all(checkouts);
    },
  };
}

function pick<T>(items: readonly T[]): T {
  const item = items[Math.floor(Math.random() * items.length)];
  if (item === undefined) {
    throw new RangeError("Cannot pick from an empty list");
  }
  return item;
}

/** A random whole number from 1 to `max`. */
function upTo(max: number): number {
  return Math.ceil(Math.random() * max);
}
