import assert from "node:assert/strict";
import { type ClientHttp2Session, connect as connectHttp2 } from "node:http2";
import { describe, it } from "node:test";
import { setTimeout as wait } from "node:timers/promises";
import { gzipSync } from "node:zlib";
import { createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { ReservationService } from "../../../gen/inventory/v1/reservation_pb.ts";
import { StockService } from "../../../gen/inventory/v1/stock_pb.ts";
import { codeNameOf, PROTOCOLS } from "../../access/callers.ts";
import { type AppProcess, startAppProcess, startTestApp } from "../../support/app.ts";
import { type Certificate, createAuthority } from "../../support/certificates.ts";
import { freePort } from "../../support/free-port.ts";
import { need } from "../../support/programs.ts";
import { type Prometheus, startPrometheus } from "../../support/prometheus.ts";
import { scrape } from "../../support/scrape.ts";
import { until } from "../../support/until.ts";
import { FiredAlerts } from "./coverage.ts";
import { during, post, untilDone } from "./traffic.ts";

const SETTLE_MS_MAX = 60_000;
const DAY_MS = 86_400_000;
const skip = need("prometheus").missing;
const noOpenssl = need("openssl").missing;
const fired = new FiredAlerts("test/deploy/alerts/servers.long.ts");

/** A server in a process of its own, with the embedded store. */
async function startScrapedApp(): Promise<{ app: AppProcess; target: string }> {
  const adminPort = await freePort();
  return {
    app: await startAppProcess({ ADMIN_PORT: String(adminPort) }),
    target: `127.0.0.1:${adminPort}`,
  };
}

/** Asserts that alerts fire because of a fault, and not before it. */
async function assertFire(
  prometheus: Prometheus,
  alerts: readonly string[],
  fault: () => Promise<unknown>,
): Promise<void> {
  await prometheus.untilSilent(...alerts);
  await fault();
  await prometheus.untilFiring(...alerts);
  fired.add(...alerts);
}

/** Calls BatchGetStock by Connect JSON, with a compressed body. */
function postOn(session: ClientHttp2Session, body: Buffer): Promise<void> {
  return new Promise((resolve) => {
    const request = session.request({
      ":method": "POST",
      ":path": "/inventory.v1.StockService/BatchGetStock",
      "content-type": "application/json",
      "content-encoding": "gzip",
    });
    request.on("error", () => {});
    request.once("close", resolve);
    request.resume();
    request.end(body);
  });
}

describe("alerts on servers fire by their faults", { skip }, () => {
  it("a server killed, the only one of Orders: InventoryDown, and InventoryNoneReady for its pool", async () => {
    const [orders, shoppers] = [await startScrapedApp(), await startScrapedApp()];
    await using _orders = orders.app;
    await using _shoppers = shoppers.app;
    await using prometheus = await startPrometheus({
      inventory: [
        { targets: [orders.target], labels: { pool: "orders" } },
        { targets: [shoppers.target], labels: { pool: "shoppers" } },
      ],
    });
    await assertFire(prometheus, ["InventoryDown"], () => orders.app.kill9());
    await prometheus.untilFiring("InventoryNoneReady");
    const pools = (await prometheus.labelsOf("InventoryNoneReady")).map(({ pool }) => pool);
    assert.deepEqual(pools, ["orders"]);
    const down = (await prometheus.labelsOf("InventoryDown")).map(({ instance }) => instance);
    assert.deepEqual(down, [orders.target]);
  });

  it("a server that crashes three times: InventoryRestarts", async () => {
    const { app, target } = await startScrapedApp();
    await using _app = app;
    await using prometheus = await startPrometheus({ inventory: [{ targets: [target] }] });
    await assertFire(prometheus, ["InventoryRestarts"], async () => {
      for (let restart = 0; restart < 3; restart++) {
        await app.restart();
        const started = (await scrape(`http://${target}`)).value("process_start_time_seconds");
        await until(
          async () => (await prometheus.value("process_start_time_seconds")) === started,
          "the restarted server is scraped",
          SETTLE_MS_MAX,
        );
      }
    });
  });

  for (const { alert, suffix } of [
    { alert: "InventoryReadsSlow", suffix: "" },
    { alert: "InventoryCpuFull", suffix: " (needs a machine on which the server gets a core)" },
  ]) {
    it(`more large reads than one core can answer: ${alert}${suffix}`, async () => {
      const { app, target } = await startScrapedApp();
      await using _app = app;
      const productIds = Array.from({ length: 1_000 }, (_, n) => `large-${n}`);
      const put = (productId: string) =>
        post(app.url, "SupplyService/PutProduct", {
          productId,
          declared: 3,
          updateTime: new Date().toISOString(),
        });
      for (const productId of productIds) {
        await untilDone(() => put(productId));
      }
      await using prometheus = await startPrometheus({ inventory: [{ targets: [target] }] });
      await prometheus.untilSilent(alert);
      // Compressed requests take the Connect path, which costs the server several times as much as the client.
      const body = gzipSync(JSON.stringify({ productIds }));
      const session = connectHttp2(app.url);
      try {
        await during(prometheus.untilFiring(alert), () => postOn(session, body), {
          parallel: 90,
          pauseMs: 0,
        });
      } finally {
        session.destroy();
      }
      fired.add(alert);
    });
  }

  it("a process that its CPU limit stops for 300 ms at a time: InventoryEventLoopLate", async () => {
    const { app, target } = await startScrapedApp();
    await using _app = app;
    await using prometheus = await startPrometheus({ inventory: [{ targets: [target] }] });
    await prometheus.untilSilent("InventoryEventLoopLate");
    // As the Linux scheduler throttles a container that has used its quota.
    const throttle = async (): Promise<void> => {
      app.process().signal("SIGSTOP");
      await wait(300);
      app.process().signal("SIGCONT");
    };
    await during(prometheus.untilFiring("InventoryEventLoopLate"), throttle, { pauseMs: 500 });
    fired.add("InventoryEventLoopLate");
  });

  it("nine of ten watches, nine of eleven connections: InventoryWatchesNearLimit, InventoryConnectionsNearLimit", async () => {
    const adminPort = await freePort();
    await using app = await startTestApp(
      { ADMIN_PORT: String(adminPort) },
      { watchLimits: { watchesMax: 10 }, limits: { connectionsMax: 11 } },
    );
    await using prometheus = await startPrometheus({
      inventory: [{ targets: [`127.0.0.1:${adminPort}`] }],
    });
    const ended = new AbortController();
    // Over HTTP/1.1, each watch has a connection.
    const transport = createConnectTransport({ baseUrl: app.url, httpVersion: "1.1" });
    const watch = async (): Promise<void> => {
      const messages = createClient(StockService, transport).watchStock({}, { signal: ended.signal });
      for await (const _message of messages) {
        // Reads until the end.
      }
    };
    const watches: Promise<void>[] = [];
    try {
      await assertFire(
        prometheus,
        ["InventoryWatchesNearLimit", "InventoryConnectionsNearLimit"],
        async () => {
          watches.push(...Array.from({ length: 9 }, watch));
          await until(
            async () => (await scrape(app.adminUrl)).value("inventory_watches_open") === 9,
            "the watches are open",
            SETTLE_MS_MAX,
          );
        },
      );
    } finally {
      ended.abort();
      await Promise.allSettled(watches);
    }
  });

  it("client certificates that expire soon, and have expired: both alerts on them", {
    skip: noOpenssl,
  }, async () => {
    await using authority = await createAuthority();
    const server = await authority.issue("localhost", "DNS:localhost,IP:127.0.0.1");
    const adminPort = await freePort();
    await using app = await startTestApp({
      TLS_CERT: server.certFile,
      TLS_KEY: server.keyFile,
      TLS_CLIENT_CA: authority.certFile,
      TLS_CLIENT_ROLES: "orders.shop.example:orders",
      ADMIN_PORT: String(adminPort),
    });
    await using prometheus = await startPrometheus({
      inventory: [{ targets: [`127.0.0.1:${adminPort}`] }],
    });
    const issue = (fromDays: number, toDays: number) =>
      authority.issueBetween(
        "orders.shop.example",
        new Date(Date.now() + fromDays * DAY_MS),
        new Date(Date.now() + toDays * DAY_MS),
      );
    async function call({ cert, key }: Certificate): Promise<void> {
      const transport = PROTOCOLS["Connect JSON"]?.({
        baseUrl: app.url,
        interceptors: [],
        nodeOptions: { ca: authority.cert, cert, key },
      });
      assert.ok(transport);
      // A method that needs a role: public ones do not look at the certificate.
      await codeNameOf(createClient(ReservationService, transport).getReservation({ reservationId: "r" }));
    }
    const [valid, endsSoon, expired] = [await issue(-1, 30), await issue(-1, 6), await issue(-30, -1)];
    await call(valid);
    await until(
      async () =>
        (await prometheus.value("inventory_client_certificate_expiry_timestamp_seconds")) !== undefined,
      "the certificate that is valid for 30 days is scraped",
      SETTLE_MS_MAX,
    );
    await assertFire(prometheus, ["InventoryClientCertificateExpires"], () => call(endsSoon));
    await assertFire(prometheus, ["InventoryClientCertificateRefused"], () => call(expired));
    const reasons = (await prometheus.labelsOf("InventoryClientCertificateRefused")).map(
      ({ reason }) => reason,
    );
    assert.deepEqual(reasons, ["expired"]);
  });

  it("every alert that is listed for this file has fired", () => {
    fired.assertComplete(
      noOpenssl ? ["InventoryClientCertificateExpires", "InventoryClientCertificateRefused"] : [],
    );
  });
});
