import assert from "node:assert/strict";
import { randomInt } from "node:crypto";
import { after, before, describe, it } from "node:test";
import { startTestApp, type TestApp } from "../support/app.ts";
import { type ParityCase, parityCases } from "./parity-cases.ts";
import { mulberry32, mutate } from "./parity-mutations.ts";
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

/** Two servers with the same calls: one with the fast path, one with the Connect path only. */
describe("unary calls on the fast path and the Connect path", () => {
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

  async function assertEqual(
    dialect: Dialect,
    { method }: ParityCase,
    request: WireRequest,
    what: string,
  ): Promise<void> {
    const [fast, connect] = await Promise.all(
      servers.map(({ client }) => client.call(dialect.isHttp2, request)),
    );
    assert.ok(fast && connect);
    if (
      dialect.isEnveloped &&
      fast.status === 200 &&
      request.headers["content-type"] === dialect.contentType
    ) {
      const type = String(fast.headers["content-type"]);
      assert.equal(type.endsWith("+json"), dialect.isJson, `${what}: the codec of the response is ${type}`);
    }
    assert.deepEqual(comparable(dialect, method, fast), comparable(dialect, method, connect), what);
  }

  for (const dialect of DIALECTS) {
    it(`have equal responses in ${dialect.name} over HTTP/${dialect.isHttp2 ? 2 : 1.1}, in every method`, async () => {
      const run = `${dialect.name}-${dialect.isHttp2}`.replaceAll(" ", "-");
      for (const each of parityCases(run)) {
        const request = wireRequest(dialect, each.method, each.request);
        await assertEqual(
          dialect,
          each,
          request,
          `${each.method.name} ${JSON.stringify(each.request).slice(0, 200)}`,
        );
      }
    });
  }

  it(`have equal responses to ${MUTATIONS} mutated requests`, async (t) => {
    t.diagnostic(`PARITY_SEED=${SEED}`);
    const random = mulberry32(SEED);
    const pick = <T>(items: readonly T[]): T => items[Math.floor(random() * items.length)] as T;
    for (let n = 0; n < MUTATIONS; n++) {
      const dialect = pick(DIALECTS);
      const each = pick(parityCases(`m${n}`));
      const request = mutate(wireRequest(dialect, each.method, each.request), random);
      await assertEqual(
        dialect,
        each,
        request,
        `PARITY_SEED=${SEED} mutation ${n}: ${dialect.name} ${each.method.name} ${JSON.stringify(request)}`,
      );
    }
  });
});
