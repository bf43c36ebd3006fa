import { once } from "node:events";
import { createServer as createHttp1Server } from "node:http";
import { createServer as createHttp2Server } from "node:http2";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { ReservationService } from "../../../gen/inventory/v1/reservation_pb.ts";
import { StockService } from "../../../gen/inventory/v1/stock_pb.ts";
import { Inventory } from "../../../gen/inventory_pb.ts";
import { toStock } from "../../../server/api/messages.ts";
import { reservationService } from "../../../server/api/reservation-service.ts";
import { legacyInventory, stockService } from "../../../server/api/stock-service.ts";
import { openLiveStore } from "./store.ts";

// The service's handlers and store behind connect-node's own adapter. WatchStock is a generator as Connect's
// documentation shows it: one promise for the next change, and a message for each watcher. PROTOCOL is h1 or h2.

const { store, live } = await openLiveStore();
const { mirror } = live;

let nextChange = Promise.withResolvers<void>();
mirror.on("change", () => {
  nextChange.resolve();
  nextChange = Promise.withResolvers();
});

const handler = connectNodeAdapter({
  routes: (router) => {
    router.service(Inventory, legacyInventory(live));
    router.service(StockService, stockService(live));
    router.service(ReservationService, reservationService(store.reservations, live.soldOut));
    router.rpc(StockService.method.watchStock, async function* ({ productIds }, { signal }) {
      while (!signal.aborted) {
        const changed = nextChange.promise;
        const states = productIds
          .map((productId) => mirror.get(productId))
          .filter((state) => state !== undefined);
        yield { stocks: states.map(toStock) };
        await changed;
      }
    });
  },
});

const server = process.env["PROTOCOL"] === "h1" ? createHttp1Server(handler) : createHttp2Server(handler);
server.listen(Number(process.env["PORT"]), "127.0.0.1");
await once(server, "listening");
