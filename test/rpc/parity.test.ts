import assert from "node:assert/strict";
import { randomInt } from "node:crypto";
import { after, before, describe, it } from "node:test";
import { startTestApp, type TestApp } from "../support/app.ts";
import { type ParityCase, parityCases } from "./parity-cases.ts";
import {
  comparable,
  DIALECTS,
  type Dialect,
  WireClient,
  type WireRequest,
  wireRequest,
} from "./parity-wire.ts";

const MUTATIONS = 600;
const SEED = Number(process.env["PARITY_SEED"] ?? randomInt(2 ** 31));

/** Two servers that have seen the same calls: one with the lane, one where Connect answers everything. */
describe("the lane and the long way", () => {
  const servers: { app: TestApp; client: WireClient }[] = [];
  before(async () => {
    for (const LANE of ["on", "off"]) {
      const app = await startTestApp({ LANE });
      servers.push({ app, client: new WireClient(app.port) });
    }
  });
  after(async () => {
    for (const { app, client } of servers) {
      client.close();
      await app.stop();
    }
  });

  async function assertAlike(
    dialect: Dialect,
    { method }: ParityCase,
    request: WireRequest,
    what: string,
  ): Promise<void> {
    const [short, long] = await Promise.all(
      servers.map(({ client }) => client.call(dialect.isHttp2, request)),
    );
    assert.ok(short && long);
    assert.deepEqual(comparable(dialect, method, short), comparable(dialect, method, long), what);
  }

  for (const dialect of DIALECTS) {
    it(`answer alike in ${dialect.name} over HTTP/${dialect.isHttp2 ? 2 : 1.1}, every method`, async () => {
      const run = `${dialect.name}-${dialect.isHttp2}`.replaceAll(" ", "-");
      for (const each of parityCases(run)) {
        const request = wireRequest(dialect, each.method, each.request);
        await assertAlike(
          dialect,
          each,
          request,
          `${each.method.name} ${JSON.stringify(each.request).slice(0, 200)}`,
        );
      }
    });
  }

  it(`answer alike what is odd: ${MUTATIONS} mutated requests`, async (t) => {
    t.diagnostic(`PARITY_SEED=${SEED}`);
    const random = mulberry32(SEED);
    const pick = <T>(items: readonly T[]): T => items[Math.floor(random() * items.length)] as T;
    for (let n = 0; n < MUTATIONS; n++) {
      const dialect = pick(DIALECTS);
      const each = pick(parityCases(`m${n}`));
      const request = mutate(wireRequest(dialect, each.method, each.request), random);
      await assertAlike(
        dialect,
        each,
        request,
        `PARITY_SEED=${SEED} mutation ${n}: ${dialect.name} ${each.method.name} ${JSON.stringify(request)}`,
      );
    }
  });
});

/** One change of the kind that clients, proxies and attackers make. */
function mutate(request: WireRequest, random: () => number): WireRequest {
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
    () => ({
      ...request,
      headers: { ...headers, "grpc-encoding": "identity", "content-encoding": "identity" },
    }),
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

/** A small seeded generator (https://github.com/bryc/code/blob/master/jshash/PRNGs.md#mulberry32). */
function mulberry32(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
