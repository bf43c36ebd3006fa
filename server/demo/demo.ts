import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import type { Logger } from "pino";
import { SupplyService } from "../../gen/inventory/v1/supply_pb.ts";
import { DEMO_CATALOG } from "./catalog.ts";

/** Between two events of the demo: slow enough to follow, quick enough to look alive. */
const EVENT_INTERVAL_MS = 700;
/** When the shelf of a product is empty, its seller sends this many on average. */
const RESTOCK_UNITS = 30;

/**
 * Fills the shop with the demo catalog and lets counts move, all through the server's own API over
 * gRPC, as sellers and shoppers would.
 */
export async function startDemo(url: string, log: Logger): Promise<{ stop(): Promise<void> }> {
  const ending = new AbortController();
  const transport = createGrpcTransport({ baseUrl: url, nodeOptions: { rejectUnauthorized: false } });
  const supply = createClient(SupplyService, transport);
  for (const { productId, declared, details } of DEMO_CATALOG) {
    await supply.putProduct({ productId, declared, product: { ...details } });
  }

  const sellOrRestock = async (): Promise<void> => {
    const product = DEMO_CATALOG[Math.floor(Math.random() * DEMO_CATALOG.length)];
    if (product === undefined) {
      return;
    }
    const { productId } = product;
    const { ledger } = await supply.getLedger({ productId }, { signal: ending.signal });
    const left = ledger?.onHand ?? 0;
    const delta =
      left === 0
        ? Math.ceil(Math.random() * 2 * RESTOCK_UNITS)
        : -Math.min(left, Math.ceil(Math.random() * 3));
    await supply.adjustStock(
      {
        productId,
        delta,
        adjustmentId: crypto.randomUUID(),
        reason: delta > 0 ? "demo delivery" : "demo sale",
      },
      { signal: ending.signal },
    );
  };
  const timer = setInterval(() => {
    sellOrRestock().catch((error: unknown) => {
      if (!ending.signal.aborted) {
        log.debug({ err: error }, "A demo event failed; the next one follows");
      }
    });
  }, EVENT_INTERVAL_MS);

  return {
    stop: async () => {
      clearInterval(timer);
      ending.abort();
    },
  };
}
