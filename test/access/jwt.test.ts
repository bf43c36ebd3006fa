import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { createClient } from "@connectrpc/connect";
import { exportJWK, exportSPKI, generateKeyPair, type JWTPayload, SignJWT, UnsecuredJWT } from "jose";
import { pino } from "pino";
import { ReservationService } from "../../gen/inventory/v1/reservation_pb.ts";
import { readConfig } from "../../server/config.ts";
import { startTestApp, type TestApp } from "../support/app.ts";
import { bearer, codeNameOf, errorOf, PROTOCOLS } from "./callers.ts";
import { SEND } from "./raw-request.ts";

const ISSUER = "https://issuer.example";
const AUDIENCE = "inventory";

/** An issuer's key pair. */
async function createKey(kid: string, alg = "ES256") {
  const { privateKey, publicKey } = await generateKeyPair(alg, { extractable: true });
  const jwk = { ...(await exportJWK(publicKey)), kid, alg, use: "sig" };
  const sign = (claims: Readonly<Record<string, unknown>> = {}): Promise<string> => {
    const now = Math.floor(Date.now() / 1_000);
    const all: JWTPayload = {
      ...{ iss: ISSUER, aud: AUDIENCE, sub: "orders-eu", iat: now, exp: now + 600, role: "orders" },
      ...claims,
    };
    return new SignJWT(all).setProtectedHeader({ alg, kid }).sign(privateKey);
  };
  return { jwk, sign, publicKey };
}

/** The result of an Orders call with this token. */
async function ask(app: TestApp, token: string, protocol = "gRPC"): Promise<string> {
  const transport = PROTOCOLS[protocol]?.({ baseUrl: app.url, interceptors: [bearer(token)] });
  assert.ok(transport);
  const client = createClient(ReservationService, transport);
  return await codeNameOf(client.getReservation({ reservationId: "r1" }));
}

const LET_IN = "NotFound";

describe("tokens of an issuer whose keys are in a file", () => {
  let dir: string;
  let key: Awaited<ReturnType<typeof createKey>>;
  let app: TestApp;
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), "inventory-jwks-"));
    key = await createKey("k1");
    const file = join(dir, "jwks.json");
    await writeFile(file, JSON.stringify({ keys: [key.jwk] }));
    app = await startTestApp({
      ...{ AUTH_JWKS: file, AUTH_JWT_ISSUER: ISSUER, AUTH_JWT_AUDIENCE: AUDIENCE },
    });
  });
  after(async () => {
    await app.stop();
    await rm(dir, { recursive: true });
  });

  for (const protocol of Object.keys(PROTOCOLS)) {
    it(`${protocol}: are accepted on the first call and from the cache`, async () => {
      const token = await key.sign({ sub: protocol });
      assert.equal(await ask(app, token, protocol), LET_IN);
      assert.equal(await ask(app, token, protocol), LET_IN);
    });
  }

  it("may have the role claim as a string, a list, or a space-separated string", async () => {
    for (const role of ["ops", ["supply", "orders"], "supply orders"]) {
      assert.equal(await ask(app, await key.sign({ role })), LET_IN, JSON.stringify(role));
    }
    for (const role of ["supply", [], "", "admin", 7, { orders: true }, "ordersx", undefined]) {
      assert.equal(await ask(app, await key.sign({ role })), "PermissionDenied", JSON.stringify(role));
    }
  });

  it("are rejected with one message if expired, not yet valid, of another issuer or audience, unsigned or modified", async () => {
    const now = Math.floor(Date.now() / 1_000);
    const good = await key.sign();
    const [head = "", body = "", signature = ""] = good.split(".");
    const forged = Buffer.from(
      JSON.stringify({ ...JSON.parse(Buffer.from(body, "base64url").toString()), role: "ops" }),
    );
    const secret = new TextEncoder().encode(await exportSPKI(key.publicKey));
    const otherKey = await createKey("k1");
    const bad: Readonly<Record<string, string>> = {
      late: await key.sign({ exp: now - 60 }),
      early: await key.sign({ nbf: now + 60 }),
      "without an end": await key.sign({ exp: undefined }),
      "without a subject": await key.sign({ sub: undefined }),
      "of an empty name": await key.sign({ sub: "" }),
      "of what is no name": await key.sign({ sub: { name: "orders-eu" } }),
      "for others": await key.sign({ aud: "billing" }),
      "of another issuer": await key.sign({ iss: "https://other.example" }),
      "of another key": await otherKey.sign(),
      "of a key that is not published": await (await createKey("k2")).sign(),
      changed: [head, forged.toString("base64url"), signature].join("."),
      "signed with the public key as a secret": await new SignJWT({ role: "ops" })
        .setProtectedHeader({ alg: "HS256", kid: "k1" })
        .setIssuer(ISSUER)
        .setAudience(AUDIENCE)
        .setSubject("x")
        .setExpirationTime("1h")
        .sign(secret),
      unsigned: new UnsecuredJWT({ role: "ops" })
        .setIssuer(ISSUER)
        .setAudience(AUDIENCE)
        .setSubject("x")
        .encode(),
      cut: good.slice(0, -4),
      "no token at all": "a.b.c",
    };
    for (const [what, token] of Object.entries(bad)) {
      const transport = PROTOCOLS["gRPC"]?.({ baseUrl: app.url, interceptors: [bearer(token)] });
      assert.ok(transport);
      const call = createClient(ReservationService, transport).getReservation({ reservationId: "r1" });
      const error = await errorOf(call);
      assert.equal(error?.rawMessage, "The token is not accepted", what);
    }
    assert.equal(await ask(app, good), LET_IN);
  });
});

