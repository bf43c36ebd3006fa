import { randomUUID } from "node:crypto";
import { after, before, describe, it } from "node:test";
import { startTestApp, type TestApp } from "../../support/app.ts";
import { freePort } from "../../support/free-port.ts";
import { need } from "../../support/programs.ts";
import { type Prometheus, startPrometheus } from "../../support/prometheus.ts";
import { type FailoverGroup, type FailoverNode, startFailoverGroup } from "../../support/redis-failover.ts";
import { FiredAlerts } from "./coverage.ts";
import { during, post, untilDone } from "./traffic.ts";

const skip = need("redis-server").missing || need("prometheus").missing;
const fired = new FiredAlerts("test/deploy/alerts/replicas.long.ts");

describe("alerts on replicas fire by their faults", { skip }, () => {
  let group: FailoverGroup;
  let primary: FailoverNode;
  let replicas: readonly FailoverNode[];
  let app: TestApp;
  let prometheus: Prometheus;

  before(async () => {
    group = await startFailoverGroup();
    primary = await group.primary();
    replicas = group.nodes.filter((node) => node !== primary);
    const adminPort = await freePort();
    app = await startTestApp({
      REDIS_SENTINELS: group.sentinels,
      REDIS_ACKS: "1",
      ADMIN_PORT: String(adminPort),
    });
    prometheus = await startPrometheus({ inventory: [{ targets: [`127.0.0.1:${adminPort}`] }] });
    await untilDone(() =>
      post(app.url, "SupplyService/PutProduct", {
        productId: "p",
        declared: 1_000_000,
        updateTime: new Date().toISOString(),
      }),
    );
  });
  after(async () => {
    await prometheus?.[Symbol.asyncDispose]();
    await app?.stop();
    await group?.[Symbol.asyncDispose]();
  });

  /** Replicas are counted when something is written. */
  const reserve = () =>
    post(app.url, "ReservationService/Reserve", {
      reservationId: randomUUID(),
      lines: [{ productId: "p", quantity: 1 }],
    });

  /** Asserts that an alert fires because of a fault, and not before it. */
  async function assertFires(alert: string, fault: () => Promise<void>): Promise<void> {
    await during(prometheus.untilSilent(alert), reserve);
    await fault();
    await during(prometheus.untilFiring(alert), reserve);
    fired.add(alert);
  }

  it("replicas that are a second behind: InventoryUnacknowledged", async () => {
    await assertFires("InventoryUnacknowledged", async () =>
      primary.link.set("replica", { kind: "delay", ms: 500 }),
    );
    primary.link.set("replica", { kind: "delay", ms: 1 });
    await group.replicating(2);
  });

  it("one of two replicas killed: InventoryReplicaMissing", async () => {
    await assertFires("InventoryReplicaMissing", async () => replicas[0]?.server.kill9());
  });

  it("the other one killed as well: InventoryNoReplica", async () => {
    await assertFires("InventoryNoReplica", async () => replicas[1]?.server.kill9());
  });

  it("every alert that is listed for this file has fired", () => {
    fired.assertComplete();
  });
});
