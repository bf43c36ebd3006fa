import { once } from "node:events";
import { create, createRegistry, fromBinary, toBinary } from "@bufbuild/protobuf";
import { pino } from "pino";
import { startApp } from "../../server/app.ts";
import { type Config, readConfig } from "../../server/config.ts";
import { REQUEST_BYTES_MAX } from "../../server/rpc/connect-handler.ts";
import { startTraceCollector } from "../support/trace-collector.ts";
import {
  type ServerCompatRequest,
  ServerCompatRequestSchema,
  ServerCompatResponseSchema,
} from "./gen/connectrpc/conformance/v1/server_compat_pb.ts";
import {
  ConformanceService,
  file_connectrpc_conformance_v1_service,
} from "./gen/connectrpc/conformance/v1/service_pb.ts";
import { conformanceService } from "./service.ts";
import { serverStreamMethod } from "./stream-method.ts";
import { COUNT_LINE } from "./suite.ts";

// The server that the conformance suite starts: the app, with the suite's service behind its port. Reads its settings from
// standard input, and writes its address to standard output.

/**
 * Everything that a call passes is switched on, but for access: the suite sends no credentials. Shedding by the delay of the event
 * loop is off, since the suite runs on the same machine.
 */
const ENVIRONMENT = {
  HOST: "127.0.0.1",
  PORT: "0",
  ADMIN_PORT: "0",
  DEMO: "off",
  SHED_DELAY_MS: "0",
  EMBED_ORIGINS: "https://shop.example",
  DRAIN_DEADLINE_MS: "2000",
};
/** Length of the size prefix of each message. */
const PREFIX_BYTES = 4;

async function readRequest(): Promise<ServerCompatRequest> {
  let received = Buffer.alloc(0);
  for await (const chunk of process.stdin) {
    received = Buffer.concat([received, chunk]);
    const end = PREFIX_BYTES + (received.length < PREFIX_BYTES ? 0 : received.readUInt32BE(0));
    if (received.length >= end) {
      return fromBinary(ServerCompatRequestSchema, received.subarray(PREFIX_BYTES, end));
    }
  }
  throw new Error(`Standard input ended after ${received.length} bytes, before the whole request was read`);
}

function writeResponse(port: number, pemCert: Uint8Array): void {
  const response = create(ServerCompatResponseSchema, { host: "127.0.0.1", port, pemCert });
  const bytes = toBinary(ServerCompatResponseSchema, response);
  const prefix = Buffer.alloc(PREFIX_BYTES);
  prefix.writeUInt32BE(bytes.length);
  process.stdout.write(Buffer.concat([prefix, bytes]));
}

function tlsOf({ serverCreds, clientTlsCert }: ServerCompatRequest): Config["tls"] {
  return (
    serverCreds && {
      cert: Buffer.from(serverCreds.cert),
      key: Buffer.from(serverCreds.key),
      clientCa: clientTlsCert.length > 0 ? Buffer.from(clientTlsCert) : undefined,
    }
  );
}

/** The methods, counting those calls that Connect does not run. Only Connect's context has a URL. */
function counted(counts: { calls: number; onFastPath: number }): typeof conformanceService {
  const methods = Object.entries(conformanceService).map(([name, run]) => [
    name,
    (request: never, context: never) => {
      counts.calls += 1;
      if (!("url" in context)) counts.onFastPath += 1;
      return run(request, context);
    },
  ]);
  return Object.fromEntries(methods);
}

const request = await readRequest();
const counts = { calls: 0, onFastPath: 0 };
const json = { registry: createRegistry(file_connectrpc_conformance_v1_service) };
const service = counted(counts);
await using collector = await startTraceCollector();
const config = readConfig({
  ...ENVIRONMENT,
  LANE: process.env["LANE"],
  OTEL_EXPORTER_OTLP_ENDPOINT: collector.endpoint,
});
const log = pino({ level: process.env["LOG_LEVEL"] ?? "silent" }, pino.destination(2));
const app = await startApp({ ...config, tls: tlsOf(request) }, log, {
  extraApi: {
    services: [{ desc: ConformanceService, implementation: service }],
    streamMethods: [serverStreamMethod(service.serverStream, json)],
    json,
    requestBytesMax: request.messageReceiveLimit || REQUEST_BYTES_MAX,
  },
});
writeResponse(Number(new URL(app.url).port), request.serverCreds?.cert ?? new Uint8Array());
await once(process, "SIGTERM");
await app.stop();
process.stderr.write(`${COUNT_LINE} ${counts.onFastPath} of ${counts.calls}\n`);
process.exit(0);
