import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { promisify } from "node:util";
import { create, createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema, FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { Client, credentials, Metadata, type ServiceError, status } from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { RetryInfoSchema } from "../../gen/google/rpc/error_details_pb.ts";
import { Health } from "../../gen/health/v1/health_pb.ts";
import { ERROR_DETAILS } from "../../server/rpc/errors.ts";
import { startTestApp, type TestApp } from "../support/app.ts";
import { freePort } from "../support/free-port.ts";
import { callUnary, methodOf } from "../support/grpc-contract.ts";
import { need } from "../support/programs.ts";
import { startRedis } from "../support/redis-server.ts";
import { until } from "../support/until.ts";

const PACKAGES = join(import.meta.dirname, "../../node_modules");
const grpcurl = need("grpcurl");
const redis = need("redis-server");
const run = promisify(execFile);
/** Timeout of a hanging test, far above the normal duration. */
const HANG_MS = 120_000;

const SERVICES = [
  "Inventory",
  "grpc.health.v1.Health",
  "grpc.reflection.v1.ServerReflection",
  "grpc.reflection.v1alpha.ServerReflection",
  "inventory.v1.ReservationService",
  "inventory.v1.StockService",
  "inventory.v1.SupplyService",
];
/** The service names of the health service; the empty one is the server. */
const CHECKED_SERVICES = ["", ...SERVICES.filter((service) => !service.startsWith("grpc."))];

const contract = loadSync(
  [
    "grpc/reflection/v1/reflection.proto",
    "grpc/reflection/v1alpha/reflection.proto",
    "health/v1/health.proto",
  ],
  {
    includeDirs: [join(PACKAGES, "@grpc/reflection/build/proto"), join(PACKAGES, "grpc-health-check/proto")],
    keepCase: true,
    enums: String,
    defaults: true,
    oneofs: true,
  },
);

interface ReflectionResponse {
  readonly original_request: object;
  readonly message_response: string;
  readonly file_descriptor_response?: { readonly file_descriptor_proto: readonly Buffer[] };
  readonly list_services_response?: { readonly service: readonly { readonly name: string }[] };
  readonly all_extension_numbers_response?: object;
  readonly error_response?: { readonly error_code: number; readonly error_message: string };
}

/** Sends all requests on one stream, and returns the responses when the server has ended it. */
async function reflect(
  client: Client,
  version: string,
  questions: readonly object[],
): Promise<readonly ReflectionResponse[]> {
  const method = methodOf(contract, `grpc.reflection.${version}.ServerReflection/ServerReflectionInfo`);
  const stream = client.makeBidiStreamRequest(
    method.path,
    method.requestSerialize,
    method.responseDeserialize,
    new Metadata(),
  );
  for (const question of questions) {
    stream.write(question);
  }
  stream.end();
  const responses: ReflectionResponse[] = [];
  for await (const response of stream) {
    responses.push(response as ReflectionResponse);
  }
  return responses;
}

/** The files of a response, which must be complete: it contains every import, in any order. */
function filesOf(response: ReflectionResponse | undefined) {
  assert.equal(response?.message_response, "file_descriptor_response", JSON.stringify(response));
  const bytes = response?.file_descriptor_response?.file_descriptor_proto ?? [];
  const file = bytes.map((descriptor) => fromBinary(FileDescriptorProtoSchema, descriptor));
  const names = file.map(({ name }) => name);
  assert.equal(new Set(names).size, names.length, "no file twice");
  // Throws if an import is missing. It requires imports first, which the protocol does not.
  const ordered: typeof file = [];
  const place = (name: string): void => {
    const found = file.find((candidate) => candidate.name === name);
    assert.ok(found, `${name} is not in the response`);
    if (!ordered.includes(found)) {
      found.dependency.forEach(place);
      ordered.push(found);
    }
  };
  names.forEach(place);
  return { names, registry: createFileRegistry(create(FileDescriptorSetSchema, { file: ordered })) };
}

describe("reflection", { timeout: HANG_MS }, () => {
  let app: TestApp;
  let client: Client;
  before(async () => {
    app = await startTestApp();
    client = new Client(app.address, credentials.createInsecure());
  });
  after(async () => {
    client?.close();
    await app?.stop();
  });

  for (const version of ["v1", "v1alpha"]) {
    describe(version, () => {
      const ask = (...questions: readonly object[]) => reflect(client, version, questions);

      it("lists every service", async () => {
        const [response] = await ask({ host: "any", list_services: "" });
        const services = response?.list_services_response?.service ?? [];
        assert.deepEqual(services.map(({ name }) => name).toSorted(), SERVICES);
      });

      it("returns the file that contains a symbol, with its transitive imports", async () => {
        const symbols: Record<string, string> = {
          ...Object.fromEntries(ERROR_DETAILS.map(({ typeName, file }) => [typeName, `${file.name}.proto`])),
          "google.rpc.BadRequest.FieldViolation": "google/rpc/error_details.proto",
          Inventory: "inventory.proto",
          "Inventory.Get": "inventory.proto",
          InventoryRequest: "inventory.proto",
          "inventory.v1.StockService": "inventory/v1/stock.proto",
          "inventory.v1.StockService.WatchStock": "inventory/v1/stock.proto",
          "inventory.v1.Stock": "inventory/v1/stock.proto",
          "inventory.v1.Stock.available": "inventory/v1/stock.proto",
          "inventory.v1.ListOrder": "inventory/v1/stock.proto",
          "inventory.v1.SupplyService": "inventory/v1/supply.proto",
          "inventory.v1.Ledger": "inventory/v1/supply.proto",
          "inventory.v1.ReservationService": "inventory/v1/reservation.proto",
          "inventory.v1.Shortage.ShortLine": "inventory/v1/reservation.proto",
          "grpc.health.v1.Health": "grpc/health/v1/health.proto",
          "grpc.health.v1.HealthCheckResponse.ServingStatus": "grpc/health/v1/health.proto",
          "google.protobuf.Timestamp": "google/protobuf/timestamp.proto",
        };
        const responses = await ask(
          ...Object.keys(symbols).map((symbol) => ({ file_containing_symbol: symbol })),
        );
        for (const [index, [symbol, file]] of Object.entries(symbols).entries()) {
          const { names, registry } = filesOf(responses[index]);
          // The health proto's file has two names in use.
          const same = names[0] === file || names[0] === file.replace("grpc/health", "health");
          assert.ok(same, `${symbol} is in ${file}, not in ${names[0]}`);
          const type = /^(?:[a-z0-9]+\.)*[A-Z]\w*(?:\.[A-Z]\w*)?/.exec(symbol)?.[0] ?? symbol;
          const described = registry.get(type) ?? registry.get(type.slice(0, type.lastIndexOf(".")));
          assert.ok(described, symbol);
        }
      });

      it("returns a file by its name, and describes every listed service", async () => {
        const fileNames = ["inventory.proto", "inventory/v1/supply.proto", "google/protobuf/timestamp.proto"];
        const files = await ask(...fileNames.map((name) => ({ file_by_filename: name })));
        assert.deepEqual(
          files.map((response) => filesOf(response).names[0]),
          fileNames,
        );
        const described = await ask(...SERVICES.map((service) => ({ file_containing_symbol: service })));
        for (const [index, service] of SERVICES.entries()) {
          const { methods } = filesOf(described[index]).registry.getService(service) ?? {};
          assert.ok(methods && methods.length > 0, service);
        }
      });

      it("responds to an unknown name with an error response, and continues", async () => {
        const responses = await ask(
          { file_containing_symbol: "inventory.v1.Nothing" },
          { file_containing_symbol: "" },
          { file_by_filename: "../../package.json" },
          { file_containing_extension: { containing_type: "inventory.v1.Stock", extension_number: 100 } },
          { all_extension_numbers_of_type: "inventory.v1.Nothing" },
          {},
          { all_extension_numbers_of_type: "inventory.v1.Stock" },
          { list_services: "" },
        );
        assert.deepEqual(
          responses.map((response) => response.message_response),
          [
            ...Array.from({ length: 6 }, () => "error_response"),
            "all_extension_numbers_response",
            "list_services_response",
          ],
        );
        assert.equal(responses[0]?.error_response?.error_code, status.NOT_FOUND);
        assert.match(responses[0]?.error_response?.error_message ?? "", /inventory\.v1\.Nothing/);
        assert.partialDeepStrictEqual(responses[0]?.original_request, {
          file_containing_symbol: "inventory.v1.Nothing",
        });
      });
    });
  }

  describe("by grpcurl", { skip: grpcurl.missing }, () => {
    const call = async (...args: readonly string[]): Promise<string> =>
      (await run(grpcurl.path, ["-plaintext", ...args])).stdout;

    it("list", async () => {
      assert.deepEqual((await call(app.address, "list")).trim().split("\n"), SERVICES);
      const methods = (await call(app.address, "list", "Inventory")).trim();
      assert.equal(methods, "Inventory.Get");
    });

    it("describe", async () => {
      for (const service of SERVICES) {
        const text = await call(app.address, "describe", service);
        assert.match(text, new RegExp(`^${service} is a service:`));
      }
      assert.match(await call(app.address, "describe", "inventory.v1.Ledger"), /int32 on_hand = 8;/);
      assert.match(
        await call(app.address, "describe", "Inventory.Get"),
        /idempotency_level = NO_SIDE_EFFECTS/,
      );
    });

    it("Inventory.Get", async () => {
      const put = '{"product_id":"p1","declared":5}';
      await call("-d", put, app.address, "inventory.v1.SupplyService/PutProduct");
      const response = await call("-d", '{"id":"p1"}', app.address, "Inventory.Get");
      assert.deepEqual(JSON.parse(response), { count: "5" });
      await assert.rejects(
        call("-d", '{"id":"p2"}', app.address, "Inventory.Get"),
        /Code: NotFound\s+Message: There is no product "p2"/,
      );
    });

    it("shows every error detail decoded", { timeout: HANG_MS }, async () => {
      const outputOf = (...args: readonly string[]): Promise<string> =>
        call(...args).then(
          (output) => assert.fail(`no error: ${output}`),
          (error: { stderr: string }) => error.stderr,
        );
      await call(
        "-d",
        '{"product_id":"p3","declared":1}',
        app.address,
        "inventory.v1.SupplyService/PutProduct",
      );
      const violation = await outputOf(
        "-d",
        '{"product_id":"\\n"}',
        app.address,
        "inventory.v1.StockService/GetStock",
      );
      assert.match(
        violation,
        /"@type":\s*"type\.googleapis\.com\/google\.rpc\.BadRequest",\s*"fieldViolations":/,
      );
      assert.match(violation, /"field":\s*"product_id"/);

      const lines = '{"reservation_id":"r1","lines":[{"product_id":"p3","quantity":2}]}';
      const shortage = await outputOf("-d", lines, app.address, "inventory.v1.ReservationService/Reserve");
      assert.match(shortage, /"@type":\s*"type\.googleapis\.com\/inventory\.v1\.Shortage",\s*"lines":/);
      assert.match(shortage, /"requested":\s*2,\s*"available":\s*1/);

      const unavailable = await startTestApp({ REDIS_URL: `redis://127.0.0.1:${await freePort()}` });
      try {
        const product = '{"product_id":"p1"}';
        const retry = await outputOf(
          "-d",
          product,
          unavailable.address,
          "inventory.v1.SupplyService/GetLedger",
        );
        assert.match(
          retry,
          /"@type":\s*"type\.googleapis\.com\/google\.rpc\.RetryInfo",\s*"retryDelay":\s*"1s"/,
        );
      } finally {
        await unavailable.stop();
      }
      for (const output of [violation, shortage]) {
        assert.doesNotMatch(output, /@value|@error/);
      }
    });
  });
});

const askHealth = (client: Client, name: "Check" | "List", request: object): Promise<object> =>
  callUnary(client, methodOf(contract, `grpc.health.v1.Health/${name}`), request);

/** A watch: `next` returns the next status, or how the stream ended. */
function watch(client: Client, service: string) {
  const method = methodOf(contract, "grpc.health.v1.Health/Watch");
  const stream = client.makeServerStreamRequest(
    method.path,
    method.requestSerialize,
    method.responseDeserialize,
    { service },
  );
  const messages = stream[Symbol.asyncIterator]();
  return {
    next: async (): Promise<string> => {
      try {
        const { value, done } = await messages.next();
        return done === true ? "OK" : String((value as { status: string }).status);
      } catch (error) {
        return status[(error as ServiceError).code];
      }
    },
    cancel: () => stream.cancel(),
  };
}

describe("health", { timeout: HANG_MS }, () => {
  async function connected(environment: NodeJS.ProcessEnv = {}) {
    const app = await startTestApp(environment);
    const client = new Client(app.address, credentials.createInsecure());
    await until(async () => (await fetch(`${app.url}/readyz`)).ok, "the server is ready");
    return {
      app,
      client,
      [Symbol.asyncDispose]: async () => {
        client.close();
        await app.stop();
      },
    };
  }

  it("Check and List return SERVING for the server and each service, NOT_FOUND for an unknown one", async () => {
    await using server = await connected();
    for (const service of CHECKED_SERVICES) {
      assert.deepEqual(await askHealth(server.client, "Check", { service }), { status: "SERVING" });
    }
    const { statuses } = (await askHealth(server.client, "List", {})) as { statuses: object };
    const serving = CHECKED_SERVICES.map((service) => [service, { status: "SERVING" }]);
    assert.partialDeepStrictEqual(statuses, Object.fromEntries(serving));
    await assert.rejects(askHealth(server.client, "Check", { service: "nothing.v1.NoService" }), {
      code: status.NOT_FOUND,
    });
  });

  it("Watch sends SERVICE_UNKNOWN for an unknown service and stays open, while other calls proceed", async () => {
    await using server = await connected();
    const unknown = watch(server.client, "nothing.v1.NoService");
    assert.equal(await unknown.next(), "SERVICE_UNKNOWN");
    const ended = unknown.next();
    const known = watch(server.client, "");
    assert.equal(await known.next(), "SERVING");
    assert.equal(await Promise.race([ended, Promise.resolve("open")]), "open");
    unknown.cancel();
    known.cancel();
    assert.deepEqual([await ended, await known.next()], ["CANCELLED", "CANCELLED"]);
  });

  it("Watch observes the deadline", async () => {
    await using server = await connected();
    const method = methodOf(contract, "grpc.health.v1.Health/Watch");
    const stream = server.client.makeServerStreamRequest(
      method.path,
      method.requestSerialize,
      method.responseDeserialize,
      { service: "" },
      { deadline: new Date(Date.now() + 200) },
    );
    await assert.rejects(Array.fromAsync(stream), { code: status.DEADLINE_EXCEEDED });
  });

  it("Watch sends NOT_SERVING when the server drains, and then ends", async () => {
    await using server = await connected({ DRAIN_WAIT_MS: "2000" });
    const watches = ["", "Inventory", "nothing.v1.NoService"].map((name) => watch(server.client, name));
    assert.deepEqual(await Promise.all(watches.map((each) => each.next())), [
      "SERVING",
      "SERVING",
      "SERVICE_UNKNOWN",
    ]);
    const stopped = server.app.stop();
    assert.equal(await watches[0]?.next(), "NOT_SERVING");
    assert.equal(await watches[1]?.next(), "NOT_SERVING");
    assert.deepEqual(await askHealth(server.client, "Check", { service: "" }), { status: "NOT_SERVING" });
    assert.deepEqual(await Promise.all(watches.map((each) => each.next())), [
      "UNAVAILABLE",
      "UNAVAILABLE",
      "UNAVAILABLE",
    ]);
    await stopped;
  });

  it("Watch ends with RetryInfo when the server drains", async () => {
    await using server = await connected({});
    const client = createClient(Health, createGrpcTransport({ baseUrl: server.app.url }));
    const messages = client.watch({ service: "" })[Symbol.asyncIterator]();
    await messages.next();
    const stopped = server.app.stop();
    const toTheEnd = async (): Promise<void> => {
      while (!(await messages.next()).done);
    };
    await assert.rejects(toTheEnd, (error: unknown) => {
      assert.ok(error instanceof ConnectError);
      assert.equal(error.code, Code.Unavailable);
      assert.equal(error.findDetails(RetryInfoSchema).length, 1);
      return true;
    });
    await stopped;
  });

  it("Watch follows an outage of Redis and its end", { skip: redis.missing }, async () => {
    await using store = await startRedis();
    await using server = await connected({ REDIS_URL: store.url });
    const reads = ["Inventory", "inventory.v1.StockService"];
    const writes = ["", "inventory.v1.SupplyService", "inventory.v1.ReservationService"];
    const watches = writes.map((name) => watch(server.client, name));
    const readWatches = reads.map((name) => watch(server.client, name));
    const next = (some: typeof watches) => Promise.all(some.map((each) => each.next()));
    const checks = (services: readonly string[]) =>
      Promise.all(services.map((service) => askHealth(server.client, "Check", { service })));
    assert.deepEqual(await next([...watches, ...readWatches]), Array(5).fill("SERVING"));
    await store.kill9();
    assert.deepEqual(await next(watches), Array(3).fill("NOT_SERVING"));
    assert.deepEqual(await checks(writes), Array(3).fill({ status: "NOT_SERVING" }));
    assert.deepEqual(await checks(reads), Array(2).fill({ status: "SERVING" }));
    const { statuses } = (await askHealth(server.client, "List", {})) as { statuses: object };
    assert.partialDeepStrictEqual(statuses, {
      "": { status: "NOT_SERVING" },
      Inventory: { status: "SERVING" },
      "inventory.v1.ReservationService": { status: "NOT_SERVING" },
    });
    await store.restart();
    assert.deepEqual(await next(watches), Array(3).fill("SERVING"));
    for (const each of readWatches) {
      each.cancel();
      assert.equal(await each.next(), "CANCELLED", "its status did not change");
    }
    for (const each of watches) {
      each.cancel();
    }
  });
});
