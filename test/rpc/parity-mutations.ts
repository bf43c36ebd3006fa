import type { WireRequest } from "./parity-wire.ts";

/** Applies one change, of a kind that clients, proxies and attackers make. */
export function mutate(request: WireRequest, random: () => number): WireRequest {
  const { path, headers, body } = request;
  const at = (length: number): number => Math.floor(random() * length);
  const flipped = Buffer.from(body);
  if (flipped.length > 0) {
    const place = at(flipped.length);
    flipped[place] = at(256);
  }
  const mutations: (() => WireRequest)[] = [
    () => ({ ...request, body: flipped }),
    () => ({ ...request, body: body.subarray(0, at(body.length + 1)) }),
    () => ({ ...request, body: Buffer.concat([body, body]) }),
    () => ({ ...request, body: Buffer.concat([body, Buffer.from([at(256)])]) }),
    () => ({ ...request, body: Buffer.alloc(0) }),
    () => ({ ...request, path: `${path}?x=1` }),
    () => ({ ...request, path: `${path}x` }),
    () => ({
      ...request,
      headers: { ...headers, "content-type": `${headers["content-type"]}; charset=utf-8` },
    }),
    () => ({
      ...request,
      headers: { ...headers, "content-type": String(headers["content-type"]).toUpperCase() },
    }),
    () => ({ ...request, headers: { ...headers, "content-type": "text/plain" } }),
    () => ({ ...request, headers: { ...headers, "content-encoding": "gzip" } }),
    () => ({ ...request, headers: { ...headers, "grpc-encoding": "gzip" } }),
    () => ({ ...request, headers: { ...headers, "connect-content-encoding": "gzip" } }),
    () => ({
      ...request,
      headers: { ...headers, "grpc-encoding": "identity", "content-encoding": "identity" },
    }),
    () => ({ ...request, headers: { ...headers, "grpc-timeout": "0S", "connect-timeout-ms": "0" } }),
    () => ({ ...request, headers: { ...headers, "grpc-timeout": "x", "connect-timeout-ms": "-1" } }),
    () => ({ ...request, headers: { ...headers, "grpc-timeout": "5S", "connect-timeout-ms": "5000" } }),
    () => ({
      ...request,
      headers: { ...headers, "grpc-timeout": "99999999H", "connect-timeout-ms": "9999999999" },
    }),
    () => ({ ...request, headers: { ...headers, "accept-encoding": "gzip" } }),
    () => ({ ...request, headers: { ...headers, "connect-protocol-version": "9" } }),
    () => ({ ...request, headers: { ...headers, "connect-protocol-version": "1" } }),
    () => ({ ...request, headers: { ...headers, "x-odd": "\u00e9" } }),
  ];
  return mutations[at(mutations.length)]?.() ?? request;
}

/** Mulberry32, a seeded generator (https://github.com/bryc/code/blob/master/jshash/PRNGs.md#mulberry32). */
export function mulberry32(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
