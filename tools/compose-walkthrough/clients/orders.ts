/**
 * Orders, in a container of the service's image on the servers' network: reserves and commits one unit at a time over native gRPC,
 * and repeats a call under the same ID until it is answered. For each line on standard input it prints what happened since the
 * line before; at the end of the input it completes the orders that are under way, and prints the last of these.
 *
 *   TOKEN          a token of the role orders
 *   PRODUCT        the product to order
 *   SERVERS        base URLs; another one is used while one does not respond
 */
import { Resolver } from "node:dns/promises";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { ReservationService } from "../../../gen/inventory/v1/reservation_pb.ts";
import type { OrdersReport } from "./report.ts";

const WORKERS = 8;
/** A server that is available responds within 900 ms, if only with a refusal. */
const TIMEOUT_MS = 1_500;
const RETRY_MS = 50;
/** A replaced server has another address within this time, ms. */
const RESOLVE_MS = 500;
/** Pause between two orders of a worker, ms. Keeps the load well below a server's capacity. */
const PAUSE_MS = 100;

const { TOKEN = "", PRODUCT = "", SERVERS = "" } = process.env;
const run = crypto.randomUUID().slice(0, 8);
const urls = SERVERS.split(" ");
const hosts = urls.map((url) => new URL(url).hostname);
const resolver = new Resolver({ timeout: RESOLVE_MS, tries: 1 });
const addresses = new Map<string, string>();
const connect = (baseUrl: string) =>
  createClient(
    ReservationService,
    createGrpcTransport({
      baseUrl,
      nodeOptions: {
        lookup: (host, _, respond) => {
          const address = addresses.get(host);
          if (address === undefined) respond(new Error(`${host} has no known address`), "");
          else respond(null, [{ address, family: 4 }]);
        },
      },
    }),
  );
const clients = urls.map(connect);
const options = () => ({ headers: { authorization: `Bearer ${TOKEN}` }, timeoutMs: TIMEOUT_MS });

let ending = false;
let preferred = 0;
let number = 0;
let lastAckAt = performance.now();
let report = newReport();
let total = 0;

function newReport(): OrdersReport {
  return { orders: 0, total: 0, failedCalls: {}, longestGapMs: 0 };
}

/**
 * Keeps the addresses of the servers up to date, and those of before while the name server does not respond: podman's was seen
 * not to for 30 s, after a change of a container on a busy machine.
 */
async function resolveAll(): Promise<void> {
  await Promise.all(
    hosts.map(async (host) => {
      const [address] = await resolver.resolve4(host).catch(() => []);
      if (address !== undefined) addresses.set(host, address);
    }),
  );
}

/** Calls one server after the other until one answers. */
async function call(
  worker: number,
  send: (client: (typeof clients)[number]) => Promise<unknown>,
): Promise<void> {
  for (;;) {
    const chosen = preferred;
    const [client, url] = [clients[chosen], urls[chosen]];
    if (client === undefined || url === undefined) throw new Error("SERVERS is empty");
    try {
      await send(client);
      return;
    } catch (error) {
      const code = Code[ConnectError.from(error).code];
      report.failedCalls[code] = (report.failedCalls[code] ?? 0) + 1;
      // The server of a connection may be gone without having closed it, like that of a killed container.
      if (clients[chosen] === client) clients[chosen] = connect(url);
      // As gRPC's pick_first: the next one, which is kept while it answers.
      if (preferred === chosen) preferred = (chosen + 1) % clients.length;
      await sleep(RETRY_MS + worker);
    }
  }
}

async function work(worker: number): Promise<void> {
  while (!ending) {
    const reservationId = `${run}-${++number}`;
    const lines = [{ productId: PRODUCT, quantity: 1 }];
    await call(worker, (client) => client.reserve({ reservationId, lines }, options()));
    await call(worker, (client) => client.commitReservation({ reservationId }, options()));
    const now = performance.now();
    report.longestGapMs = Math.max(report.longestGapMs, now - lastAckAt);
    lastAckAt = now;
    report.orders++;
    total++;
    await sleep(PAUSE_MS);
  }
}

function print(): void {
  const longestGapMs = Math.max(report.longestGapMs, performance.now() - lastAckAt);
  process.stdout.write(`${JSON.stringify({ ...report, longestGapMs, total })}\n`);
  report = newReport();
}

await resolveAll();
setInterval(resolveAll, RESOLVE_MS).unref();
const workers = Array.from({ length: WORKERS }, (_, index) => work(index));
for await (const _ of createInterface({ input: process.stdin })) {
  print();
}
ending = true;
await Promise.all(workers);
print();
process.exit(0);
