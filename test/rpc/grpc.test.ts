import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { connect } from "node:http2";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { Client, type ClientOptions, credentials, Metadata, type ServiceError, status } from "@grpc/grpc-js";
import { fromJSON, loadSync, type PackageDefinition } from "@grpc/proto-loader";
import { pino } from "pino";
import { startTestApp, type TestApp } from "../support/app.ts";
import { callUnary, methodOf, type UnaryOptions } from "../support/grpc-contract.ts";
import { need } from "../support/programs.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";
import { until } from "../support/until.ts";

// Uses the protos only, as a caller in another language does: nothing of gen/ is imported here.

const PROTO = join(import.meta.dirname, "../../proto");
const LOADER_OPTIONS = { keepCase: true, longs: String, enums: String, defaults: true };
const contract = loadSync(
  [
    "inventory.proto",
    "inventory/v1/stock.proto",
    "inventory/v1/supply.proto",
    "google/rpc/error_details.proto",
  ],
  { ...LOADER_OPTIONS, includeDirs: [PROTO] },
);
/** The type of `grpc-status-details-bin`, which grpc-js does not provide. */
const statusContract = fromJSON(
  {
    nested: {
      Any: { fields: { type_url: { type: "string", id: 1 }, value: { type: "bytes", id: 2 } } },
      Status: {
        fields: {
          code: { type: "int32", id: 1 },
          message: { type: "string", id: 2 },
          details: { rule: "repeated", type: "Any", id: 3 },
        },
      },
    },
  },
  LOADER_OPTIONS,
);

const INT32_MAX = 2_147_483_647;
/** Far above any duration here; it only ends a test that hangs. */
const HANG_MS = 120_000;
type Reply = Record<string, unknown>;

interface Status {
  readonly code: number;
  readonly message: string;
  readonly details: readonly { readonly type_url: string; readonly value: Buffer }[];
}

function decode<T>(from: PackageDefinition, type: string, bytes: Buffer): T {
  const definition = from[type];
  assert.ok(definition && "deserialize" in definition && typeof definition.deserialize === "function", type);
  return definition.deserialize(bytes) as T;
}

function call(client: Client, path: string, request: object, options: UnaryOptions = {}): Promise<Reply> {
  return callUnary(client, methodOf(contract, path), request, options);
}

async function errorOf(call: Promise<unknown>): Promise<ServiceError> {
  try {
    await call;
  } catch (error) {
    assert.ok(error instanceof Error && "code" in error && "metadata" in error, String(error));
    return error as ServiceError;
  }
  assert.fail("the call ended with OK");
}

async function assertCode(call: Promise<unknown>, code: status, message: RegExp): Promise<void> {
  const error = await errorOf(call);
  assert.equal(status[error.code], status[code], error.details);
  assert.match(error.details, message);
}

function statusDetailsOf(error: ServiceError): Status {
  const [bytes] = error.metadata.get("grpc-status-details-bin");
  assert.ok(Buffer.isBuffer(bytes), "there is no grpc-status-details-bin");
  return decode<Status>(statusContract, "Status", bytes);
}

/** Inventory.Get with a deadline that only the server enforces: grpc-js would end the call by its own timer. */
async function statusOfRawGet(url: string, timeout: string): Promise<number> {
  const session = connect(url);
  const stream = session.request({
    ":method": "POST",
    ":path": "/Inventory/Get",
    "content-type": "application/grpc",
    te: "trailers",
    "grpc-timeout": timeout,
  });
  stream.end(Buffer.from([0, 0, 0, 0, 3, 0x0a, 1, 0x61]));
  const met: unknown[] = [];
  stream.on("response", (headers) => met.push(headers["grpc-status"]));
  stream.on("trailers", (trailers) => met.push(trailers["grpc-status"]));
  stream.resume();
  await once(stream, "end");
  session.close();
  return Number(met.find((value) => value !== undefined));
}

