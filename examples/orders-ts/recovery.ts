import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { type Outcome, type Shop, settle } from "./checkout.ts";
import { OutcomeUnknown, repeat } from "./retry.ts";

const PAGE_SIZE = 100;

/** How far ahead of their deadlines reservations are looked at. The job runs more often than that. */
const HORIZON_MS = 2 * 60_000;

/** `failed`: this order needs a person; the job continues with the next one. */
export type Recovered = Outcome | { readonly outcome: "failed"; readonly message: string };

/**
 * Finishes the orders of checkouts that did not: those whose reservations expire soon, while their units are still held, and
 * then those that expired already, which ListReservations does not list. A reservation without a payment is left to expire.
 * May run at any time, also twice at once. Yields each order with its outcome.
 */
export async function* recover(shop: Shop): AsyncGenerator<readonly [orderId: string, Recovered]> {
  const expireBefore = timestampFromMs(Date.now() + HORIZON_MS);
  const done = new Set<string>();
  let pageToken = "";
  do {
    const request = { pageSize: PAGE_SIZE, pageToken, expireBefore };
    const page = await repeat((options) => shop.reservations.listReservations(request, options));
    for (const { reservationId } of page.reservations) {
      // No payment: the shopper is still paying, or has left.
      if ((await shop.payments.find(reservationId)) === "unknown") continue;
      done.add(reservationId);
      yield [reservationId, await finish(shop, reservationId)];
    }
    pageToken = page.nextPageToken;
  } while (pageToken !== "");
  for (const orderId of shop.orders.unfinished().filter((each) => !done.has(each))) {
    yield [orderId, await finish(shop, orderId)];
  }
}

async function finish(shop: Shop, orderId: string): Promise<Recovered> {
  try {
    return await settle(shop, orderId, await shop.payments.find(orderId));
  } catch (error) {
    if (error instanceof OutcomeUnknown) return { outcome: "pending" };
    return { outcome: "failed", message: String(error) };
  }
}
