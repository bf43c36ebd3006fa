import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { promisify } from "node:util";
import { Redis } from "ioredis";
import kafkajs from "kafkajs";
import { originOf } from "../../server/kafka/dead-letters.ts";
import { Keys } from "../../server/redis/keys.ts";
import { scrape } from "../support/scrape.ts";
import { until } from "../support/until.ts";
import { type Isolation, startIsolation } from "./isolation.ts";
import { DEAD_LETTERS, headerOf, readTopic, skip } from "./platform.ts";
import { produceRaw, record } from "./raw-producer.ts";

const { AclOperationTypes, AclPermissionTypes, AclResourceTypes, ResourcePatternTypes } = kafkajs;
const run = promisify(execFile);
const TOOLS = join(import.meta.dirname, "../../tools");
const SETTLE_MS_MAX = 60_000;
/** Long enough to see a letter wait. */
const WAIT_MS = 6_000;

interface Report {
  readonly degraded: readonly string[];
}

describe("a dead letter that cannot be delivered", { skip }, () => {
  let isolation: Isolation;
  before(async () => {
    isolation = await startIsolation(
      { KAFKA_DEAD_LETTER_WAIT_MS: String(WAIT_MS) },
      {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "true",
      },
    );
  });
  after(() => isolation?.[Symbol.asyncDispose]());

  const report = async (): Promise<Report> =>
    (await (await fetch(`${isolation.adminUrl}/readyz`)).json()) as Report;
  const metric = async (name: string): Promise<number> => (await scrape(isolation.adminUrl)).value(name) ?? 0;
  const sound = () =>
    until(async () => (await report()).degraded.length === 0, "nothing is degraded", SETTLE_MS_MAX);

  async function tool(name: string, ...args: string[]): Promise<string> {
    const env = { PATH: process.env["PATH"], KAFKA_BROKERS: isolation.platform.environment["KAFKA_BROKERS"] };
    const command = ["--disable-warning=TimeoutNegativeWarning", join(TOOLS, name), ...args];
    return (await run(process.execPath, command, { env })).stdout;
  }

  /** An invalid message in partition 0 waits, is reported with its place, and is then only logged; all else goes on. */
  async function assertHoldsItsPartitionOnly(name: string, reason: RegExp): Promise<void> {
    const { cluster, untilApplied, untilCommitted } = isolation;
    const logged = await metric("inventory_dead_letters_logged_total");
    const key = Buffer.from(`${name}-${"k".repeat(200)}`);
    const offset = await produceRaw(cluster, "product", 0, [record({ id: "" }, { key })]);
    await produceRaw(cluster, "product", 0, [record({ id: `${name}-behind`, quantity: 4 })]);
    const place = await until(
      async () =>
        (await report()).degraded.find((each) =>
          each.includes(`product partition 0 waits at offset ${offset}`),
        ),
      "the health report names the message",
      SETTLE_MS_MAX,
    );
    assert.match(place, reason);
    assert.match(place, new RegExp(`topic ${DEAD_LETTERS}`));
    assert.ok(place.includes(`(key "${name}-kkk`) && place.includes(`(${key.length} bytes)`), place);
    assert.equal((await scrape(isolation.adminUrl)).value("inventory_ingest_waiting_partitions"), 1);
    await untilApplied(`${name}-beside-1`, 1);
    await untilApplied(`${name}-beside-2`, 2);
    await produceRaw(cluster, "collection", 0, [record({ id: name, name })]);
    await until(
      async () => (await isolation.store.listCollections()).some(({ collectionId }) => collectionId === name),
      "the other topic goes on",
      SETTLE_MS_MAX,
    );
    assert.equal(await metric("inventory_dead_letters_logged_total"), logged, "it still waits");
    await untilCommitted(0, offset + 2n);
    assert.equal((await isolation.store.getLedger(`${name}-behind`)).declared, 4);
    assert.equal(await metric("inventory_dead_letters_logged_total"), logged + 1);
    const line = (await isolation.output())
      .split("\n")
      .find((each) => each.includes("is only logged") && each.includes(`"offset":"${offset}"`));
    assert.match(line ?? "", /"topic":"product","partition":0/);
    assert.match(line ?? "", /"reason":"bad-id"/);
    // The next one does not wait: nothing has been accepted for longer than that.
    const next = await produceRaw(cluster, "product", 0, [record({ id: "" })]);
    await untilCommitted(0, next + 1n);
    assert.match(
      (await report()).degraded.join(),
      /Dead letters cannot be sent to topic .*; 2 were only logged/,
    );
  }

  it("since it is too large for the topic is shortened at once, and can be redriven", async () => {
    const { cluster, platform, untilCommitted } = isolation;
    await sound();
    // Just below what the source topic accepts: the headers that are added are too much.
    const value = Buffer.alloc(1_048_400, "x");
    const offset = await produceRaw(cluster, "product", 0, [record(value, { key: Buffer.from("large") })]);
    await untilCommitted(0, offset + 1n);
    const [letter] = await isolation.newLetters();
    assert.ok(letter);
    assert.equal(letter.value, null);
    assert.equal(String(letter.key), "large");
    const origin = originOf(letter.headers);
    assert.deepEqual(
      [origin?.topic, origin?.partition, origin?.offset, origin?.reason, origin?.isShortened],
      ["product", 0, String(offset), "not-json", true],
    );
    assert.equal(letter.headers.text("MessageType"), "Update");
    assert.equal(await metric("inventory_dead_letters_shortened_total"), 1);
    assert.match(await tool("redrive.ts", "--dry-run"), /not-json, from product 0\/\d+/);
    assert.match(await tool("redrive.ts"), /1 of 1 dead letters were sent back/);
    const returned = (await readTopic(platform.kafka, "product")).find(
      (message) => headerOf(message, "inventory-redrive") === "1",
    );
    assert.ok(returned?.value?.equals(value), "the original is read from its own topic");
  });

  it("since its topic may not be written holds back its own partition, for a time", async () => {
    const admin = isolation.platform.kafka.admin();
    await admin.connect();
    const acl = {
      resourceType: AclResourceTypes.TOPIC,
      resourceName: DEAD_LETTERS,
      resourcePatternType: ResourcePatternTypes.LITERAL,
      principal: "User:ANONYMOUS",
      host: "*",
      operation: AclOperationTypes.WRITE,
      permissionType: AclPermissionTypes.DENY,
    };
    const others = { ...acl, operation: AclOperationTypes.ALL, permissionType: AclPermissionTypes.ALLOW };
    await admin.createAcls({ acl: [others, acl] });
    await assertHoldsItsPartitionOnly("forbidden", /TOPIC_AUTHORIZATION_FAILED/);
    await admin.deleteAcls({ filters: [acl, others] });
    await admin.disconnect();
    await isolation.newLetters();
    await produceRaw(isolation.cluster, "product", 1, [record({ id: "" })]);
    await until(
      async () => (await isolation.newLetters()).length === 1,
      "letters are delivered again",
      SETTLE_MS_MAX,
    );
    await sound();
  });

  it("since its topic is missing holds back its own partition, for a time", async () => {
    const admin = isolation.platform.kafka.admin();
    await admin.connect();
    await admin.deleteTopics({ topics: [DEAD_LETTERS] });
    await until(
      async () =>
        (await report()).degraded.some((each) => each.includes(`Topic ${DEAD_LETTERS} does not exist`)),
      "the health report names the topic",
      SETTLE_MS_MAX,
    );
    await assertHoldsItsPartitionOnly("missing", /UNKNOWN_TOPIC_OR_PARTITION/);
    await isolation.platform.broker.createTopic(DEAD_LETTERS, 1);
    await produceRaw(isolation.cluster, "product", 1, [record({ id: "" })]);
    await until(
      async () => (await readTopic(isolation.platform.kafka, DEAD_LETTERS)).length === 1,
      "letters are delivered again",
      SETTLE_MS_MAX,
    );
    await sound();
    await admin.disconnect();
  });

  it("an event that fails with an internal error is named, and then dead-lettered by itself", async () => {
    const { cluster, platform, store } = isolation;
    const redis = new Redis(platform.redis.url);
    // A ledger that is no hash: every operation on this product fails.
    await redis.set(new Keys(8).ledger("damaged"), "?");
    redis.disconnect();
    const offset = await produceRaw(cluster, "product", 0, [
      record({ id: "sound-1", quantity: 1 }),
      record({ id: "damaged", quantity: 1 }, { key: Buffer.from("the-key") }),
      record({ id: "sound-2", quantity: 2 }),
    ]);
    const place = await until(
      async () => (await report()).degraded.find((each) => each.includes("product partition 0 waits")),
      "the health report names the message",
      SETTLE_MS_MAX,
    );
    assert.match(place, new RegExp(`waits at offset ${offset + 1n} \\(key "the-key"\\)`));
    assert.equal((await store.getLedger("sound-2")).declared, 2);
    await isolation.untilApplied("beside the damaged one", 1);
    await isolation.untilCommitted(0, offset + 3n);
    const letters = (await readTopic(platform.kafka, DEAD_LETTERS)).filter(
      (letter) => headerOf(letter, "inventory-dead-letter-reason") === "internal-error",
    );
    assert.deepEqual(
      letters.map((letter) => headerOf(letter, "inventory-dead-letter-offset")),
      [String(offset + 1n)],
    );
    assert.match(
      await isolation.output(),
      new RegExp(`"offset":"${offset + 1n}","key":"the-key".*internal error`),
    );
    await sound();
  });
});
