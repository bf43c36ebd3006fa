import { type DescMessage, fromBinary, fromJsonString, type Message } from "@bufbuild/protobuf";
import type { ConnectError } from "@connectrpc/connect";
import { createEndStreamSerialization, endStreamFlag } from "@connectrpc/connect/protocol-connect";
import { setTrailerStatus } from "@connectrpc/connect/protocol-grpc";
import {
  attempt,
  envelope,
  grpcErrorTrailers,
  grpcWebTrailers,
  openEnvelope,
  STATUS_OK,
  textOf,
  timeoutParsers,
} from "./framing.ts";
import type { RequestLayout } from "./request.ts";

/** How a stream ends: with a last piece of its body, or with trailers. */
export interface StreamEnd {
  readonly body: Uint8Array | undefined;
  /** gRPC alone has them. */
  readonly trailers: Record<string, string> | undefined;
}

/** How one protocol lays out a call with one request and a stream of answers, without compression. */
export interface StreamProtocol extends RequestLayout {
  readonly contentType: string;
  readonly isJson: boolean;
  /** The message, or `undefined` where the body is anything else than one whole uncompressed message. */
  decode(input: DescMessage, body: Buffer): Message | undefined;
  end(error: ConnectError | undefined): StreamEnd;
}

const CONNECT_END = createEndStreamSerialization(undefined);

const grpc: StreamProtocol = {
  timeoutHeader: "grpc-timeout",
  encodingHeader: "grpc-encoding",
  needsHttp2: true,
  contentType: "application/grpc+proto",
  isJson: false,
  parseTimeout: timeoutParsers.grpc,
  decode: decodeBinary,
  end: (error) => ({ body: undefined, trailers: error ? grpcErrorTrailers(error) : STATUS_OK }),
};

const grpcWeb: StreamProtocol = {
  ...grpc,
  needsHttp2: false,
  contentType: "application/grpc-web+proto",
  end: (error) => ({
    body: grpcWebTrailers(error ? setTrailerStatus(new Headers(), error) : new Headers(STATUS_OK)),
    trailers: undefined,
  }),
};

const connectProto: StreamProtocol = {
  timeoutHeader: "connect-timeout-ms",
  encodingHeader: "connect-content-encoding",
  needsHttp2: false,
  contentType: "application/connect+proto",
  isJson: false,
  parseTimeout: timeoutParsers.connect,
  decode: decodeBinary,
  end: (error) => ({
    body: envelope(
      endStreamFlag,
      CONNECT_END.serialize({ metadata: new Headers(), ...(error !== undefined && { error }) }),
    ),
    trailers: undefined,
  }),
};

const connectJson: StreamProtocol = {
  ...connectProto,
  contentType: "application/connect+json",
  isJson: true,
  decode: (input, body) => {
    const data = openEnvelope(body);
    return data && attempt(() => fromJsonString(input, textOf(data), { ignoreUnknownFields: true }));
  },
};

/** By content type, those that clients send as they are; any other spelling goes the long way. */
export const STREAM_PROTOCOLS: ReadonlyMap<string, StreamProtocol> = new Map([
  ["application/grpc", grpc],
  ["application/grpc+proto", grpc],
  ["application/grpc-web", grpcWeb],
  ["application/grpc-web+proto", grpcWeb],
  ["application/connect+proto", connectProto],
  ["application/connect+json", connectJson],
]);

function decodeBinary(input: DescMessage, body: Buffer): Message | undefined {
  const data = openEnvelope(body);
  return data && attempt(() => fromBinary(input, data));
}
