import assert from "node:assert/strict";
import { eventually } from "./wait.ts";
import { operate, PRODUCT, type Walk } from "./walk.ts";

const APPLIED_MS_MAX = 60_000;
const STARTED_MS_MAX = 30_000;
export const SUPPLIED = 1_000_000;

/** The page, a seller's message, reads by each protocol, writes, isolation, the runbook's commands, a restart of the edge. */
export async function callService(walk: Walk, writersOpen: NodeJS.ProcessEnv): Promise<void> {
  const { shop, say } = walk;
  await openPage(walk);
  await sendSellersMessage(walk, PRODUCT, SUPPLIED);
  say(`Kafka: a seller's message supplies ${SUPPLIED} of ${PRODUCT}`);
  for (const [protocol, client] of Object.entries(shop.clients())) {
    // A busy server refuses reads, and clients repeat them.
    const { stock } = await eventually(
      () => client.getStock({ productId: PRODUCT }),
      `GetStock by ${protocol}`,
      APPLIED_MS_MAX,
    );
    assert.equal(stock?.available, SUPPLIED, protocol);
  }
  say("GetStock by Connect, gRPC and gRPC-Web: 200");
  await expectIsolation(walk);

  const reservation = { reservationId: "walk-1", lines: [{ productId: PRODUCT, quantity: 1 }] };
  const reserve = (headers: Record<string, string>) =>
    shop.fetchPatiently("/inventory.v1.ReservationService/Reserve", { body: reservation, headers });
  const authorization = `Bearer ${walk.tokens.orders}`;
  assert.equal(
    (await reserve({ authorization })).status,
    404,
    "no network may write unless EDGE_WRITERS has it",
  );
  await restartEdge({ ...walk, variables: writersOpen });
  assert.equal((await reserve({})).status, 401);
  assert.equal((await reserve({ authorization: "Bearer wrong" })).status, 401);
  assert.equal((await reserve({ authorization })).status, 200);
  const release = { body: { reservationId: "walk-1" }, headers: { authorization } };
  assert.equal(
    (await shop.fetchPatiently("/inventory.v1.ReservationService/ReleaseReservation", release)).status,
    200,
  );
  say("Reserve through the edge: 404 outside EDGE_WRITERS, 401 without a token, 200 with one");
  await runRunbook(walk);
}

async function openPage({ shop, say }: Walk): Promise<void> {
  const page = await shop.fetchPatiently("/");
  const script = /<script[^>]+src="([^"]+)"/.exec(page.text)?.[1];
  assert.ok(script !== undefined, "the page has a script");
  assert.equal((await shop.fetchPatiently(script)).status, 200);
  assert.equal((await shop.fetch("/readyz")).status, 404, "readiness is not public");
  say(`The page: 200, its script ${script} too; /readyz is not public`);
}

/** Sends a product update as a seller's system does, and waits until shoppers see it. */
export async function sendSellersMessage(
  { engine, shop }: Walk,
  id: string,
  inventory: number,
): Promise<void> {
  const value = {
    id,
    updatedAt: new Date().toISOString(),
    name: id,
    description: "",
    price: 24.99,
    inventory,
  };
  const producer = [
    ...["/opt/kafka/bin/kafka-console-producer.sh", "--bootstrap-server", "kafka:9092", "--topic", "product"],
    ...["--property", "parse.headers=true", "--property", "headers.delimiter=|"],
  ];
  const input = `MessageType:Update|${JSON.stringify(value)}\n`;
  // Repeated: after `up`, podman's name server may not know `kafka` for up to 40 s, and the producer resolves it once. A message
  // that is sent twice is applied once.
  await eventually(
    async () => {
      await engine.exec("kafka", producer, { input, timeoutMs: APPLIED_MS_MAX });
      return true;
    },
    `the seller's message about ${id} is sent`,
    APPLIED_MS_MAX,
  );
  await eventually(
    async () => {
      const { status } = await shop.fetch("/inventory.v1.StockService/GetStock", { body: { productId: id } });
      return status === 200;
    },
    `the seller's message about ${id} is applied`,
    APPLIED_MS_MAX,
  );
}

async function expectIsolation({ engine, say }: Walk): Promise<void> {
  const inside = (script: string): Promise<string> => engine.exec("inventory-1", ["node", "-e", script]);
  assert.equal(await inside("console.log(process.getuid())"), "1000");
  const write =
    'try { fs.writeFileSync("/app/x", ""); console.log("written") } catch (e) { console.log(e.code) }';
  assert.equal(await inside(write), "EROFS");
  // Destination 0.0.0.0 is the default route.
  const routes =
    'console.log(fs.readFileSync("/proc/net/route", "utf8").split("\\n").filter(l => l.split("\\t")[1] === "00000000").length)';
  assert.equal(await inside(routes), "0", "`inside` has no route to the outside");
  const limits = await engine.do([
    ...["inspect", await engine.container("inventory-1"), "--format"],
    "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}} {{.HostConfig.ReadonlyRootfs}}",
  ]);
  assert.equal(limits, `${1024 ** 3} 256 true`);
  for (const service of ["inventory-1", "kafka", ...engine.redis.services]) {
    const ports = await engine.do(["port", await engine.container(service)]);
    assert.equal(ports, "", `${service} publishes no port`);
  }
  say("Servers: user 1000, read-only, no route out, 1 GiB, 256 processes; only the edge publishes ports");
}

/** Restarts the edge while a watch is open: a proxy might wait for it to end. */
async function restartEdge(walk: Walk): Promise<void> {
  const { engine, shop, variables, say } = walk;
  const reads = shop.startReads(PRODUCT);
  try {
    await reads.watching();
    reads.report();
    const startMs = performance.now();
    await engine.do(["stop", "--time", "15", await engine.container("edge")]);
    const stoppedMs = performance.now() - startMs;
    const code = await engine.exitCode("edge");
    await engine.replace("edge", variables);
    await eventually(async () => (await shop.fetch("/")).status === 200, "the edge is back", STARTED_MS_MAX);
    await reads.watching();
    say(`The edge, restarted with a watch open: stopped in ${seconds(stoppedMs)}, exit code ${code}`);
    assert.ok(code === 0 && stoppedMs < 10_000, "the edge ends in order while a watch is open");
  } finally {
    await reads.end();
  }
}

async function runRunbook(walk: Walk): Promise<void> {
  const { engine, variables, say } = walk;
  await engine.compose(["--profile", "operator", "build", "operator"], variables);
  const ready = await operate(walk, "curl -s $ADMIN/readyz");
  assert.equal(JSON.parse(ready).ready, true);
  const ledger = await operate(walk, `ask '{"productId":"${PRODUCT}"}' inventory.v1.SupplyService/GetLedger`);
  assert.equal(JSON.parse(ledger).ledger.declared, SUPPLIED);
  const declared = await operate(walk, `$REDIS hget "$($REDIS --scan --pattern '{b??}:p:${PRODUCT}')" D`);
  assert.equal(declared, String(SUPPLIED));
  say("The runbook's curl, grpcurl and redis-cli: `docker compose run --rm operator`");
}

export function seconds(ms: number): string {
  return `${(ms / 1_000).toFixed(1)} s`;
}
