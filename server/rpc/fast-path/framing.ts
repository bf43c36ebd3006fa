import { type ConnectError, encodeBinaryHeader } from "@connectrpc/connect";
import { setTrailerStatus } from "@connectrpc/connect/protocol-grpc";
import { trailerFlag, trailerSerialize } from "@connectrpc/connect/protocol-grpc-web";
import { StatusSchema } from "../../../gen/google/rpc/status_pb.ts";
import { encodeGrpcMessage, withGrpcMessage } from "../grpc-message.ts";
import { toStatus } from "../status.ts";

// Framing that unary calls and streams share.

/** One byte of flags and four of length, before each message of gRPC, gRPC-Web and Connect streams. */
export const PREFIX_BYTES = 5;

export const STATUS_OK = { "grpc-status": "0" };

export function envelope(flags: number, data: Uint8Array): Buffer {
  const framed = Buffer.allocUnsafe(PREFIX_BYTES + data.byteLength);
  framed.set(data, PREFIX_BYTES);
  return fillEnvelope(flags, framed);
}

/** Writes the prefix into its `PREFIX_BYTES` before a message. */
export function fillEnvelope(flags: number, framed: Buffer): Buffer {
  framed[0] = flags;
  framed.writeUInt32BE(framed.length - PREFIX_BYTES, 1);
  return framed;
}

/** The message of a body that is one envelope without flags; `undefined` for any other body. */
export function openEnvelope(body: Buffer): Buffer | undefined {
  const isWhole =
    body.length >= PREFIX_BYTES && body[0] === 0 && body.readUInt32BE(1) === body.length - PREFIX_BYTES;
  return isWhole ? body.subarray(PREFIX_BYTES) : undefined;
}

/** The trailers of a gRPC error. `Headers` are costly, and most errors have no metadata. */
export function grpcErrorTrailers(error: ConnectError, trailers?: Headers): Readonly<Record<string, string>> {
  if (trailers === undefined && error.metadata.keys().next().done) {
    let encoded = ENCODED_ERRORS.get(error);
    if (encoded === undefined) {
      encoded = encodeError(error);
      ENCODED_ERRORS.set(error, encoded);
    }
    return encoded;
  }
  return Object.fromEntries(withGrpcMessage(setTrailerStatus(new Headers(trailers), error)));
}

/** By the error, which several calls may share. */
const ENCODED_ERRORS = new WeakMap<ConnectError, Readonly<Record<string, string>>>();

function encodeError(error: ConnectError): Readonly<Record<string, string>> {
  const status = { "grpc-status": String(error.code), "grpc-message": encodeGrpcMessage(error.rawMessage) };
  return error.details.length === 0
    ? status
    : { ...status, "grpc-status-details-bin": encodeBinaryHeader(toStatus(error), StatusSchema) };
}

/** gRPC-Web sends trailers in the last envelope of the body. */
export function grpcWebTrailers(trailers: Headers): Buffer {
  return envelope(trailerFlag, trailerSerialize(trailers));
}

/** `undefined` where it throws: the request then falls back to Connect, which reports the error. */
export function tryDecode<T>(decode: () => T): T | undefined {
  try {
    return decode();
  } catch {
    return undefined;
  }
}
