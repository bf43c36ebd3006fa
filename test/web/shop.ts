import { createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { ReservationService } from "../../gen/inventory/v1/reservation_pb.ts";
import { SupplyService } from "../../gen/inventory/v1/supply_pb.ts";

/** A product of a test. */
export interface TestProduct {
  readonly productId: string;
  readonly declared: number;
  readonly name: string;
  readonly price?: number;
  readonly collectionId?: string;
  readonly description?: string;
}

/** Changes the stock over native gRPC, as other services would. */
export interface Shop {
  readonly put: (...products: readonly TestProduct[]) => Promise<void>;
  readonly reserve: (productId: string, quantity: number) => Promise<void>;
  readonly adjust: (productId: string, delta: number) => Promise<void>;
  readonly remove: (productId: string) => Promise<void>;
  /** Closes the connection, which would keep the test's process alive. */
  readonly close: () => void;
}

export function shopAt(url: string): Shop {
  const sessionManager = new Http2SessionManager(url);
  const transport = createGrpcTransport({ baseUrl: url, sessionManager });
  const supply = createClient(SupplyService, transport);
  const reservations = createClient(ReservationService, transport);
  return {
    async put(...products) {
      await Promise.all(
        products.map(({ productId, declared, name, price = 10, collectionId = "", description = "" }) =>
          supply.putProduct({ productId, declared, product: { name, price, collectionId, description } }),
        ),
      );
    },
    async reserve(productId, quantity) {
      await reservations.reserve({
        reservationId: crypto.randomUUID(),
        lines: [{ productId, quantity }],
        ttl: { seconds: 600n },
      });
    },
    async adjust(productId, delta) {
      await supply.adjustStock({ productId, delta, adjustmentId: crypto.randomUUID(), reason: "test" });
    },
    async remove(productId) {
      await supply.deleteProduct({ productId });
    },
    close: () => sessionManager.abort(),
  };
}

/** Six products: in stock, low stock, sold out. */
export const SMALL_SHOP: readonly TestProduct[] = [
  { productId: "mug", name: "Enamel Mug", declared: 120, price: 14, collectionId: "kitchen" },
  { productId: "bowl", name: "Stoneware Bowl", declared: 45, price: 28, collectionId: "kitchen" },
  { productId: "pan", name: "Carbon Steel Pan", declared: 4, price: 59, collectionId: "kitchen" },
  { productId: "pen", name: "Fountain Pen", declared: 16, price: 48, collectionId: "desk" },
  { productId: "lamp", name: "Desk Lamp", declared: 8, price: 110, collectionId: "desk" },
  { productId: "mat", name: "Wool Felt Mat", declared: 0, price: 39, collectionId: "desk" },
];
