import { type DescMethod, fromBinary, type Message } from "@bufbuild/protobuf";
import type { ConnectError } from "@connectrpc/connect";
import { createEndStreamSerialization, endStreamFlag } from "@connectrpc/connect/protocol-connect";
import { setTrailerStatus } from "@connectrpc/connect/protocol-grpc";
import { parseConnectTimeout, parseGrpcTimeout } from "../deadline.ts";
import { jsonRulesOf, readJson } from "../request/json.ts";
import {
  envelope,
  grpcErrorTrailers,
  grpcWebTrailers,
  openEnvelope,
  STATUS_OK,
  tryDecode,
} from "./framing.ts";
import type { RequestLayout } from "./request.ts";

/** The end of a stream: a last envelope, or trailers. */
export interface StreamEnd {
  readonly body: Uint8Array | undefined;
  /** Only in gRPC. */
  readonly trailers: Record<string, string> | undefined;
}

/** Encodes server-streaming calls in one protocol, without compression. */
export interface StreamProtocol extends RequestLayout {
  readonly contentType: string;
  readonly isJson: boolean;
  /** The message, or `undefined` where the body is not exactly one valid uncompressed message. */
  decode(method: DescMethod, body: Buffer): Message | undefined;
  end(error: ConnectError | undefined, trailers: Headers | undefined): StreamEnd;
}

const CONNECT_END = createEndStreamSerialization(undefined);

const grpc: StreamProtocol = {
  timeoutHeader: "grpc-timeout",
  encodingHeader: "grpc-encoding",
  needsHttp2: true,
  contentType: "application/grpc+proto",
  isJson: false,
  parseTimeout: parseGrpcTimeout,
  decode: decodeBinary,
  end: (error, trailers) => ({
    body: undefined,
    trailers: error ? grpcErrorTrailers(error, trailers) : { ...entriesOf(trailers), ...STATUS_OK },
  }),
};

const grpcWeb: StreamProtocol = {
  ...grpc,
  needsHttp2: false,
  contentType: "application/grpc-web+proto",
  end: (error, trailers) => ({
    body: grpcWebTrailers(
      error
        ? setTrailerStatus(new Headers(trailers), error)
        : new Headers({ ...entriesOf(trailers), ...STATUS_OK }),
    ),
    trailers: undefined,
  }),
};

const connectProto: StreamProtocol = {
  timeoutHeader: "connect-timeout-ms",
  encodingHeader: "connect-content-encoding",
  needsHttp2: false,
  contentType: "application/connect+proto",
  isJson: false,
  parseTimeout: parseConnectTimeout,
  decode: decodeBinary,
  end: (error, trailers) => ({
    body: envelope(
      endStreamFlag,
      CONNECT_END.serialize({ metadata: new Headers(trailers), ...(error !== undefined && { error }) }),
    ),
    trailers: undefined,
  }),
};

const connectJson: StreamProtocol = {
  ...connectProto,
  contentType: "application/connect+json",
  isJson: true,
  decode: ({ input, parent }, body) => {
    const data = openEnvelope(body);
    return data && tryDecode(() => readJson(input, data, jsonRulesOf(parent, {})));
  },
};

/** By content type, in the spellings that clients use. Any other spelling falls back to Connect. */
export const STREAM_PROTOCOLS: ReadonlyMap<string, StreamProtocol> = new Map([
  ["application/grpc", grpc],
  ["application/grpc+proto", grpc],
  ["application/grpc-web", grpcWeb],
  ["application/grpc-web+proto", grpcWeb],
  ["application/connect+proto", connectProto],
  ["application/connect+json", connectJson],
]);

function decodeBinary({ input }: DescMethod, body: Buffer): Message | undefined {
  const data = openEnvelope(body);
  return data && tryDecode(() => fromBinary(input, data));
}

function entriesOf(headers: Headers | undefined): Record<string, string> {
  return headers === undefined ? {} : Object.fromEntries(headers);
}
