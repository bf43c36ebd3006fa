import { once } from "node:events";
import { create, createRegistry, fromBinary, toBinary } from "@bufbuild/protobuf";
import { pino } from "pino";
import type { ListenerTls } from "../../server/http/listener/transport.ts";
import { REQUEST_BYTES_MAX } from "../../server/rpc/connect-handler.ts";
import { startPort } from "../support/port.ts";
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
import { HANDLED_LINE } from "./suite.ts";

// The server that the conformance suite starts. Reads its settings from standard input, and writes its address to standard
// output.

/** Drain deadline after SIGTERM. */
const DRAIN_MS_MAX = 2_000;
/** Length of the size prefix of each message. */
const PREFIX_BYTES = 4;
const { LANE = "on", LOG_LEVEL = "silent" } = process.env;

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

function tlsOf({ serverCreds, clientTlsCert }: ServerCompatRequest): ListenerTls | undefined {
  return (
    serverCreds && {
      cert: Buffer.from(serverCreds.cert),
      key: Buffer.from(serverCreds.key),
      clientCa: clientTlsCert.length > 0 ? Buffer.from(clientTlsCert) : undefined,
    }
  );
}

const request = await readRequest();
let requests = 0;
let handled = 0;
const listener = await startPort({
  routes: (router) => router.service(ConformanceService, conformanceService),
  services: LANE === "on" ? [{ desc: ConformanceService, implementation: conformanceService }] : [],
  // To standard error: the suite reads standard output.
  log: pino({ level: LOG_LEVEL }, pino.destination(2)),
  requestBytesMax: request.messageReceiveLimit || REQUEST_BYTES_MAX,
  json: { registry: createRegistry(file_connectrpc_conformance_v1_service) },
  tls: tlsOf(request),
  onOffered: (isHandled) => {
    requests += 1;
    if (isHandled) handled += 1;
  },
});
writeResponse(listener.port, request.serverCreds?.cert ?? new Uint8Array());
await once(process, "SIGTERM");
await listener.drain(DRAIN_MS_MAX);
process.stderr.write(`${HANDLED_LINE} ${handled} of ${requests}\n`);
process.exit(0);
