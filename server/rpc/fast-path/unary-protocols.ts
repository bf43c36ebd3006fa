import { fromBinary, fromJsonString, type Message } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { mergeNonProtocolHeaders } from "@connectrpc/connect/protocol";
import { codeToHttpStatus, errorToJsonBytes } from "@connectrpc/connect/protocol-connect";
import { setTrailerStatus } from "@connectrpc/connect/protocol-grpc";
import {
  attempt,
  fillEnvelope,
  grpcErrorTrailers,
  grpcWebTrailers,
  openEnvelope,
  PREFIX_BYTES,
  STATUS_OK,
  textOf,
  timeoutParsers,
} from "./framing.ts";
import type { FastPathMethod } from "./methods.ts";
import type { RequestLayout } from "./request.ts";

/** An answer as it goes out. */
export interface EncodedResponse {
  readonly status: number;
  /** Names and values in turn, as node takes them without a look at each. */
  readonly headers: readonly string[];
  /** Text where the protocol has text: node writes it together with the head. */
  readonly body: Uint8Array | string | undefined;
  /** Whether the body is told by its length and compressed as a whole, and not by messages. */
  readonly isWhole: boolean;
  /** gRPC alone has them. */
  readonly trailers: Record<string, string> | undefined;
}

/** What a method has set to go out with its answer. */
export interface Metadata {
  readonly headers: Headers | undefined;
  readonly trailers: Headers | undefined;
}

/** How one protocol lays out a unary call without compression. */
export interface UnaryProtocol extends RequestLayout {
  /** The message, or `undefined` where the body is anything else than one whole uncompressed message. */
  decode(method: FastPathMethod, body: Buffer): Message | undefined;
  answer(method: FastPathMethod, message: Message, metadata: Metadata): EncodedResponse;
  refuse(error: ConnectError, metadata: Metadata): EncodedResponse;
}

const grpc: UnaryProtocol = {
  timeoutHeader: "grpc-timeout",
  encodingHeader: "grpc-encoding",
  needsHttp2: true,
  parseTimeout: timeoutParsers.grpc,
  decode: decodeEnvelope,
  answer: (method, message, { headers, trailers }) => ({
    status: 200,
    headers: ["content-type", "application/grpc+proto", ...flat(headers)],
    body: frameOf(method, message),
    isWhole: false,
    trailers: trailers === undefined ? STATUS_OK : { ...Object.fromEntries(trailers), ...STATUS_OK },
  }),
  refuse: (error, { headers, trailers }) => ({
    status: 200,
    headers: ["content-type", "application/grpc+proto", ...flat(headers)],
    body: undefined,
    isWhole: false,
    trailers: grpcErrorTrailers(error, trailers),
  }),
};

const grpcWeb: UnaryProtocol = {
  timeoutHeader: "grpc-timeout",
  encodingHeader: "grpc-encoding",
  needsHttp2: false,
  parseTimeout: timeoutParsers.grpc,
  decode: decodeEnvelope,
  answer: (method, message, { headers, trailers }) => ({
    status: 200,
    headers: ["content-type", "application/grpc-web+proto", ...flat(headers)],
    body: Buffer.concat([
      frameOf(method, message),
      trailers === undefined
        ? GRPC_WEB_OK
        : grpcWebTrailers(new Headers([...trailers, ...Object.entries(STATUS_OK)])),
    ]),
    isWhole: false,
    trailers: undefined,
  }),
  refuse: (error, { headers, trailers }) => ({
    status: 200,
    headers: ["content-type", "application/grpc-web+proto", ...flat(headers)],
    body: grpcWebTrailers(setTrailerStatus(new Headers(trailers), error)),
    isWhole: false,
    trailers: undefined,
  }),
};

const GRPC_WEB_OK = grpcWebTrailers(new Headers(STATUS_OK));

const connectProto: UnaryProtocol = {
  timeoutHeader: "connect-timeout-ms",
  encodingHeader: "content-encoding",
  needsHttp2: false,
  parseTimeout: timeoutParsers.connect,
  decode: (method, body) => attempt(() => fromBinary(method.input, body)),
  answer: (method, message, metadata) =>
    connectAnswer(200, "application/proto", method.encoder.binary(method.output, message), metadata),
  refuse: refuseConnect,
};

const connectJson: UnaryProtocol = {
  ...connectProto,
  decode: ({ input, json }, body) => attempt(() => fromJsonString(input, textOf(body), json)),
  answer: ({ output, encoder }, message, metadata) =>
    connectAnswer(200, "application/json", encoder.json(output, message), metadata),
};

/** By content type, those that clients send as they are; any other spelling goes the long way. */
export const UNARY_PROTOCOLS: ReadonlyMap<string, UnaryProtocol> = new Map([
  ["application/grpc", grpc],
  ["application/grpc+proto", grpc],
  ["application/grpc-web", grpcWeb],
  ["application/grpc-web+proto", grpcWeb],
  ["application/proto", connectProto],
  ["application/json", connectJson],
]);

function refuseConnect(error: ConnectError, { headers, trailers }: Metadata): EncodedResponse {
  const merged = new Headers(headers);
  mergeNonProtocolHeaders(merged, error.metadata);
  const body = errorToJsonBytes(error, undefined);
  return connectAnswer(codeToHttpStatus(error.code), "application/json", body, { headers: merged, trailers });
}

function connectAnswer(
  status: number,
  contentType: string,
  body: Uint8Array | string,
  { headers, trailers }: Metadata,
): EncodedResponse {
  return {
    status,
    headers: ["content-type", contentType, ...flat(headers), ...flat(trailers, "trailer-")],
    body,
    isWhole: true,
    trailers: undefined,
  };
}

function frameOf({ encoder, output }: FastPathMethod, message: Message): Buffer {
  return fillEnvelope(0, encoder.binary(output, message, PREFIX_BYTES));
}

/** One enveloped message that is all of the body. */
function decodeEnvelope(method: FastPathMethod, body: Buffer): Message | undefined {
  const data = openEnvelope(body);
  return data && attempt(() => fromBinary(method.input, data));
}

/** Names and values in turn. The Connect protocol sends the trailers of a unary call as headers with a prefix. */
function flat(headers: Headers | undefined, prefix = ""): string[] {
  return headers === undefined ? [] : [...headers].flatMap(([name, value]) => [`${prefix}${name}`, value]);
}

/** The error of a call that ran out of time. */
export function deadlineExceeded(): ConnectError {
  return new ConnectError("the operation timed out", Code.DeadlineExceeded);
}
