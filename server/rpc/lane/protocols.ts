import { fromBinary, fromJsonString, type Message, toBinary, toJsonString } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { mergeNonProtocolHeaders } from "@connectrpc/connect/protocol";
import { codeToHttpStatus, errorToJsonBytes } from "@connectrpc/connect/protocol-connect";
import { setTrailerStatus } from "@connectrpc/connect/protocol-grpc";
import {
  attempt,
  envelope,
  grpcErrorTrailers,
  grpcWebTrailers,
  openEnvelope,
  parseTimeouts,
  STATUS_OK,
} from "./layout.ts";
import type { LaneMethod } from "./methods.ts";
import type { RequestLayout } from "./request.ts";

const DECODER = new TextDecoder("utf-8", { fatal: true });

/** An answer as it goes out. */
export interface LaneAnswer {
  readonly status: number;
  readonly headers: Record<string, string>;
  readonly body: Uint8Array | undefined;
  /** Whether the protocol compresses whole bodies, and not messages. */
  readonly isCompressible: boolean;
  /** gRPC alone has them. */
  readonly trailers: Record<string, string> | undefined;
}

/** What a method has set to go out with its answer. */
export interface Metadata {
  readonly headers: Record<string, string>;
  readonly trailers: Record<string, string> | undefined;
}

/** How one protocol lays out a unary call without compression. */
export interface LaneProtocol extends RequestLayout {
  /** The message, or `undefined` where the body is anything else than one whole uncompressed message. */
  decode(method: LaneMethod, body: Buffer): Message | undefined;
  answer(method: LaneMethod, message: Message, metadata: Metadata): LaneAnswer;
  refuse(error: ConnectError, metadata: Metadata): LaneAnswer;
}

const grpc: LaneProtocol = {
  timeoutHeader: "grpc-timeout",
  encodingHeader: "grpc-encoding",
  needsHttp2: true,
  parseTimeout: parseTimeouts.grpc,
  decode: decodeEnvelope,
  answer: (method, message, { headers, trailers }) => ({
    status: 200,
    headers: { ...headers, "content-type": "application/grpc+proto" },
    body: envelope(0, toBinary(method.output, message)),
    isCompressible: false,
    trailers: { ...trailers, ...STATUS_OK },
  }),
  refuse: (error, { headers, trailers }) => ({
    status: 200,
    headers: { ...headers, "content-type": "application/grpc+proto" },
    body: undefined,
    isCompressible: false,
    trailers: grpcErrorTrailers(error, trailers),
  }),
};

const grpcWeb: LaneProtocol = {
  timeoutHeader: "grpc-timeout",
  encodingHeader: "grpc-encoding",
  needsHttp2: false,
  parseTimeout: parseTimeouts.grpc,
  decode: decodeEnvelope,
  answer: (method, message, { headers, trailers }) => ({
    status: 200,
    headers: { ...headers, "content-type": "application/grpc-web+proto" },
    body: Buffer.concat([
      envelope(0, toBinary(method.output, message)),
      trailers === undefined ? GRPC_WEB_OK : grpcWebTrailers(new Headers({ ...trailers, ...STATUS_OK })),
    ]),
    isCompressible: false,
    trailers: undefined,
  }),
  refuse: (error, { headers, trailers }) => ({
    status: 200,
    headers: { ...headers, "content-type": "application/grpc-web+proto" },
    body: grpcWebTrailers(setTrailerStatus(new Headers(trailers), error)),
    isCompressible: false,
    trailers: undefined,
  }),
};

const GRPC_WEB_OK = grpcWebTrailers(new Headers(STATUS_OK));

const connectProto: LaneProtocol = {
  timeoutHeader: "connect-timeout-ms",
  encodingHeader: "content-encoding",
  needsHttp2: false,
  parseTimeout: parseTimeouts.connect,
  decode: (method, body) => attempt(() => fromBinary(method.input, body)),
  answer: (method, message, metadata) =>
    connectAnswer(200, "application/proto", toBinary(method.output, message), metadata),
  refuse: refuseConnect,
};

const connectJson: LaneProtocol = {
  ...connectProto,
  decode: ({ input, json }, body) => attempt(() => fromJsonString(input, DECODER.decode(body), json)),
  answer: ({ output, json }, message, metadata) =>
    connectAnswer(200, "application/json", Buffer.from(toJsonString(output, message, json)), metadata),
};

/** By content type, those that clients send as they are; any other spelling goes the long way. */
export const LANE_PROTOCOLS: ReadonlyMap<string, LaneProtocol> = new Map([
  ["application/grpc", grpc],
  ["application/grpc+proto", grpc],
  ["application/grpc-web", grpcWeb],
  ["application/grpc-web+proto", grpcWeb],
  ["application/proto", connectProto],
  ["application/json", connectJson],
]);

function refuseConnect(error: ConnectError, { headers, trailers }: Metadata): LaneAnswer {
  const merged = new Headers(headers);
  mergeNonProtocolHeaders(merged, error.metadata);
  return connectAnswer(codeToHttpStatus(error.code), "application/json", errorToJsonBytes(error, undefined), {
    headers: Object.fromEntries(merged),
    trailers,
  });
}

function connectAnswer(
  status: number,
  contentType: string,
  body: Uint8Array,
  { headers, trailers }: Metadata,
): LaneAnswer {
  return {
    status,
    headers: {
      ...headers,
      ...prefixed(trailers),
      "content-type": contentType,
      "content-length": String(body.byteLength),
    },
    body,
    isCompressible: true,
    trailers: undefined,
  };
}

/** One enveloped message that is all of the body. */
function decodeEnvelope(method: LaneMethod, body: Buffer): Message | undefined {
  const data = openEnvelope(body);
  return data && attempt(() => fromBinary(method.input, data));
}

/** The Connect protocol sends the trailers of a unary call as headers. */
function prefixed(trailers: Record<string, string> = {}): Record<string, string> {
  return Object.fromEntries(Object.entries(trailers).map(([name, value]) => [`trailer-${name}`, value]));
}

/** The error of a call that ran out of time. */
export function deadlineExceeded(): ConnectError {
  return new ConnectError("the operation timed out", Code.DeadlineExceeded);
}
