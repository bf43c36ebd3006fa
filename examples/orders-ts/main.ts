import { parseArgs } from "node:util";
import { Code, ConnectError, createClient, type Interceptor } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { cancel, checkout, type Shop } from "./checkout.ts";
import { BadRequestSchema } from "./gen/google/rpc/error_details_pb.ts";
import { ReservationService } from "./gen/inventory/v1/reservation_pb.ts";
import { recover } from "./recovery.ts";
import { OutcomeUnknown } from "./retry.ts";
import { type Card, FakePayments, OrderBook } from "./stand-ins.ts";

const USAGE = `Usage:
  checkout [--card good|declined|timeout|lost|crash] [--ttl-ms N] [--pause-ms N] ORDER PRODUCT:QUANTITY...
  cancel ORDER
  recover`;

const { INVENTORY_URL, INVENTORY_TOKEN, SHOP_DIR } = process.env;

const authenticate: Interceptor = (next) => (request) => {
  if (INVENTORY_TOKEN) request.header.set("authorization", `Bearer ${INVENTORY_TOKEN}`);
  return next(request);
};

const transport = createGrpcTransport({
  baseUrl: INVENTORY_URL || "http://127.0.0.1:8080",
  interceptors: [authenticate],
  // Finds a server whose machine was lost, which does not close its connections.
  pingIntervalMs: 10_000,
  pingTimeoutMs: 1_000,
  // Closes an unused connection soon, so that this program ends.
  idleConnectionTimeoutMs: 100,
});

const dir = SHOP_DIR || "shop-data";
const shop: Shop = {
  reservations: createClient(ReservationService, transport),
  orders: new OrderBook(dir),
  payments: new FakePayments(dir),
};

try {
  await main();
} catch (error) {
  if (error instanceof ConnectError) reportRefusal(error);
  else if (error instanceof OutcomeUnknown) print({ outcome: "unavailable" });
  else throw error;
  process.exitCode = 1;
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      card: { type: "string", default: "good" },
      "ttl-ms": { type: "string", default: "600000" },
      "pause-ms": { type: "string", default: "0" },
    },
  });
  const [command, id = "", ...items] = positionals;
  if (command === "checkout" && id !== "") {
    const lines = items.map(lineOf);
    const [ttlMs, pauseMs] = [Number(values["ttl-ms"]), Number(values["pause-ms"])];
    print(await checkout(shop, { id, lines, card: values.card as Card, ttlMs, pauseMs }));
  } else if (command === "cancel" && id !== "") {
    print(await cancel(shop, id));
  } else if (command === "recover") {
    for await (const [orderId, outcome] of recover(shop)) print({ orderId, ...outcome });
  } else {
    console.error(USAGE);
    process.exitCode = 2;
  }
}

function lineOf(item: string): { productId: string; quantity: number } {
  const [, productId = "", quantity] = /^(.+):(\d+)$/.exec(item) ?? [];
  if (quantity === undefined) throw new Error(`${item} is not PRODUCT:QUANTITY`);
  return { productId, quantity: Number(quantity) };
}

function print(result: object): void {
  console.log(JSON.stringify(result));
}

/** A refusal that no shopper can cause: report it to people. BadRequest names the fields. */
function reportRefusal(error: ConnectError): void {
  const fields = error.findDetails(BadRequestSchema).flatMap(({ fieldViolations }) => fieldViolations);
  const violations = fields.map(({ field, description }) => `${field} ${description}`);
  print({ outcome: "bug", code: Code[error.code], message: error.rawMessage, violations });
}
