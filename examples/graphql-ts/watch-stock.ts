import { setTimeout as sleep } from "node:timers/promises";
import { durationMs } from "@bufbuild/protobuf/wkt";
import { type Client, Code, ConnectError } from "@connectrpc/connect";
import type { StockService, WatchStockResponse } from "./gen/inventory/v1/stock_pb.ts";
import { type RemainingStock, toGraphQlError, toRemainingStock } from "./remaining-stock.ts";

export interface StockChange {
  readonly productId: string;
  /** `null`: deleted, or unknown. */
  readonly remainingStock: RemainingStock | null;
}

/** The service sends a message at least every 10 seconds (WATCH_HEARTBEAT_MS). A stream without one is dead. */
const SILENCE_MS_MAX = 25_000;
const BACKOFF_FIRST_MS = 500;
const BACKOFF_MS_MAX = 10_000;
/** Added to the delay that the service asks for. */
const RECONNECT_JITTER = 0.2;

/**
 * Yields the state of the products, then their changes, until the signal is aborted. Reconnects by itself. While the service
 * is unreachable, or says that its store is, the last known states are yielded once more, marked as stale. Throws if the
 * service refuses the request.
 */
export async function* watchStock(
  stock: Client<typeof StockService>,
  productIds: readonly string[],
  signal: AbortSignal,
): AsyncGenerator<StockChange[]> {
  const view = new StockView();
  for (let failures = 0; !signal.aborted; ) {
    const silence = new AbortController();
    const watchdog = setTimeout(() => silence.abort(), SILENCE_MS_MAX);
    let reconnectAfterMs: number | undefined;
    try {
      const options = { signal: AbortSignal.any([signal, silence.signal]) };
      for await (const message of stock.watchStock({ productIds: [...productIds] }, options)) {
        watchdog.refresh();
        failures = 0;
        reconnectAfterMs = message.reconnectAfter && durationMs(message.reconnectAfter);
        const changes = view.apply(message);
        if (changes.length > 0) yield changes;
      }
    } catch (reason) {
      if (!(reason instanceof ConnectError)) throw reason;
      if (reason.code === Code.InvalidArgument) throw toGraphQlError(reason);
    } finally {
      clearTimeout(watchdog);
    }
    if (signal.aborted) return;
    if (reconnectAfterMs === undefined) {
      failures += 1;
      const changes = view.markStale();
      if (changes.length > 0) yield changes;
    }
    await sleep(delayMs(failures, reconnectAfterMs), undefined, { signal }).catch(() => undefined);
  }
}

function delayMs(failures: number, reconnectAfterMs: number | undefined): number {
  if (reconnectAfterMs !== undefined) return reconnectAfterMs * (1 + Math.random() * RECONNECT_JITTER);
  return Math.random() * Math.min(BACKOFF_MS_MAX, BACKOFF_FIRST_MS * 2 ** failures);
}

/** What a subscriber knows of its products. Turns messages into the changes that are new to it. */
class StockView {
  readonly #known = new Map<string, RemainingStock | null>();

  apply({ stocks, removedProductIds, stale }: WatchStockResponse): StockChange[] {
    const changed = new Set<string>();
    for (const each of stocks) {
      const known = this.#known.get(each.productId);
      // After a reconnection another server may be behind the one before.
      if (known && known.version >= each.version) continue;
      this.#known.set(each.productId, toRemainingStock(each, stale));
      changed.add(each.productId);
    }
    for (const productId of removedProductIds) {
      if (this.#known.get(productId) === null) continue;
      this.#known.set(productId, null);
      changed.add(productId);
    }
    for (const productId of this.#setStale(stale)) changed.add(productId);
    return this.#changesOf(changed);
  }

  markStale(): StockChange[] {
    return this.#changesOf(this.#setStale(true));
  }

  /** Returns the products whose mark has changed. */
  #setStale(stale: boolean): Set<string> {
    const changed = new Set<string>();
    for (const [productId, state] of this.#known) {
      if (state === null || state.stale === stale) continue;
      this.#known.set(productId, { ...state, stale });
      changed.add(productId);
    }
    return changed;
  }

  #changesOf(productIds: Iterable<string>): StockChange[] {
    return [...productIds].map((productId) => ({
      productId,
      remainingStock: this.#known.get(productId) ?? null,
    }));
  }
}
