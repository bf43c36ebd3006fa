import { type Client, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { ReservationService } from "../../gen/inventory/v1/reservation_pb.ts";
import { SupplyService } from "../../gen/inventory/v1/supply_pb.ts";

/** Clients of this server's own API, over gRPC, with the demo's token. */
export interface DemoClients {
  readonly supply: Client<typeof SupplyService>;
  readonly reservations: Client<typeof ReservationService>;
}

export function createDemoClients(url: string, token: string): DemoClients {
  const transport = createGrpcTransport({
    baseUrl: url,
    nodeOptions: { rejectUnauthorized: false },
    interceptors: [
      (next) => (request) => {
        request.header.set("authorization", `Bearer ${token}`);
        return next(request);
      },
    ],
  });
  return {
    supply: createClient(SupplyService, transport),
    reservations: createClient(ReservationService, transport),
  };
}
