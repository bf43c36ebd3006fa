import { fromBinary, fromJsonString, type Message, toBinary, toJsonString } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
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
  answer(method: LaneMethod, message: Message, headers: Record<string, string>): LaneAnswer;
  refuse(error: ConnectError, headers: Record<string, string>): LaneAnswer;
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
  answer: (method, message, headers) => ({
    status: 200,
    headers: { ...headers, "content-type": "application/grpc+proto" },
    body: envelope(0, toBinary(method.output, message)),
    isCompressible: false,
    trailers: { "grpc-status": "0" },
  }),
  refuse: (error, headers) => ({
    status: 200,
    headers: { ...headers, "content-type": "application/grpc+proto" },
    body: undefined,
    isCompressible: false,
    trailers: Object.fromEntries(withGrpcMessage(setTrailerStatus(new Headers(), error))),
  }),
};

const grpcWeb: LaneProtocol = {
  timeoutHeader: "grpc-timeout",
  encodingHeader: "grpc-encoding",
  needsHttp2: false,
  parseTimeout: parseTimeouts.grpc,
  decode: decodeEnvelope,
  answer: (method, message, headers) => ({
    status: 200,
    headers: { ...headers, "content-type": "application/grpc-web+proto" },
    body: Buffer.concat([envelope(0, toBinary(method.output, message)), GRPC_WEB_OK]),
    isCompressible: false,
    trailers: undefined,
  }),
  refuse: (error, headers) => ({
    status: 200,
    headers: { ...headers, "content-type": "application/grpc-web+proto" },
    body: envelope(trailerFlag, trailerSerialize(setTrailerStatus(new Headers(), error))),
    isCompressible: false,
    trailers: undefined,
  }),
};

const GRPC_WEB_OK = envelope(trailerFlag, trailerSerialize(new Headers({ "grpc-status": "0" })));

const connectProto: LaneProtocol = {
  timeoutHeader: "connect-timeout-ms",
  encodingHeader: "content-encoding",
  needsHttp2: false,
  parseTimeout: parseTimeouts.connect,
  decode: (method, body) => attempt(() => fromBinary(method.input, body)),
  answer: (method, message, headers) =>
    connectAnswer(200, "application/proto", toBinary(method.output, message), headers),
  refuse: refuseConnect,
};

const connectJson: LaneProtocol = {
  ...connectProto,
  decode: (method, body) =>
    attempt(() => fromJsonString(method.input, DECODER.decode(body), { ignoreUnknownFields: true })),
  answer: (method, message, headers) =>
    connectAnswer(200, "application/json", Buffer.from(toJsonString(method.output, message)), headers),
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

function refuseConnect(error: ConnectError, headers: Record<string, string>): LaneAnswer {
  return connectAnswer(
    codeToHttpStatus(error.code),
    "application/json",
    errorToJsonBytes(error, undefined),
    headers,
  );
}

function connectAnswer(
  status: number,
  contentType: string,
  body: Uint8Array,
  headers: Record<string, string>,
): LaneAnswer {
  return {
    status,
    headers: { ...headers, "content-type": contentType, "content-length": String(body.byteLength) },
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
