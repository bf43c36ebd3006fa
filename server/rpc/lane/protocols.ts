import { fromBinary, fromJsonString, type Message, toBinary, toJsonString } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { mergeNonProtocolHeaders } from "@connectrpc/connect/protocol";
import {
  codeToHttpStatus,
  errorToJsonBytes,
  parseTimeout as parseConnectTimeout,
} from "@connectrpc/connect/protocol-connect";
import { parseTimeout as parseGrpcTimeout, setTrailerStatus } from "@connectrpc/connect/protocol-grpc";
import { trailerFlag, trailerSerialize } from "@connectrpc/connect/protocol-grpc-web";
import { TIMEOUT_MS_MAX } from "../connect-handler.ts";
import { withGrpcMessage } from "../grpc-message.ts";
import type { LaneMethod } from "./methods.ts";

/** Flags and length before a message of gRPC and gRPC-Web. */
const PREFIX_BYTES = 5;
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
export interface LaneProtocol {
  /** The header with the caller's deadline. */
  readonly timeoutHeader: string;
  /** The header that names a compression of the request. */
  readonly encodingHeader: string;
  readonly needsHttp2: boolean;
  parseTimeout(value: string): { timeoutMs?: number | undefined; error?: ConnectError | undefined };
  /** The message, or `undefined` where the body is anything else than one whole uncompressed message. */
  decode(method: LaneMethod, body: Buffer): Message | undefined;
  answer(method: LaneMethod, message: Message, metadata: Metadata): LaneAnswer;
  refuse(error: ConnectError, metadata: Metadata): LaneAnswer;
}

const parseTimeouts = {
  grpc: (value: string) => parseGrpcTimeout(value, TIMEOUT_MS_MAX),
  connect: (value: string) => parseConnectTimeout(value, TIMEOUT_MS_MAX),
};

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
    trailers: Object.fromEntries(withGrpcMessage(setTrailerStatus(new Headers(trailers), error))),
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

const STATUS_OK = { "grpc-status": "0" };
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
  decode: (method, body) =>
    attempt(() => fromJsonString(method.input, DECODER.decode(body), { ignoreUnknownFields: true })),
  answer: (method, message, metadata) =>
    connectAnswer(200, "application/json", Buffer.from(toJsonString(method.output, message)), metadata),
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
  if (body.length < PREFIX_BYTES || body[0] !== 0 || body.readUInt32BE(1) !== body.length - PREFIX_BYTES) {
    return undefined;
  }
  return attempt(() => fromBinary(method.input, body.subarray(PREFIX_BYTES)));
}

function envelope(flags: number, data: Uint8Array): Buffer {
  const framed = Buffer.allocUnsafe(PREFIX_BYTES + data.byteLength);
  framed[0] = flags;
  framed.writeUInt32BE(data.byteLength, 1);
  framed.set(data, PREFIX_BYTES);
  return framed;
}

function grpcWebTrailers(trailers: Headers): Buffer {
  return envelope(trailerFlag, trailerSerialize(trailers));
}

/** The Connect protocol sends the trailers of a unary call as headers. */
function prefixed(trailers: Record<string, string> = {}): Record<string, string> {
  return Object.fromEntries(Object.entries(trailers).map(([name, value]) => [`trailer-${name}`, value]));
}

/** What cannot be decoded goes the long way, where it is refused in the protocol's own words. */
function attempt<T>(decode: () => T): T | undefined {
  try {
    return decode();
  } catch {
    return undefined;
  }
}

/** The error of a call that ran out of time. */
export function deadlineExceeded(): ConnectError {
  return new ConnectError("the operation timed out", Code.DeadlineExceeded);
}
