import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { promisify } from "node:util";
import { Redis } from "ioredis";
import kafkajs, { type Admin } from "kafkajs";
import { originOf } from "../../server/kafka/dead-letters/dead-letters.ts";
import type { IncomingMessage } from "../../server/kafka/ingest/message.ts";
import { readRange } from "../../server/kafka/ingest/read-range.ts";
import { Keys } from "../../server/redis/keys.ts";
import { scrape } from "../support/scrape.ts";
import { until } from "../support/until.ts";
import { type Isolation, startIsolation } from "./isolation.ts";
import { DEAD_LETTERS, skip, TOPICS } from "./platform.ts";
import { produceRaw, record } from "./raw-producer.ts";

const { AclOperationTypes, AclPermissionTypes, AclResourceTypes, ConfigResourceTypes, ResourcePatternTypes } =
  kafkajs;
const run = promisify(execFile);
const TOOLS = join(import.meta.dirname, "../../tools");
const SETTLE_MS_MAX = 60_000;
/** Longer than any of these tests: a letter waits until the fault is removed. */
const PATIENT = { KAFKA_DEAD_LETTER_WAIT_MS: "600000" };
/** A letter is given up soon. */
const IMPATIENT = { KAFKA_DEAD_LETTER_WAIT_MS: "500" };

interface Fault {
  readonly name: string;
  /** What the health report says of a letter that waits. */
  readonly reason: RegExp;
  cause(admin: Admin): Promise<unknown>;
  remove(admin: Admin): Promise<unknown>;
}

const acl = {
  resourceType: AclResourceTypes.TOPIC,
  resourceName: DEAD_LETTERS,
  resourcePatternType: ResourcePatternTypes.LITERAL,
  principal: "User:ANONYMOUS",
  host: "*",
  operation: AclOperationTypes.WRITE,
  permissionType: AclPermissionTypes.DENY,
};
/** Without this one, the denial of writes would deny everything else as well. */
const others = { ...acl, operation: AclOperationTypes.ALL, permissionType: AclPermissionTypes.ALLOW };

const setMaxBytes = (admin: Admin, bytes: number): Promise<unknown> =>
  admin.alterConfigs({
    validateOnly: false,
    resources: [
      {
        type: ConfigResourceTypes.TOPIC,
        name: DEAD_LETTERS,
        configEntries: [{ name: "max.message.bytes", value: String(bytes) }],
      },
    ],
  });

const FAULTS: readonly Fault[] = [
  {
    name: "since its topic may not be written",
    reason: /TOPIC_AUTHORIZATION_FAILED/,
    cause: (admin) => admin.createAcls({ acl: [others, acl] }),
    remove: (admin) => admin.deleteAcls({ filters: [acl, others] }),
  },
  {
    name: "since its topic is missing",
    reason: /UNKNOWN_TOPIC_OR_PARTITION/,
    cause: (admin) => admin.deleteTopics({ topics: [DEAD_LETTERS] }),
    remove: (admin) =>
      admin.createTopics({
        // kafkajs rejects if the metadata of a slow broker do not have the new topic yet.
        waitForLeaders: false,
        topics: [{ topic: DEAD_LETTERS, numPartitions: TOPICS[DEAD_LETTERS] }],
      }),
  },
  {
    name: "since even its shortened form is too large for the topic",
    reason: /MESSAGE_TOO_LARGE/,
    cause: (admin) => setMaxBytes(admin, 100),
    remove: (admin) => setMaxBytes(admin, 1_048_588),
  },
];

