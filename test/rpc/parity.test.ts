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