describe("keys in a file", () => {
  it("may be Ed25519 keys under the old or the new name, and must not be private", async () => {
    const dir = await mkdtemp(join(tmpdir(), "inventory-jwks-"));
    const file = join(dir, "jwks.json");
    const environment = { AUTH_JWKS: file, AUTH_JWT_ISSUER: ISSUER, AUTH_JWT_AUDIENCE: AUDIENCE };
    try {
      const [old, current] = [await createKey("k1", "EdDSA"), await createKey("k2", "Ed25519")];
      await writeFile(file, JSON.stringify({ keys: [old.jwk, current.jwk] }));
      await using app = await startTestApp(environment);
      assert.equal(await ask(app, await old.sign()), LET_IN);
      assert.equal(await ask(app, await current.sign()), LET_IN);

      await writeFile(file, JSON.stringify({ keys: [old.jwk, { ...current.jwk, d: "c2VjcmV0" }] }));
      assert.throws(() => readConfig(environment), /must be a JSON Web Key Set of public keys/);
    } finally {
      await rm(dir, { recursive: true });
    }
  });
});

/** An issuer that publishes its keys by `respond`. */
async function startIssuer(respond: (response: ServerResponse) => void) {
  const server = createServer((_request, response) => respond(response));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  return {
    settings: {
      AUTH_JWKS: `http://127.0.0.1:${port}/jwks`,
      AUTH_JWT_ISSUER: ISSUER,
      AUTH_JWT_AUDIENCE: AUDIENCE,
    },
    [Symbol.dispose]: () => {
      server.close();
      server.closeAllConnections();
    },
  };
}

describe("tokens of an issuer that publishes its keys", () => {
  it("are accepted with a new key, and rejected with UNAVAILABLE while the keys are unavailable", async () => {
    const [first, second] = [await createKey("k1"), await createKey("k2", "RS256")];
    let published: object | undefined;
    using issuer = await startIssuer((response) => {
      response.statusCode = published === undefined ? 503 : 200;
      response.end(JSON.stringify(published));
    });
    await using app = await startTestApp(issuer.settings);
    assert.equal(await ask(app, await first.sign()), "Unavailable");
    published = { nothing: true };
    assert.equal(await ask(app, await first.sign()), "Unavailable");
    published = { keys: [first.jwk, second.jwk] };
    assert.equal(await ask(app, await first.sign()), LET_IN);
    assert.equal(await ask(app, await second.sign()), LET_IN);
  });

  it("are verified with the last keys for four hours while the issuer is unavailable, and with new ones afterwards", async (t) => {
    const [first, second] = [await createKey("k1"), await createKey("k2")];
    let published: object | undefined = { keys: [first.jwk] };
    using issuer = await startIssuer((response) => {
      response.statusCode = published === undefined ? 503 : 200;
      response.end(JSON.stringify(published));
    });
    const lines: string[] = [];
    const log = pino({}, { write: (line: string) => lines.push(line) });
    await using app = await startTestApp(issuer.settings, { log });
    const began = Date.now();
    const minute = 60_000;
    const at = async (minutes: number, key: typeof first): Promise<string> => {
      t.mock.timers.setTime(began + minutes * minute);
      return await ask(app, await key.sign());
    };
    t.mock.timers.enable({ apis: ["Date"], now: began });
    assert.equal(await at(0, first), LET_IN);
    published = undefined;
    assert.equal(await at(11, first), LET_IN);
    assert.ok(lines.some((line) => line.includes("the last ones stay valid for four hours")));
    assert.equal(await at(11, second), "Unavailable", "it may be a new one");
    assert.equal(await at(239, first), LET_IN);
    assert.equal(await at(241, first), "Unavailable");
    published = { keys: [second.jwk] };
    assert.equal(await at(242, second), LET_IN);
    assert.equal(await at(242, first), "Unauthenticated", "its key is withdrawn");
  });

  it("allow no write after the call has ended, even if the token is verified later", async () => {
    const key = await createKey("k1");
    const keysRequest = Promise.withResolvers<ServerResponse>();
    using issuer = await startIssuer(keysRequest.resolve);
    await using app = await startTestApp({ ...issuer.settings, LANE: "on" });
    const authorization = `Bearer ${await key.sign({ role: "ops" })}`;
    const call = (name: string, body: object, headers: Readonly<Record<string, string>> = {}) =>
      SEND["2"](app.port, {
        method: "POST",
        path: `/inventory.v1.SupplyService/${name}`,
        headers: { "content-type": "application/json", authorization, ...headers },
        body: JSON.stringify(body),
      });

    const deadline = { "connect-timeout-ms": "100" };
    const late = await call("PutProduct", { productId: "p1", declared: 5 }, deadline);
    assert.equal(late.status, 504);
    (await keysRequest.promise).end(JSON.stringify({ keys: [key.jwk] }));
    for (const _again of [1, 2]) {
      const ledger = await call("GetLedger", { productId: "p1" });
      assert.equal(ledger.status, 404, ledger.body.toString());
    }
  });
});
