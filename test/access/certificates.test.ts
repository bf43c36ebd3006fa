import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { ReservationService } from "../../gen/inventory/v1/reservation_pb.ts";
import { StockService } from "../../gen/inventory/v1/stock_pb.ts";
import { readConfig } from "../../server/config.ts";
import { startTestApp, type TestApp } from "../support/app.ts";
import { type Authority, type Certificate, createAuthority } from "../support/certificates.ts";
import { need } from "../support/programs.ts";
import { codeNameOf, PROTOCOLS, sending } from "./callers.ts";

describe("clients with certificates", { skip: need("openssl").missing }, () => {
  let authority: Authority;
  let environment: NodeJS.ProcessEnv;
  let app: TestApp;
  before(async () => {
    authority = await createAuthority();
    const server = await authority.issue("localhost", "DNS:localhost,IP:127.0.0.1");
    environment = {
      TLS_CERT: server.certFile,
      TLS_KEY: server.keyFile,
      TLS_CLIENT_CA: authority.certFile,
      TLS_CLIENT_ROLES: "orders.shop.example:orders,spiffe://shop/supply:supply",
    };
    app = await startTestApp(environment);
  });
  after(async () => {
    await app.stop();
    await authority[Symbol.asyncDispose]();
  });

  for (const [protocol, create] of Object.entries(PROTOCOLS)) {
    const callsWith = async (
      certificate: Certificate | undefined,
    ): Promise<{ orders: string; stock: string }> => {
      const transport = create({
        baseUrl: app.url,
        interceptors: [],
        nodeOptions: {
          ca: authority.cert,
          ...(certificate && { cert: certificate.cert, key: certificate.key }),
        },
      });
      return {
        orders: await codeNameOf(
          createClient(ReservationService, transport).getReservation({ reservationId: "r1" }),
        ),
        stock: await codeNameOf(createClient(StockService, transport).getStock({ productId: "p1" })),
      };
    };

    it(`${protocol}: are identified by common name or subject alternative name, and have its role`, async () => {
      const letIn = { orders: "NotFound", stock: "NotFound" };
      assert.deepEqual(await callsWith(await authority.issue("orders.shop.example")), letIn);
      assert.deepEqual(await callsWith(await authority.issue("x", "DNS:orders.shop.example")), letIn);
      const supply = await authority.issue("x", "URI:spiffe://shop/supply");
      assert.deepEqual(await callsWith(supply), { orders: "PermissionDenied", stock: "NotFound" });
    });

    it(`${protocol}: are unauthenticated without a certificate, with an unlisted name, or from another CA`, async () => {
      const unknown = { orders: "Unauthenticated", stock: "NotFound" };
      assert.deepEqual(await callsWith(undefined), unknown);
      assert.deepEqual(await callsWith(await authority.issue("orders.shop.example.evil")), unknown);
      await using otherAuthority = await createAuthority();
      assert.deepEqual(await callsWith(await otherAuthority.issue("orders.shop.example")), unknown);
    });
  }

  it("are authenticated, while clients of their proxy are not", async () => {
    await using behindProxy = await startTestApp({ ...environment, TRUSTED_PROXIES: "127.0.0.1" });
    const { cert, key } = await authority.issue("orders.shop.example");
    const codeWith = (headers: Readonly<Record<string, string>>): Promise<string> => {
      const nodeOptions = { ca: authority.cert, cert, key };
      const interceptors = [sending(headers)];
      const transport = createGrpcTransport({ baseUrl: behindProxy.url, interceptors, nodeOptions });
      return codeNameOf(createClient(ReservationService, transport).getReservation({ reservationId: "r1" }));
    };
    assert.equal(await codeWith({}), "NotFound");
    for (const forwardedFor of ["203.0.113.1", "127.0.0.1", "unknown", ""]) {
      assert.equal(await codeWith({ "x-forwarded-for": forwardedFor }), "Unauthenticated", forwardedFor);
    }
  });

  it("require a CA file; other files are rejected at start", () => {
    for (const file of [authority.keyFile, "/dev/null"]) {
      const read = () => readConfig({ ...environment, TLS_CLIENT_CA: file });
      assert.throws(read, /^ConfigError: TLS_CLIENT_CA is ".*"; it is not a certificate: /);
    }
  });
});
