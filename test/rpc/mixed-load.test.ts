import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { Agent } from "node:http";
import { describe, it } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import { inspect } from "node:util";
import { Code, ConnectError, createClient, type Transport } from "@connectrpc/connect";
import { createConnectTransport as createNodeTransport } from "@connectrpc/connect-node";
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-web";
import { StockService } from "../../gen/inventory/v1/stock_pb.ts";
import { SupplyService } from "../../gen/inventory/v1/supply_pb.ts";
import { Inventory } from "../../gen/inventory_pb.ts";
import { startAppProcess } from "../support/app.ts";
import { grpcJsTransport } from "../support/grpc-js-transport.ts";
import { need } from "../support/programs.ts";
import { startRedis } from "../support/redis-server.ts";

const PRODUCTS = 20;
/** Sockets of each HTTP/1.1 client. */
const SOCKETS = 24;
/** Calls that start in one turn of the event loop. During a turn of seconds, fetch's connections would time out. */
const CALLS_PER_TURN = 100;
const DECLARED = 100;

/** One call. Its kind decides the expected code. */
interface TestCall {
  readonly kind: "get" | "stock" | "batch" | "ledger" | "adjust" | "unknown" | "invalid" | "short";
  readonly productId: string;
  readonly adjustmentId: string;
}

const EXPECTED: Readonly<Record<TestCall["kind"], Code | "OK">> = {
  get: "OK",
  stock: "OK",
  batch: "OK",
  ledger: "OK",
  adjust: "OK",
  unknown: Code.NotFound,
  invalid: Code.InvalidArgument,
  short: Code.FailedPrecondition,
};
const KINDS = Object.keys(EXPECTED) as readonly TestCall["kind"][];

/** Calls in one protocol. Resolves with the number of units, or rejects with a `ConnectError`. */
type Caller = (call: TestCall) => Promise<number | undefined>;

function byConnect(transport: Transport): Caller {
  const inventory = createClient(Inventory, transport);
  const stock = createClient(StockService, transport);
  const supply = createClient(SupplyService, transport);
  return async ({ kind, productId, adjustmentId }) => {
    switch (kind) {
      case "get":
        return Number((await inventory.get({ id: productId })).count);
      case "unknown":
        return Number((await inventory.get({ id: "unknown" })).count);
      case "invalid":
        return Number((await inventory.get({ id: "" })).count);
      case "stock":
        return (await stock.getStock({ productId })).stock?.available;
      case "batch":
        return (await stock.batchGetStock({ productIds: [productId, "unknown"] })).stocks[0]?.available;
      case "ledger":
        return (await supply.getLedger({ productId })).ledger?.onHand;
      case "adjust":
        return (await supply.adjustStock({ productId, delta: 1, adjustmentId })).ledger?.onHand;
      case "short":
        return (await supply.adjustStock({ productId, delta: -1_000_000, adjustmentId })).ledger?.onHand;
    }
  };
}

/** Node's fetch opens one connection per request in flight. This one has at most `most` requests in flight. */
function boundedFetch(most: number): typeof fetch {
  const waiting: (() => void)[] = [];
  let free = most;
  return async (input, init) => {
    if (free > 0) {
      free -= 1;
    } else {
      await new Promise<void>((resolve) => waiting.push(resolve));
    }
    try {
      const response = await fetch(input, init);
      // Read to its end, so that the connection is free before the next request starts.
      const body = await response.arrayBuffer();
      return new Response(body, { status: response.status, headers: response.headers });
    } finally {
      const next = waiting.shift();
      if (next) {
        next();
      } else {
        free += 1;
      }
    }
  };
}

async function outcomeOf(caller: Caller, call: TestCall): Promise<string | undefined> {
  const expected = EXPECTED[call.kind];
  try {
    const units = await caller(call);
    if (expected !== "OK") return `${call.kind} returned ${units}`;
    // Counts only grow here, and never beyond one for each call.
    const sane = units !== undefined && units >= DECLARED && units <= DECLARED + 2_000;
    return sane ? undefined : `${call.kind} returned ${units} units`;
  } catch (error) {
    const { code, message, cause } = ConnectError.from(error);
    return code === expected ? undefined : `${call.kind} failed: ${inspect({ message, cause })}`;
  }
}

async function runMixedLoad(count: number, environment: NodeJS.ProcessEnv): Promise<void> {
  await using app = await startAppProcess(environment);
  const agent = new Agent({ keepAlive: true, maxSockets: SOCKETS });
  using grpc = grpcJsTransport(app.address);
  try {
    const baseUrl = app.url;
    const callers: Readonly<Record<string, Caller>> = {
      gRPC: byConnect(grpc),
      "gRPC-Web": byConnect(createGrpcWebTransport({ baseUrl, fetch: boundedFetch(SOCKETS) })),
      "JSON by POST": byConnect(createNodeTransport({ baseUrl, httpVersion: "1.1", nodeOptions: { agent } })),
      "JSON by GET": byConnect(
        createConnectTransport({ baseUrl, useHttpGet: true, fetch: boundedFetch(SOCKETS) }),
      ),
    };
    const names = Object.keys(callers);
    const products = Array.from({ length: PRODUCTS }, (_, n) => `mixed-${n}`);
    const supply = createClient(SupplyService, createConnectTransport({ baseUrl }));
    for (const productId of products) {
      await supply.putProduct({ productId, declared: DECLARED });
    }

    const adjusted = new Map<string, number>();
    const startCall = async (n: number): Promise<string | undefined> => {
      const name = names[n % names.length] ?? "";
      const kind = KINDS[Math.floor(n / names.length) % KINDS.length] ?? "get";
      const productId = products[Math.floor(n / (names.length * KINDS.length)) % products.length] ?? "";
      if (kind === "adjust") adjusted.set(productId, (adjusted.get(productId) ?? 0) + 1);
      const caller = callers[name];
      assert.ok(caller);
      const wrong = await outcomeOf(caller, { kind, productId, adjustmentId: randomUUID() });
      return wrong && `${name}: ${wrong}`;
    };
    const calls: Promise<string | undefined>[] = [];
    while (calls.length < count) {
      calls.push(startCall(calls.length));
      if (calls.length % CALLS_PER_TURN === 0) await nextTurn();
    }
    const wrong = (await Promise.all(calls)).filter((outcome) => outcome !== undefined);
    const log = (await app.output()).split("\n").filter((line) => /^\{"level":[456]0/.test(line));
    const report = [
      `${wrong.length} calls had an unexpected outcome`,
      ...wrong.slice(0, 5),
      ...log.slice(0, 5),
    ];
    assert.ok(wrong.length === 0, report.join("\n"));
    assert.deepEqual(
      log.filter((line) => !line.startsWith('{"level":40')),
      [],
    );

    for (const productId of products) {
      const { ledger } = await supply.getLedger({ productId });
      assert.equal(ledger?.onHand, DECLARED + (adjusted.get(productId) ?? 0), "each adjustment counts once");
    }
  } finally {
    agent.destroy();
  }
}

describe("concurrent calls of gRPC, gRPC-Web and JSON on one port have the expected outcomes", () => {
  const redis = need("redis-server");

  it("2,000 on the Redis store", { skip: redis.missing }, async () => {
    // Without an append-only file, so that a slow disk causes no errors.
    await using server = await startRedis({ appendonly: "no" });
    await runMixedLoad(2_000, { REDIS_URL: server.url });
  });

  const calls = redis.missing ? 2_000 : 640;
  it(`${calls.toLocaleString("en")} on the memory store`, () => runMixedLoad(calls, {}));
});