const REDIS = need("redis-server").missing;
const SETUPS: readonly {
  readonly name: string;
  readonly skip: string | false;
  readonly onRedis: boolean;
  readonly environment?: NodeJS.ProcessEnv;
}[] = [
  { name: "the memory store", skip: false, onRedis: false },
  { name: "the Redis store", skip: REDIS, onRedis: true },
  {
    name: "the Redis store, with LANE=off",
    skip: REDIS,
    onRedis: true,
    environment: { LANE: "off" },
  },
];

for (const { name, skip, onRedis, environment } of SETUPS) {
  describe(`native gRPC by grpc-js on ${name}`, { skip, timeout: HANG_MS }, () => {
    let redis: RedisServer | undefined;
    let app: TestApp;
    let client: Client;
    const connectClient = (options: ClientOptions = {}): Client =>
      new Client(app.address, credentials.createInsecure(), options);
    const ask = (path: string, request: object, options?: UnaryOptions): Promise<Reply> =>
      call(client, path, request, options);
    const put = (product_id: string, declared: number): Promise<Reply> =>
      ask("inventory.v1.SupplyService/PutProduct", { product_id, declared });

    before(async () => {
      redis = onRedis ? await startRedis() : undefined;
      app = await startTestApp({ ...environment, ...(redis && { REDIS_URL: redis.url }) });
      client = connectClient();
    });
    after(async () => {
      client?.close();
      await app?.stop();
      await redis?.stop();
    });

    it("Inventory.Get returns the available units as decimal digits", async () => {
      await put("get-1", INT32_MAX);
      assert.deepEqual(await ask("Inventory/Get", { id: "get-1" }), { count: "2147483647" });
      await put("get-0", 0);
      assert.deepEqual(await ask("Inventory/Get", { id: "get-0" }), { count: "0" });
      await assertCode(ask("Inventory/Get", { id: "get-none" }), status.NOT_FOUND, /"get-none"/);
    });

    it("StockService.GetStock returns the product with its details", async () => {
      const product = { name: "Häkelmütze 🧶", description: "warm", price: 19.9, collection_id: "winter" };
      await ask("inventory.v1.SupplyService/PutProduct", { product_id: "stock-1", declared: 3, product });
      const { stock } = await ask("inventory.v1.StockService/GetStock", { product_id: "stock-1" });
      assert.partialDeepStrictEqual(stock, { product_id: "stock-1", available: 3, version: "1", product });
      const { seconds } = (stock as { update_time: { seconds: string } }).update_time;
      assert.match(seconds, /^\d{10}$/);
    });

    it("StockService.BatchGetStock keeps the order, and lists unknown IDs separately", async () => {
      await Promise.all([put("batch-a", 1), put("batch-b", 2)]);
      const reply = await ask("inventory.v1.StockService/BatchGetStock", {
        product_ids: ["batch-b", "none-2", "batch-a", "none-1", "batch-b"],
      });
      const stocks = reply["stocks"] as readonly Reply[];
      assert.deepEqual(
        stocks.map(({ product_id, available }) => [product_id, available]),
        [
          ["batch-b", 2],
          ["batch-a", 1],
          ["batch-b", 2],
        ],
      );
      assert.deepEqual(reply["unknown_product_ids"], ["none-2", "none-1"]);
    });

    it("SupplyService changes each number of the ledger independently", async () => {
      const product_id = "ledger-1";
      const update_time = { seconds: "1700000000", nanos: 123_456_000 };
      const declared = await ask("inventory.v1.SupplyService/PutProduct", {
        product_id,
        declared: 10,
        update_time,
      });
      assert.equal(declared["applied"], true);
      await ask("inventory.v1.SupplyService/AdjustStock", { product_id, delta: -3, adjustment_id: "l1-a" });
      await ask("inventory.v1.SupplyService/CountStock", { product_id, count: 20, count_id: "l1-c" });
      await ask("inventory.v1.SupplyService/SetSafetyStock", { product_id, safety: 5 });
      const expected = {
        product_id,
        declared: 10,
        declare_time: update_time,
        adjusted: 10,
        sold: 0,
        reserved: 0,
        safety: 5,
        on_hand: 20,
        available: 15,
        shortfall: 0,
        version: "4",
        deleted: false,
      };
      const { ledger } = await ask("inventory.v1.SupplyService/GetLedger", { product_id });
      assert.deepEqual(ledger, expected);
      assert.deepEqual(await ask("Inventory/Get", { id: product_id }), { count: "15" });
      await ask("inventory.v1.SupplyService/SetSafetyStock", { product_id, safety: 21 });
      assert.deepEqual(await ask("Inventory/Get", { id: product_id }), { count: "0" });
    });

    it("SupplyService.ListChanges pages from the newest to the first", async () => {
      const product_id = "changes-1";
      await put(product_id, 8);
      await ask("inventory.v1.SupplyService/AdjustStock", {
        product_id,
        delta: 2,
        adjustment_id: "c1-a",
        reason: "found",
      });
      await ask("inventory.v1.SupplyService/CountStock", { product_id, count: 4, count_id: "c1-c" });
      const list = (page_size: number, page_token: string): Promise<Reply> =>
        ask("inventory.v1.SupplyService/ListChanges", { product_id, page_size, page_token });
      const first = await list(2, "");
      assert.partialDeepStrictEqual(first["changes"], [
        { product_id, version: "3", cause: "CHANGE_CAUSE_COUNTED", delta: -6, reference_id: "c1-c" },
        { version: "2", cause: "CHANGE_CAUSE_ADJUSTED", delta: 2, reference_id: "c1-a", reason: "found" },
      ]);
      assert.notEqual(first["next_page_token"], "");
      const last = await list(2, String(first["next_page_token"]));
      assert.partialDeepStrictEqual(last["changes"], [
        { version: "1", cause: "CHANGE_CAUSE_DECLARED", delta: 8, ledger: { on_hand: 8, available: 8 } },
      ]);
      assert.equal((last["changes"] as readonly unknown[]).length, 1);
      assert.equal(last["next_page_token"], "");
    });

    it("SupplyService.DeleteProduct leaves a tombstone that a late update does not remove", async () => {
      const product_id = "deleted-1";
      const at = (seconds: number): object => ({ product_id, update_time: { seconds, nanos: 0 } });
      await ask("inventory.v1.SupplyService/PutProduct", { ...at(1_000), declared: 1 });
      assert.deepEqual(await ask("inventory.v1.SupplyService/DeleteProduct", at(2_000)), { applied: true });
      await assertCode(ask("Inventory/Get", { id: product_id }), status.NOT_FOUND, /"deleted-1"/);
      const late = await ask("inventory.v1.SupplyService/PutProduct", { ...at(1_500), declared: 9 });
      assert.equal(late["applied"], false);
      await assertCode(ask("Inventory/Get", { id: product_id }), status.NOT_FOUND, /"deleted-1"/);
      const { ledger } = await ask("inventory.v1.SupplyService/GetLedger", { product_id });
      assert.equal((ledger as Reply)["deleted"], true);
      await ask("inventory.v1.SupplyService/PutProduct", { ...at(3_000), declared: 7 });
      assert.deepEqual(await ask("Inventory/Get", { id: product_id }), { count: "7" });
    });

    it("a repeated correction is harmless, and its ID with another content ALREADY_EXISTS", async () => {
      const product_id = "retry-1";
      await put(product_id, 10);
      const adjustment = { product_id, delta: -4, adjustment_id: "r1-a" };
      const count = { product_id, count: 6, count_id: "r1-c" };
      for (const [method, request] of [
        ["AdjustStock", adjustment],
        ["AdjustStock", adjustment],
        ["CountStock", count],
        ["CountStock", count],
      ] as const) {
        const { ledger } = await ask(`inventory.v1.SupplyService/${method}`, request);
        assert.equal((ledger as Reply)["on_hand"], 6);
      }
      const other = { ...adjustment, delta: -5 };
      await assertCode(
        ask("inventory.v1.SupplyService/AdjustStock", other),
        status.ALREADY_EXISTS,
        /adjustment_id "r1-a"/,
      );
      await assertCode(
        ask("inventory.v1.SupplyService/CountStock", { ...count, count: 7 }),
        status.ALREADY_EXISTS,
        /count_id "r1-c"/,
      );
    });

    it("refuses changes that the ledger does not allow", async () => {
      const product_id = "refused-1";
      await put(product_id, 2);
      const adjust = (delta: number): Promise<Reply> =>
        ask("inventory.v1.SupplyService/AdjustStock", { product_id, delta, adjustment_id: randomUUID() });
      await assertCode(adjust(-3), status.FAILED_PRECONDITION, /by -3: 2 are on hand/);
      await assertCode(adjust(INT32_MAX), status.FAILED_PRECONDITION, /2147483647/);
      const count = { product_id, count: 1, count_id: randomUUID(), expected_version: "7" };
      await assertCode(ask("inventory.v1.SupplyService/CountStock", count), status.ABORTED, /version 7/);
      const { ledger } = await ask("inventory.v1.SupplyService/GetLedger", { product_id });
      assert.partialDeepStrictEqual(ledger, { on_hand: 2, version: "1" }, "a refusal writes nothing");
    });

    it("ends with NOT_FOUND for an unknown product in every method that requires one", async () => {
      const product_id = "nowhere";
      for (const [method, request] of [
        ["StockService/GetStock", { product_id }],
        ["SupplyService/GetLedger", { product_id }],
        ["SupplyService/ListChanges", { product_id }],
        ["SupplyService/SetSafetyStock", { product_id, safety: 1 }],
        ["SupplyService/CountStock", { product_id, count: 1, count_id: "n-c" }],
        ["SupplyService/AdjustStock", { product_id, delta: 1, adjustment_id: "n-a" }],
      ] as const) {
        await assertCode(ask(`inventory.v1.${method}`, request), status.NOT_FOUND, /"nowhere"/);
      }
    });

    it("reports each invalid field in grpc-status-details-bin", async () => {
      const error = await errorOf(
        ask("inventory.v1.SupplyService/AdjustStock", { product_id: "", delta: 0, adjustment_id: "a\u0007" }),
      );
      assert.equal(error.code, status.INVALID_ARGUMENT);
      const details = statusDetailsOf(error);
      assert.equal(details.code, status.INVALID_ARGUMENT);
      assert.equal(details.message, error.details);
      assert.deepEqual(
        details.details.map((detail) => detail.type_url),
        ["type.googleapis.com/google.rpc.BadRequest"],
      );
      const { field_violations } = decode<{ field_violations: readonly Record<string, string>[] }>(
        contract,
        "google.rpc.BadRequest",
        details.details[0]?.value ?? Buffer.alloc(0),
      );
      assert.deepEqual(
        field_violations.map((violation) => violation["field"]),
        ["product_id", "delta", "adjustment_id"],
      );
      for (const violation of field_violations) {
        assert.ok(error.details.includes(`${violation["field"]} ${violation["description"]}`), error.details);
      }
    });

    it("accepts any metadata, and does not echo it", async () => {
      await put("metadata-1", 1);
      const metadata = new Metadata();
      metadata.add("x-request-id", "one");
      metadata.add("x-request-id", "two");
      metadata.add("x-trace-bin", Buffer.from([0, 255, 10, 13]));
      const reply = await ask("Inventory/Get", { id: "metadata-1" }, { metadata });
      assert.deepEqual(reply, { count: "1" });
      const error = await errorOf(ask("Inventory/Get", { id: "nowhere" }, { metadata }));
      assert.deepEqual(error.metadata.get("x-request-id"), []);
      assert.deepEqual(error.metadata.get("x-trace-bin"), []);
    });

    it("reads a gzipped request", async () => {
      const gzipping = connectClient({ "grpc.default_compression_algorithm": 2 });
      try {
        const product_id = "gzip-1";
        const product = { name: "compressible ".repeat(20), price: 1 };
        await call(gzipping, "inventory.v1.SupplyService/PutProduct", { product_id, declared: 4, product });
        assert.deepEqual(await call(gzipping, "Inventory/Get", { id: product_id }), { count: "4" });
      } finally {
        gzipping.close();
      }
    });

    it("ends with UNIMPLEMENTED for an unknown method and an unknown service", async () => {
      for (const path of [
        "/Inventory/Set",
        "/inventory.v1.StockService/Nothing",
        "/nothing.v1.No/Get",
        "/",
      ]) {
        const { requestSerialize, responseDeserialize } = methodOf(contract, "Inventory/Get");
        const reply = new Promise((resolve, reject) => {
          client.makeUnaryRequest(
            path,
            requestSerialize,
            responseDeserialize,
            { id: "a" },
            (error, message) => (error ? reject(error) : resolve(message)),
          );
        });
        await assertCode(reply, status.UNIMPLEMENTED, new RegExp(path));
      }
    });

    // The memory store always responds.
    const itOnRedis = onRedis ? it : () => {};
    itOnRedis("enforces a deadline while Redis does not respond, and serves again afterwards", async () => {
      const read = (options?: UnaryOptions): Promise<Reply> =>
        ask("inventory.v1.SupplyService/GetLedger", { product_id: "silent-1" }, options);
      await put("silent-1", 1);
      redis?.pause();
      try {
        const order: string[] = [];
        const noted = async <T>(who: string, ended: Promise<T>): Promise<T> => {
          const value = await ended;
          order.push(who);
          return value;
        };
        const unavailable = noted("undated", errorOf(read()));
        const dated = noted("dated", statusOfRawGet(app.url, "100m"));
        const deadline = new Date(Date.now() + 150);
        const error = await errorOf(read({ deadline }));
        assert.equal(status[error.code], "DEADLINE_EXCEEDED", error.details);
        assert.equal(await dated, status.DEADLINE_EXCEEDED);
        const undated = await unavailable;
        assert.equal(status[undated.code], "UNAVAILABLE", undated.details);
        assert.deepEqual(order, ["dated", "undated"], "a deadline does not wait for the store");
        const { details } = statusDetailsOf(undated);
        assert.equal(details[0]?.type_url, "type.googleapis.com/google.rpc.RetryInfo");
        const retry = decode<{ retry_delay: Reply }>(
          contract,
          "google.rpc.RetryInfo",
          details[0]?.value ?? Buffer.alloc(0),
        );
        assert.ok(Number(retry.retry_delay["seconds"]) > 0 || Number(retry.retry_delay["nanos"]) > 0);
      } finally {
        redis?.resume();
      }
      const again = async (): Promise<unknown> => (await read())["ledger"];
      assert.partialDeepStrictEqual(await until(again, "the store responds again"), { on_hand: 1 });
    });
  });
}

it("refuses a message above the limit with RESOURCE_EXHAUSTED, and leaves no stream open", async () => {
  const lines: string[] = [];
  const log = pino({ level: "warn" }, { write: (line) => lines.push(line) });
  const app = await startTestApp({ DRAIN_DEADLINE_MS: "3000" }, { log });
  const client = new Client(app.address, credentials.createInsecure());
  try {
    const tooLong = call(client, "Inventory/Get", { id: "x".repeat(1_100_000) });
    await assertCode(tooLong, status.RESOURCE_EXHAUSTED, /1048576/);
  } finally {
    client.close();
    await app.stop();
  }
  const cuts = lines.filter((line) => line.includes("were cut"));
  assert.deepEqual(cuts, [], "the drain had nothing to cut");
});