describe("a dead letter that cannot be delivered", { skip }, () => {
  let isolation: Isolation;
  let admin: Admin;
  before(async () => {
    isolation = await startIsolation(PATIENT, {
      "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
      "allow.everyone.if.no.acl.found": "true",
    });
    admin = isolation.platform.kafka.admin();
    await admin.connect();
  });
  after(async () => {
    await admin?.disconnect();
    await isolation?.[Symbol.asyncDispose]();
  });

  const degraded = async (): Promise<readonly string[]> => {
    const response = await fetch(`${isolation.adminUrl}/readyz`);
    const report = (await response.json()) as { degraded: readonly string[] };
    // One of these tests damages a record in Redis, which is reported for ten minutes.
    return report.degraded.filter((each) => !/record .* in Redis is damaged/.test(each));
  };
  const metric = async (name: string): Promise<number> => (await scrape(isolation.adminUrl)).value(name) ?? 0;
  const sound = () =>
    until(
      async () => {
        assert.deepEqual(await degraded(), []);
        return true;
      },
      "nothing is degraded",
      SETTLE_MS_MAX,
    );

  /** Waits for the letter of a message of `product` partition 0. */
  async function untilLetter(offset: bigint): Promise<IncomingMessage> {
    const { cluster } = isolation;
    return until(
      async () => {
        await cluster.describeTopics([DEAD_LETTERS]);
        const partitions = (await cluster.partitionsOf(DEAD_LETTERS)).map((partition) => ({
          topic: DEAD_LETTERS,
          partition,
        }));
        for (const { earliest, latest, ...partition } of await cluster.ranges(partitions)) {
          for await (const { messages } of readRange(cluster, partition, earliest, latest)) {
            const found = messages.find((letter) => originOf(letter.headers)?.offset === String(offset));
            if (found !== undefined) {
              return found;
            }
          }
        }
        return undefined;
      },
      `the letter of offset ${offset} is in the topic`,
      SETTLE_MS_MAX,
    );
  }

  /** Sends an invalid message to partition 0, with a long key, and a valid one behind it. */
  async function sendInvalid(id: string): Promise<{ offset: bigint; key: Buffer }> {
    const key = Buffer.from(`${id}-${"k".repeat(200)}`);
    const offset = await produceRaw(isolation.cluster, "product", 0, [record({ id: "" }, { key })]);
    await produceRaw(isolation.cluster, "product", 0, [record({ id: `${id}-behind`, quantity: 4 })]);
    return { offset, key };
  }

  async function tool(name: string, ...args: string[]): Promise<string> {
    const env = { PATH: process.env["PATH"], KAFKA_BROKERS: isolation.platform.environment["KAFKA_BROKERS"] };
    const command = ["--disable-warning=TimeoutNegativeWarning", join(TOOLS, name), ...args];
    return (await run(process.execPath, command, { env })).stdout;
  }

  it("in full, because the added headers make it too large, is shortened at once and can be redriven", async () => {
    const { cluster, untilCommitted, store } = isolation;
    // Of bytes that no compression makes smaller. The source topic has room for one more header, and not for seven.
    const value = Buffer.concat([Buffer.from("?"), randomBytes(1_048_000)]);
    const offset = await produceRaw(cluster, "product", 0, [record(value, { key: Buffer.from("large") })]);
    await produceRaw(cluster, "product", 0, [record({ id: "behind-large", quantity: 4 })]);
    await untilCommitted(0, offset + 2n);
    assert.equal((await store.getLedger("behind-large")).declared, 4);
    const letter = await untilLetter(offset);
    assert.equal(letter.value?.length, undefined, "a shortened letter has no value");
    assert.equal(String(letter.key), "large");
    const origin = originOf(letter.headers);
    assert.deepEqual(
      [origin?.topic, origin?.partition, origin?.offset, origin?.reason, origin?.isShortened],
      ["product", 0, String(offset), "not-json", true],
    );
    assert.equal(letter.headers.text("MessageType"), "Update");
    const counted = await scrape(isolation.adminUrl);
    const labels = { topic: "product", reason: "not-json" };
    assert.equal(counted.value("inventory_dead_letters_shortened_total", labels), 1);
    assert.equal(counted.value("inventory_dead_letters_total", labels), 1);

    // This one can be written as it is, and not with the header that counts the redrives.
    const full = Buffer.concat([Buffer.from("?"), randomBytes(1_048_490)]);
    const largest = await produceRaw(cluster, "product", 0, [record(full)]);
    await untilLetter(largest);
    assert.match(await tool("redrive.ts", "--dry-run"), /2 dead letters; none was sent/);
    const redriven = await tool("redrive.ts");
    assert.match(redriven, /MESSAGE_TOO_LARGE/);
    assert.match(redriven, /1 of 2 dead letters were sent back/);
    const [slice] = await Array.fromAsync(
      readRange(cluster, { topic: "product", partition: 0 }, largest + 1n, largest + 2n),
    );
    const returned = slice?.messages[0];
    assert.equal(returned?.headers.text("inventory-redrive"), "1");
    assert.ok(returned?.value?.equals(value), "the original was read from its own topic");
    await untilLetter(largest + 1n);
    await sound();
  });

  for (const { name, reason, cause, remove } of FAULTS) {
    it(`${name} holds back its own partition alone, and is delivered in full after the fault`, async () => {
      const { cluster, store, untilApplied, untilCommitted } = isolation;
      const id = `wait-${FAULTS.findIndex((fault) => fault.name === name)}`;
      await cause(admin);
      const { offset, key } = await sendInvalid(id);
      const place = await until(
        async () =>
          (await degraded()).find((each) => each.includes(`product partition 0 waits at offset ${offset}`)),
        "the health report names the message",
        SETTLE_MS_MAX,
      );
      assert.match(place, reason);
      assert.match(place, new RegExp(`topic ${DEAD_LETTERS}`));
      assert.ok(place.includes(`(key "${id}-kkk`) && place.includes(`(${key.length} bytes)`), place);
      assert.equal(await metric("inventory_ingest_waiting_partitions"), 1);

      await untilApplied(`${id}-beside-1`, 1);
      await untilApplied(`${id}-beside-2`, 2);
      await produceRaw(cluster, "collection", 0, [record({ id, name })]);
      await until(
        async () => (await store.listCollections()).some(({ collectionId }) => collectionId === id),
        "the other topic goes on",
        SETTLE_MS_MAX,
      );
      assert.equal(await metric("inventory_ingest_waiting_partitions"), 1, "it still waits");

      await remove(admin);
      const letter = await untilLetter(offset);
      assert.ok(letter.key?.equals(key) && originOf(letter.headers)?.isShortened === false);
      await untilCommitted(0, offset + 2n);
      assert.equal((await store.getLedger(`${id}-behind`)).declared, 4);
      assert.equal(await metric("inventory_dead_letters_logged_total"), 0);
      await sound();
    });
  }

  it("and an event that fails with an internal error is named and waits", async () => {
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
      async () => (await degraded()).find((each) => each.includes("product partition 0 waits")),
      "the health report names the message",
      SETTLE_MS_MAX,
    );
    assert.match(place, new RegExp(`waits at offset ${offset + 1n} \\(key "the-key"\\)`));
    await until(
      async () => (await store.getLedger("sound-2")).declared === 2,
      "the event behind it is applied",
      SETTLE_MS_MAX,
    );
    await isolation.untilApplied("beside the damaged one", 1);
    assert.match(
      await isolation.output(),
      new RegExp(`"offset":"${offset + 1n}","key":"the-key".*internal error`),
    );
    // The next server starts at this event again, and gives it up.
    await isolation.restart(IMPATIENT);
    await isolation.untilApplied("another event of the restarted server", 1);
    const letter = await untilLetter(offset + 1n);
    assert.equal(originOf(letter.headers)?.reason, "internal-error");
    await isolation.untilCommitted(0, offset + 3n);
    await sound();
  });

  for (const { name, cause, remove, reason } of FAULTS) {
    it(`${name} is logged with its place after KAFKA_DEAD_LETTER_WAIT_MS, and its partition continues`, async () => {
      const { cluster, store, untilCommitted } = isolation;
      const id = `logged-${FAULTS.findIndex((fault) => fault.name === name)}`;
      const before = await metric("inventory_dead_letters_logged_total");
      await cause(admin);
      const { offset } = await sendInvalid(id);
      await untilCommitted(0, offset + 2n);
      assert.equal((await store.getLedger(`${id}-behind`)).declared, 4);
      assert.equal(await metric("inventory_dead_letters_logged_total"), before + 1);
      const line = (await isolation.output())
        .split("\n")
        .find((each) => each.includes("is only logged") && each.includes(`"offset":"${offset}"`));
      assert.match(line ?? "", /"topic":"product","partition":0/);
      assert.match(line ?? "", /"reason":"bad-id"/);
      const report = (await degraded()).find((each) => each.startsWith("Dead letters cannot be sent"));
      assert.match(report ?? "", reason);
      assert.match(report ?? "", /; 1 were only logged/);
      // The next one does not wait: nothing has been accepted since.
      const next = await produceRaw(cluster, "product", 0, [record({ id: "" })]);
      await untilCommitted(0, next + 1n);

      await remove(admin);
      await until(
        async () => {
          const sent = await produceRaw(cluster, "product", 0, [record({ id: "" })]);
          await untilCommitted(0, sent + 1n);
          return (await degraded()).length === 0;
        },
        "letters are delivered again",
        SETTLE_MS_MAX,
      );
    });
  }
});
