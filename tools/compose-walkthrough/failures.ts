import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { seconds, sendSellersMessage } from "./first-calls.ts";
import type { Orders } from "./orders.ts";
import type { Reads } from "./shoppers.ts";
import { eventually } from "./wait.ts";
import { operate, PRODUCT, type Walk } from "./walk.ts";

const RECOVERED_MS_MAX = 90_000;
const SETTLE_MS = 1_500;
const SERVERS = ["inventory-1", "inventory-2", "inventory-orders"] as const;

export interface Failure {
  readonly name: string;
  /** Resolves when everything works again. */
  readonly act: () => Promise<void>;
  /** No read may fail. */
  readonly keepsReads: boolean;
}

/** Stops and kills each container under reads and orders. Then compares the ledger with the acknowledged orders. */
export async function failContainers(walk: Walk, orders: Orders): Promise<void> {
  const { engine, shop, say } = walk;
  const reads = shop.startReads(PRODUCT);
  await reads.watching();
  await orders.report();
  reads.report();
  say("");
  say("under reads and orders                     reads   shed  failed     gap   orders  repeated  gap");
  for (const failure of failures(walk)) {
    await failure.act();
    await sleep(SETTLE_MS);
    await report(walk, failure, reads, orders);
  }
  const { total } = await orders.end();
  await reads.end();
  say("");
  await expectLedger(walk, total);
  say(`The ledger: ${total} orders acknowledged, ${total} sold`);

  await engine.down(walk.variables);
  await engine.compose(["up", "-d", "--no-build"], walk.variables);
  await eventually(async () => (await shop.fetch("/")).status === 200, "the page is back", RECOVERED_MS_MAX);
  await eventually(() => expectLedger(walk, total).then(() => true), "the ledger is back", RECOVERED_MS_MAX);
  await sendSellersMessage(walk, "dress-2", 5);
  say(`Everything down and up again: ${total} sold, and a seller's message is applied`);
}

function failures(walk: Walk): Failure[] {
  const { engine } = walk;
  const stopped = (service: string, kind: "stop" | "kill", keepsReads = true): Failure => ({
    name: `${service}: ${kind}`,
    keepsReads,
    act: async () => {
      await end(walk, service, kind);
      await sleep(SETTLE_MS);
      await engine.do(["start", await engine.container(service)]);
      await healthy(walk, service);
    },
  });
  return [
    ...SERVERS.flatMap((service) => [stopped(service, "stop"), stopped(service, "kill")]),
    {
      name: "rolling replacement",
      keepsReads: true,
      act: async () => {
        for (const service of SERVERS) {
          await engine.do(["stop", "--time", "20", await engine.container(service)]);
          assert.equal(await engine.exitCode(service), 0);
          await engine.replace(service, walk.variables);
          await healthy(walk, service);
        }
      },
    },
    ...engine.redis.failures(walk),
    {
      name: "kafka: kill",
      keepsReads: true,
      act: async () => {
        await end(walk, "kafka", "kill");
        await engine.do(["start", await engine.container("kafka")]);
        await healthy(walk, "kafka");
        await sendSellersMessage(walk, `after-kill-${Date.now()}`, 5);
      },
    },
  ];
}

async function report(
  { say }: Walk,
  { name, keepsReads }: Failure,
  reads: Reads,
  orders: Orders,
): Promise<void> {
  const read = reads.report();
  const ordered = await orders.report();
  const failedReads = Object.values(read.failed).reduce((sum, count) => sum + count, 0);
  const failedCalls = Object.values(ordered.failedCalls).reduce((sum, count) => sum + count, 0);
  const row = [
    name.padEnd(42),
    String(read.reads).padStart(5),
    String(read.shed).padStart(6),
    String(failedReads).padStart(7),
    seconds(read.longestGapMs).padStart(7),
    String(ordered.orders).padStart(8),
    String(failedCalls).padStart(9),
    seconds(ordered.longestGapMs).padStart(8),
  ];
  say(`${row.join(" ")}  ${kinds(read.failed)} ${kinds(ordered.failedCalls)}`.trimEnd());
  assert.ok(read.reads > 0 && ordered.orders > 0, "reads and orders went on");
  if (keepsReads) assert.equal(failedReads, 0, `${name}: reads failed`);
}

function kinds(failed: Readonly<Record<string, number>>): string {
  return Object.entries(failed)
    .map(([kind, count]) => `${count} ${kind}`)
    .join(", ");
}

export async function end({ engine }: Walk, service: string, kind: "stop" | "kill"): Promise<void> {
  const container = await engine.container(service);
  await engine.do(kind === "kill" ? ["kill", container] : ["stop", "--time", "30", container]);
}

async function healthy({ engine }: Walk, service: string): Promise<void> {
  await eventually(() => engine.isHealthy(service), `${service} is healthy`, RECOVERED_MS_MAX);
}

/** Everything supplied is sold or available, and the units sold are those of the acknowledged orders. */
async function expectLedger(walk: Walk, orders: number): Promise<void> {
  const reply = await operate(walk, `ask '{"productId":"${PRODUCT}"}' inventory.v1.SupplyService/GetLedger`);
  const { sold = 0, reserved = 0, declared = 0, onHand = 0 } = JSON.parse(reply).ledger;
  assert.deepEqual({ sold, reserved }, { sold: orders, reserved: 0 });
  assert.equal(onHand, declared - sold);
}
