import { createHash } from "node:crypto";
import { Code, ConnectError, type Interceptor, type Transport } from "@connectrpc/connect";
import {
  createConnectTransport,
  createGrpcTransport,
  createGrpcWebTransport,
} from "@connectrpc/connect-node";

/** Tokens by role, and the AUTH_TOKENS that lists them. */
export const TOKENS = {
  orders: "token-of-orders-4b7e",
  supply: "token-of-supply-91ac",
  ops: "token-of-ops-77d0",
} as const;

export const AUTH_TOKENS = Object.entries(TOKENS)
  .map(([role, token]) => `${role}-service:${role}:${createHash("sha256").update(token).digest("hex")}`)
  .join(",");

interface TransportOptions {
  readonly baseUrl: string;
  readonly interceptors: Interceptor[];
  readonly nodeOptions?: { readonly ca?: Buffer; readonly cert?: Buffer; readonly key?: Buffer };
}

export const PROTOCOLS: Readonly<Record<string, (options: TransportOptions) => Transport>> = {
  gRPC: (options) => createGrpcTransport(options),
  "gRPC-Web": (options) => createGrpcWebTransport({ ...options, httpVersion: "1.1" }),
  "Connect JSON": (options) =>
    createConnectTransport({ ...options, httpVersion: "1.1", useBinaryFormat: false }),
};

/** Sends these headers with every call. */
export function sending(headers: Readonly<Record<string, string>>): Interceptor {
  return (next) => (request) => {
    for (const [name, value] of Object.entries(headers)) {
      request.header.set(name, value);
    }
    return next(request);
  };
}

export function bearer(token: string): Interceptor {
  return sending({ authorization: `Bearer ${token}` });
}

/** The error of a call; `undefined` if it succeeds. */
export async function errorOf(call: Promise<unknown>): Promise<ConnectError | undefined> {
  try {
    await call;
    return undefined;
  } catch (error) {
    return ConnectError.from(error);
  }
}

/** `Unauthenticated`, `PermissionDenied`, …; `OK` if the call succeeds. */
export async function codeNameOf(call: Promise<unknown>): Promise<string> {
  const error = await errorOf(call);
  return error === undefined ? "OK" : (Code[error.code] ?? String(error.code));
}
