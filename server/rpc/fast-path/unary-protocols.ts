import { fromBinary, type Message } from "@bufbuild/protobuf";
import type { ConnectError } from "@connectrpc/connect";
import { mergeNonProtocolHeaders } from "@connectrpc/connect/protocol";
import { codeToHttpStatus, errorToJsonBytes } from "@connectrpc/connect/protocol-connect";
import { setTrailerStatus } from "@connectrpc/connect/protocol-grpc";
import { parseConnectTimeout, parseGrpcTimeout } from "../deadline.ts";
import { readJson } from "../request/json.ts";
import type { Metadata } from "./fast-path-call.ts";
import {
  fillEnvelope,
  grpcErrorTrailers,
  grpcWebTrailers,
  openEnvelope,
  PREFIX_BYTES,
  STATUS_OK,
  tryDecode,
} from "./framing.ts";
import type { FastPathMethod } from "./methods.ts";
import type { RequestLayout } from "./request.ts";

/** A response in one protocol, ready to be written. */
export interface EncodedResponse {
  readonly status: number;
  /** Alternating names and values: Node does not validate them one by one in this form. */
  readonly headers: readonly string[];
  /** A string where the protocol has text: Node writes it together with the head. */
  readonly body: Uint8Array | string | undefined;
  /** Whether the body is one message without an envelope. It then has a content length, and is compressed as a whole. */
  readonly isUnframed: boolean;
  /** Only in gRPC. */
  readonly trailers: Readonly<Record<string, string>> | undefined;
}

/** Encodes unary calls in one protocol, without compression. */
export interface UnaryProtocol extends RequestLayout {
  /** The message, or `undefined` where the body is not exactly one valid uncompressed message. */
  decode(method: FastPathMethod, body: Buffer): Message | undefined;
  encodeResponse(method: FastPathMethod, message: Message, metadata: Metadata): EncodedResponse;
  encodeError(error: ConnectError, metadata: Metadata): EncodedResponse;
}

const grpc: UnaryProtocol = {
  timeoutHeader: "grpc-timeout",
  encodingHeader: "grpc-encoding",
  needsHttp2: true,
  parseTimeout: parseGrpcTimeout,
  decode: decodeEnvelope,
  encodeResponse: (method, message, { headers, trailers }) => ({
    status: 200,
    headers: ["content-type", "application/grpc+proto", ...flat(headers)],
    body: frameOf(method, message),
    isUnframed: false,
    trailers: trailers === undefined ? STATUS_OK : { ...Object.fromEntries(trailers), ...STATUS_OK },
  }),
  encodeError: (error, { headers, trailers }) => ({
    status: 200,
    headers: ["content-type", "application/grpc+proto", ...flat(headers)],
    body: undefined,
    isUnframed: false,
    trailers: grpcErrorTrailers(error, trailers),
  }),
};

const grpcWeb: UnaryProtocol = {
  timeoutHeader: "grpc-timeout",
  encodingHeader: "grpc-encoding",
  needsHttp2: false,
  parseTimeout: parseGrpcTimeout,
  decode: decodeEnvelope,
  encodeResponse: (method, message, { headers, trailers }) => ({
    status: 200,
    headers: ["content-type", "application/grpc-web+proto", ...flat(headers)],
    body: Buffer.concat([
      frameOf(method, message),
      trailers === undefined
        ? GRPC_WEB_OK
        : grpcWebTrailers(new Headers([...trailers, ...Object.entries(STATUS_OK)])),
    ]),
    isUnframed: false,
    trailers: undefined,
  }),
  encodeError: (error, { headers, trailers }) => ({
    status: 200,
    headers: ["content-type", "application/grpc-web+proto", ...flat(headers)],
    body: grpcWebTrailers(setTrailerStatus(new Headers(trailers), error)),
    isUnframed: false,
    trailers: undefined,
  }),
};

const GRPC_WEB_OK = grpcWebTrailers(new Headers(STATUS_OK));

const connectProto: UnaryProtocol = {
  timeoutHeader: "connect-timeout-ms",
  encodingHeader: "content-encoding",
  needsHttp2: false,
  parseTimeout: parseConnectTimeout,
  decode: (method, body) => tryDecode(() => fromBinary(method.input, body)),
  encodeResponse: (method, message, metadata) =>
    encodeConnect(200, "application/proto", method.encoder.binary(method.output, message), metadata),
  encodeError: encodeConnectError,
};

const connectJson: UnaryProtocol = {
  ...connectProto,
  decode: ({ input, jsonRules }, body) => tryDecode(() => readJson(input, body, jsonRules)),
  encodeResponse: ({ output, encoder }, message, metadata) =>
    encodeConnect(200, "application/json", encoder.json(output, message), metadata),
};

/** By content type, in the spellings that clients use. Any other spelling falls back to Connect. */
export const UNARY_PROTOCOLS: ReadonlyMap<string, UnaryProtocol> = new Map([
  ["application/grpc", grpc],
  ["application/grpc+proto", grpc],
  ["application/grpc-web", grpcWeb],
  ["application/grpc-web+proto", grpcWeb],
  ["application/proto", connectProto],
  ["application/json", connectJson],
]);

function encodeConnectError(error: ConnectError, { headers, trailers }: Metadata): EncodedResponse {
  const merged = new Headers(headers);
  mergeNonProtocolHeaders(merged, error.metadata);
  const body = errorToJsonBytes(error, undefined);
  return encodeConnect(codeToHttpStatus(error.code), "application/json", body, { headers: merged, trailers });
}

function encodeConnect(
  status: number,
  contentType: string,
  body: Uint8Array | string,
  { headers, trailers }: Metadata,
): EncodedResponse {
  return {
    status,
    headers: ["content-type", contentType, ...flat(headers), ...flat(trailers, "trailer-")],
    body,
    isUnframed: true,
    trailers: undefined,
  };
}

function frameOf({ encoder, output }: FastPathMethod, message: Message): Buffer {
  return fillEnvelope(0, encoder.binary(output, message, PREFIX_BYTES));
}

function decodeEnvelope(method: FastPathMethod, body: Buffer): Message | undefined {
  const data = openEnvelope(body);
  return data && tryDecode(() => fromBinary(method.input, data));
}

/** Alternating names and values. The Connect protocol sends the trailers of unary calls as headers with a prefix. */
function flat(headers: Headers | undefined, prefix = ""): string[] {
  return headers === undefined ? [] : [...headers].flatMap(([name, value]) => [`${prefix}${name}`, value]);
}
