import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { type AppProcess, startAppProcess } from "../support/app.ts";
import { until } from "../support/until.ts";
import { type Isolation, startIsolation } from "./isolation.ts";
import { DEAD_LETTERS, productMessage, skip, untilMembers } from "./platform.ts";
import { produceRaw, type RawHeader, record, TYPE_UPDATE } from "./raw-producer.ts";

const MESSAGE = join(import.meta.dirname, "../../tools/message.ts");
const SETTLE_MS_MAX = 120_000;
/** The servers' dead-letter topic, which does not exist: an invalid message waits for a day. */
const STUCK = { KAFKA_DEAD_LETTER_TOPIC: "missing", KAFKA_DEAD_LETTER_WAIT_MS: String(24 * 3_600_000) };
const MEBIBYTE = 1024 * 1024;
const ESCAPE = "\u001b[2J\u009b31m\u202e";

interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

describe("npm run message", { skip }, () => {
  let isolation: Isolation;
  let second: AppProcess;
  before(async () => {
    isolation = await startIsolation(STUCK);
    second = await startAppProcess({ ...isolation.platform.environment, ...STUCK });
    await untilMembers(isolation.platform.kafka, 2);
  });
  after(async () => {
    await second?.stop();
    await isolation?.[Symbol.asyncDispose]();
  });

  function message(args: readonly string[], environment: NodeJS.ProcessEnv = {}): Promise<Outcome> {
    const { KAFKA_BROKERS } = isolation.platform.environment;
    const env = { PATH: process.env["PATH"], KAFKA_BROKERS, ...environment };
    return new Promise((resolve) => {
      execFile(process.execPath, [MESSAGE, ...args], { env }, (error, stdout, stderr) => {
        resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr });
      });
    });
  }

  /** Sends an invalid message and a good event after it. Resolves when the group waits at the former. */
  async function untilStuck(partition: number, id: string, headers: readonly RawHeader[] = []) {
    const key = Buffer.from(`key ${ESCAPE}`);
    const good = Array.from({ length: 3 }, (_, n) => record({ id: `${id}-before-${n}`, quantity: 1 }));
    // One batch, so that the messages before the invalid one are part of the slice that waits.
    const first = await produceRaw(isolation.cluster, "product", partition, [
      ...good,
      record({ id, inventory: -1, note: ESCAPE }, { key, headers: [TYPE_UPDATE, ...headers] }),
    ]);
    const offset = first + BigInt(good.length);
    await until(
      async () => {
        const [committed] = await isolation.cluster.committedOffsets("inventory", [
          { topic: "product", partition },
        ]);
        return committed?.offset === offset;
      },
      `the group is at offset ${offset}, the message that waits`,
      SETTLE_MS_MAX,
    );
    // Only now, so that it is not part of the slice that waits, whose events are applied in parallel.
    await produceRaw(isolation.cluster, "product", partition, [record({ id: `${id}-after`, quantity: 3 })]);
    return offset;
  }

  async function untilDeclared(id: string): Promise<void> {
    await until(
      async () => (await isolation.store.getLedger(id)).declared === 3,
      `${id} is applied`,
      SETTLE_MS_MAX,
    );
  }

  it("shows a message with hostile content, moves two stuck servers past it, and keeps a copy", async () => {
    const headers: RawHeader[] = [
      [Buffer.from("__proto__"), Buffer.from(`{"x":1}${ESCAPE}`)],
      [Buffer.from([0xff, 0x1b]), null],
      ...Array.from({ length: 5_000 }, (_, n): RawHeader => [Buffer.from(`h${n}`), Buffer.from("v")]),
    ];
    const offset = await untilStuck(0, "stuck", headers);
    const outputs = await Promise.all([isolation.output(), second.output()]);
    const waiting = outputs
      .join("\n")
      .split("\n")
      .find((line) => line.includes("its partition waits"));
    assert.match(
      waiting ?? "",
      new RegExp(`"topic":"product","partition":0,"offset":"${offset}","key":"key `),
    );
    const place = ["product", "0", String(offset)];
    const shown = await message(place);
    assert.equal(shown.code, 0, shown.stderr);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: these are the ones that must not be there
    assert.doesNotMatch(shown.stdout, /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202e]/);
    assert.match(shown.stdout, /^topic +product\npartition +0\noffset +\d+\ntimestamp +\d+ \(20/);
    assert.match(shown.stdout, /\nkey +"key \\u\{1b\}\[2J\\u\{9b\}31m\\u\{202e\}"\n/);
    assert.match(
      shown.stdout,
      /\nheader +"MessageType": "Update"\nheader +"__proto__": "\{\\"x\\":1\}\\u\{1b\}/,
    );
    assert.match(shown.stdout, /\nheader +"\\xff\\x1b": none\n/);
    assert.match(shown.stdout, /\nheader +… and 4983 more\n/);
    assert.match(shown.stdout, /\nsize +\d+ bytes: key 16, headers \d+, value \d+\n/);
    assert.match(shown.stdout, /\nvalue +"\{\\"id\\":\\"stuck\\",\\"inventory\\":-1,/);
    assert.match(shown.stdout, /\ndecodes +no: bad-stock: /);
    assert.match(shown.stdout, /\ngroup +inventory is at offset \d+, this message\n/);

    const other = await message(["product", "0", String(offset + 1n), "--skip"]);
    assert.equal(other.code, 1);
    assert.match(
      other.stderr,
      new RegExp(
        `offset is ${offset + 1n}; the group inventory is at offset ${offset} of product partition 0`,
      ),
    );
    assert.deepEqual(await isolation.newLetters(), []);

    const skipped = await message([...place, "--skip"]);
    assert.equal(skipped.code, 0, skipped.stderr);
    assert.match(
      skipped.stdout,
      new RegExp(`\ncopy +whole, in ${DEAD_LETTERS}\nskipped .*offset ${offset + 1n};`),
    );
    await untilDeclared("stuck-after");
    const [letter, ...rest] = await isolation.newLetters();
    assert.deepEqual(rest, []);
    assert.equal(letter?.headers.text("inventory-dead-letter-reason"), "skipped");
    assert.equal(letter?.headers.text("inventory-dead-letter-detail"), "skipped by an operator");
    assert.equal(letter?.headers.text("inventory-dead-letter-offset"), String(offset));
    assert.equal(letter?.headers.text("__proto__"), `{"x":1}${ESCAPE}`);
    assert.equal(letter?.key?.toString(), `key ${ESCAPE}`);
  });

  it("moves the group past a message of which no copy can be kept, and says so", async () => {
    const offset = await untilStuck(2, "no-copy");
    const skipped = await message(["product", "2", String(offset), "--skip"], STUCK);
    assert.equal(skipped.code, 0, skipped.stderr);
    assert.match(skipped.stdout, /\ncopy +none: UNKNOWN_TOPIC_OR_PARTITION/);
    await untilDeclared("no-copy-after");
  });

  it("moves a group without servers past a message, and a server that starts continues behind it", async () => {
    const { cluster } = isolation;
    const place = { topic: "collection", partition: 1 };
    const first = await produceRaw(cluster, place.topic, place.partition, [
      record({ id: "skipped-offline", name: "Skipped" }),
      record({ id: "behind-skipped", name: "Behind" }),
    ]);
    const group = { KAFKA_GROUP: "offline" };
    const skipped = await message([place.topic, String(place.partition), String(first), "--skip"], group);
    assert.equal(skipped.code, 0, skipped.stderr);
    assert.match(skipped.stdout, new RegExp(`\nskipped .*group offline is at offset ${first + 1n};`));
    const [committed] = await cluster.committedOffsets("offline", [place]);
    assert.equal(committed?.offset, first + 1n);

    // With the embedded store, which has only what this server has read.
    await using server = await startAppProcess({
      ...isolation.platform.environment,
      ...group,
      REDIS_URL: undefined,
    });
    const collections = await until(
      async () => {
        const response = await fetch(`${server.url}/inventory.v1.StockService/ListCollections`, {
          method: "POST",
          headers: { "content-type": "application/json" },
          body: "{}",
        });
        const text = await response.text();
        return text.includes("behind-skipped") && text;
      },
      "the event behind the skipped one is applied",
      SETTLE_MS_MAX,
    );
    assert.doesNotMatch(collections, /skipped-offline/);
  });

  it("moves the group past a message before an open transaction, and refuses to skip the transaction's", async () => {
    const { cluster, platform } = isolation;
    const offset = await untilStuck(1, "before-transaction");
    const producer = platform.kafka.producer({
      transactionalId: "message-test",
      idempotent: true,
      maxInFlightRequests: 1,
    });
    await producer.connect();
    const transaction = await producer.transaction();
    await transaction.send({
      topic: "product",
      messages: [{ ...productMessage("Update", { id: "uncommitted", quantity: 3 }), partition: 1 }],
    });
    await produceRaw(cluster, "product", 1, [record({ id: "behind-transaction", quantity: 3 })]);

    const skipped = await message(["product", "1", String(offset), "--skip"]);
    assert.equal(skipped.code, 0, skipped.stderr);
    await untilDeclared("before-transaction-after");
    const held = offset + 2n;
    await isolation.untilCommitted(1, held);
    const refused = await message(["product", "1", String(held), "--skip"]);
    assert.equal(refused.code, 1);
    assert.match(
      refused.stderr,
      new RegExp(
        `^There is no message to skip at offset ${held}: held back by an open transaction; it can be read when that ends\n$`,
      ),
    );
    await transaction.abort();
    await producer.disconnect();
    await untilDeclared("behind-transaction");
  });

  it("moves the group past all of a batch that cannot be read", async () => {
    const { cluster } = isolation;
    // Tombstones, of which the first 63 are processed: the batch decompresses to 80 MB, and may to 64 MiB.
    const tombstones = Array.from({ length: 80 }, () =>
      record(null, { key: Buffer.alloc(MEBIBYTE), headers: [] }),
    );
    const first = await produceRaw(cluster, "product", 1, tombstones, "zstd");
    const end = first + BigInt(tombstones.length);
    await produceRaw(cluster, "product", 1, [record({ id: "after-batch", quantity: 3 })]);
    const offset = await until(
      async () => {
        const [committed] = await cluster.committedOffsets("inventory", [{ topic: "product", partition: 1 }]);
        const shown = await message(["product", "1", String(committed?.offset)]);
        return /unreadable-batch/.test(shown.stdout) && committed?.offset;
      },
      "the group waits at the batch",
      SETTLE_MS_MAX,
    );
    assert.ok(offset > first && offset < end, `${offset} is within the batch`);
    const skipped = await message(["product", "1", String(offset), "--skip"]);
    assert.equal(skipped.code, 0, skipped.stderr);
    assert.match(skipped.stdout, new RegExp(`with the offsets ${offset} to ${end - 1n}\n`));
    assert.match(skipped.stdout, new RegExp(`\ncopy +whole, in .*\nskipped .*offset ${end};`));
    await untilDeclared("after-batch");
    const letters = await isolation.newLetters();
    const letter = letters.find(
      (each) => each.headers.text("inventory-dead-letter-reason") === "unreadable-batch",
    );
    assert.match(
      letter?.headers.text("inventory-dead-letter-detail") ?? "",
      /^skipped by an operator: A batch compressed with zstd/,
    );
    assert.equal(letter?.headers.text("inventory-dead-letter-last-offset"), String(end - 1n));
  });

  it("shows a dead letter, which the group does not read, and refuses to skip it", async () => {
    const [first] = await isolation.cluster.ranges([{ topic: DEAD_LETTERS, partition: 0 }]);
    await produceRaw(isolation.cluster, DEAD_LETTERS, 0, [record({ id: "letter" })]);
    const place = [DEAD_LETTERS, "0", String(first?.latest ?? 0n)];
    const shown = await message(place);
    assert.equal(shown.code, 0, shown.stderr);
    assert.match(shown.stdout, /\nvalue +"\{\\"id\\":\\"letter\\"\}"\n$/);
    const skipped = await message([...place, "--skip"]);
    assert.equal(skipped.code, 1);
    assert.match(
      skipped.stderr,
      /topic is product\.inventory\.dead-letter; the group inventory reads product and collection/,
    );
  });

  for (const { name, args, code, error } of [
    {
      name: "a topic that does not exist",
      args: ["prodcut", "0", "0"],
      code: 1,
      error: /^topic is prodcut; the brokers have no such topic\n$/,
    },
    {
      name: "a partition that does not exist",
      args: ["product", "3", "0"],
      code: 1,
      error: /^partition is 3; topic product has the partitions 0 to 2\n$/,
    },
    {
      name: "an offset that does not exist",
      args: ["product", "1", "9000"],
      code: 1,
      error: /^offset is 9000; product partition 1 has the offsets 0 to \d+\n$/,
    },
    {
      name: "an offset of an empty partition",
      args: ["collection", "0", "0", "--skip"],
      code: 1,
      error: /^offset is 0; collection partition 0 has no messages\n$/,
    },
    {
      name: "a partition that is no number",
      args: ["product", "x\u001b", "0"],
      code: 2,
      error: /^partition is \\"x\\u\{1b\}\\"; /,
    },
    {
      name: "a negative offset",
      args: ["product", "0", "--", "-1"],
      code: 2,
      error: /^offset is \\"-1\\"; /,
    },
    { name: "no offset", args: ["product", "0"], code: 2, error: /^usage: npm run message/ },
    {
      name: "an unknown option",
      args: ["product", "0", "0", "--force"],
      code: 2,
      error: /usage: npm run message/,
    },
  ]) {
    it(`refuses ${name}`, async () => {
      const refused = await message(args);
      assert.match(refused.stderr, error);
      assert.equal(refused.code, code);
      assert.equal(refused.stdout, "");
    });
  }
});
