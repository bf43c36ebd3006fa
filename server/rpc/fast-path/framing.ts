import { isUtf8 } from "node:buffer";
import type { ConnectError } from "@connectrpc/connect";
import { parseTimeout as parseConnectTimeout } from "@connectrpc/connect/protocol-connect";
import { parseTimeout as parseGrpcTimeout, setTrailerStatus } from "@connectrpc/connect/protocol-grpc";
import { trailerFlag, trailerSerialize } from "@connectrpc/connect/protocol-grpc-web";
import { TIMEOUT_MS_MAX } from "../connect-handler.ts";
import { withGrpcMessage } from "../grpc-message.ts";

// What the lanes' protocols have in common, unary calls and streams alike.

/** Flags and length before a message of gRPC, gRPC-Web and Connect's streams. */
export const PREFIX_BYTES = 5;

export const STATUS_OK = { "grpc-status": "0" };

export const timeoutParsers = {
  grpc: (value: string) => parseGrpcTimeout(value, TIMEOUT_MS_MAX),
  connect: (value: string) => parseConnectTimeout(value, TIMEOUT_MS_MAX),
};

export function envelope(flags: number, data: Uint8Array): Buffer {
  const framed = Buffer.allocUnsafe(PREFIX_BYTES + data.byteLength);
  framed.set(data, PREFIX_BYTES);
  return fillEnvelope(flags, framed);
}

/** Makes an envelope of a message that has room for the prefix before it. */
export function fillEnvelope(flags: number, framed: Buffer): Buffer {
  framed[0] = flags;
  framed.writeUInt32BE(framed.length - PREFIX_BYTES, 1);
  return framed;
}

/** What is in an envelope without flags that is all of the body; `undefined` where it is not. */
export function openEnvelope(body: Buffer): Buffer | undefined {
  const isWhole =
    body.length >= PREFIX_BYTES && body[0] === 0 && body.readUInt32BE(1) === body.length - PREFIX_BYTES;
  return isWhole ? body.subarray(PREFIX_BYTES) : undefined;
}

/** The text of a body. Throws where it is not UTF-8. */
export function textOf(body: Buffer): string {
  if (!isUtf8(body)) {
    throw new TypeError("The text is not UTF-8");
  }
  return body.toString("utf8");
}

/** gRPC's trailers for an error. */
export function grpcErrorTrailers(error: ConnectError, trailers?: Headers): Record<string, string> {
  return Object.fromEntries(withGrpcMessage(setTrailerStatus(new Headers(trailers), error)));
}

/** gRPC-Web has its trailers in an envelope of their own. */
export function grpcWebTrailers(trailers: Headers): Buffer {
  return envelope(trailerFlag, trailerSerialize(trailers));
}

/** What cannot be decoded goes the long way, where it is refused in the protocol's own words. */
export function attempt<T>(decode: () => T): T | undefined {
  try {
    return decode();
  } catch {
    return undefined;
  }
}
