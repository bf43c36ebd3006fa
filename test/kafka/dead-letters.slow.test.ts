import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { promisify } from "node:util";
import type { KafkaMessage, Message } from "kafkajs";
import { DEAD_LETTER_REASONS } from "../../server/kafka/ingest/decode.ts";
import { startTestApp } from "../support/app.ts";
import {
  DEAD_LETTERS,
  headerOf,
  newSeed,
  openStore,
  type Platform,
  produce,
  productMessage,
  randomFrom,
  readTopic,
  shuffle,
  skip,
  startPlatform,
  untilConsumed,
} from "./platform.ts";

const run = promisify(execFile);
const REDRIVE = join(import.meta.dirname, "../../tools/redrive.ts");
const INVALID = 300;
const GOOD = 300;
const TIMES_AHEAD = 100;
const CURABLE = 100;
const HOUR_MS = 3_600_000;

/** Messages that can never be applied, all different, by reason. */
function invalidMessage(n: number): { reason: string; message: Message } {
  const id = `invalid-${n}`;
  const make = (reason: string, message: Message) => ({ reason, message });
  if (n < TIMES_AHEAD) {
    const updatedAt = new Date(Date.now() + HOUR_MS).toISOString();
    return make("time-ahead", productMessage("Update", { id, inventory: n, updatedAt }));
  }
  switch (n % 9) {
    case 0:
      return make("not-json", { ...productMessage("Update", {}), value: `{"id":"${id}",` });
    case 1:
      return make("not-json", {
        ...productMessage("Update", {}),
        value: Buffer.from([0xff, n % 256, n >> 8]),
      });
    case 2:
      return make("not-json", { ...productMessage("Update", {}), key: id, value: "" });
    case 3:
      return make("no-message-type", { value: JSON.stringify({ id, quantity: 1 }) });
    case 4:
      return make("unknown-message-type", productMessage("Upsert", { id, quantity: 1 }));
    case 5:
      return make("bad-id", productMessage("Create", { name: id, price: 1, inventory: 1 }));
    case 6:
      return make("bad-stock", productMessage("Create", { id, inventory: -n }));
    case 7:
      return make("incomplete-details", productMessage("Update", { id, price: n }));
    default:
      return make("bad-time", productMessage("Update", { id, quantity: 1, updatedAt: "soon" }));
  }
}

/** A message that was dead-lettered an hour ago because its time was ahead, which it no longer is. */
function curable(n: number): Message {
  const message = productMessage("Update", {
    id: `curable-${n}`,
    inventory: n,
    updatedAt: new Date().toISOString(),
  });
  return {
    ...message,
    headers: { ...message.headers, ...letterHeaders("time-ahead", Date.now() - HOUR_MS) },
  };
}

function letterHeaders(reason: string, timestampMs: number): Record<string, string> {
  return {
    "inventory-dead-letter-reason": reason,
    "inventory-dead-letter-topic": "product",
    "inventory-dead-letter-partition": "0",
    "inventory-dead-letter-offset": "0",
    "inventory-dead-letter-timestamp": String(timestampMs),
  };
}

/** The parts of a message that must not change: its key, its value, and its own headers. */
function essence({ key, value, headers = {} }: Message | KafkaMessage): string {
  const own = Object.entries(headers).filter(([name]) => !name.startsWith("inventory-"));
  const bytes = (part: Buffer | string | null | undefined) =>
    part === null || part === undefined ? null : Buffer.from(part).toString("hex");
  return JSON.stringify([bytes(key), bytes(value), own.map(([name, header]) => [name, String(header)])]);
}

function count(reasons: readonly (string | undefined)[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const reason of reasons) {
    counts[String(reason)] = (counts[String(reason)] ?? 0) + 1;
  }
  return counts;
}

describe("dead letters", { skip }, () => {
  let platform: Platform;
  before(async () => {
    platform = await startPlatform();
  });
  after(() => platform?.[Symbol.asyncDispose]());

  it(`${INVALID} invalid messages among ${GOOD} valid ones are dead-lettered, and redriven on request`, async (t) => {
    const seed = newSeed();
    t.diagnostic(`seed ${seed}`);
    const { kafka } = platform;
    await using app = await startTestApp(platform.environment);
    const invalid = Array.from({ length: INVALID }, (_, n) => invalidMessage(n));
    const good = Array.from({ length: GOOD }, (_, n) =>
      productMessage("Update", { id: `good-${n}`, quantity: n }),
    );
    const mixed = shuffle([...invalid.map(({ message }) => message), ...good], randomFrom(seed));
    await produce(kafka, "product", mixed);
    await untilConsumed(kafka);
    await using store = await openStore(platform);

    for (let n = 0; n < GOOD; n++) {
      assert.equal((await store.getLedger(`good-${n}`)).declared, n);
    }
    const letters = await readTopic(kafka, DEAD_LETTERS);
    assert.deepEqual(letters.map(essence).sort(), invalid.map(({ message }) => essence(message)).sort());
    const expected = new Map(invalid.map(({ reason, message }) => [essence(message), reason]));
    for (const letter of letters) {
      assert.equal(headerOf(letter, "inventory-dead-letter-reason"), expected.get(essence(letter)));
      assert.equal(headerOf(letter, "inventory-dead-letter-topic"), "product");
      assert.match(headerOf(letter, "inventory-dead-letter-offset") ?? "", /^\d+$/);
      assert.match(headerOf(letter, "inventory-dead-letter-partition") ?? "", /^[012]$/);
      assert.match(headerOf(letter, "inventory-dead-letter-timestamp") ?? "", /^\d{13}$/);
      assert.ok(!Number.isNaN(Date.parse(headerOf(letter, "inventory-dead-letter-time") ?? "")));
    }
    const reasons = count(letters.map((letter) => headerOf(letter, "inventory-dead-letter-reason")));
    t.diagnostic(JSON.stringify(reasons));
    assert.deepEqual(
      DEAD_LETTER_REASONS.filter((reason) => reasons[reason] === undefined),
      ["bad-details"],
    );
    const metrics = await (await fetch(`${app.adminUrl}/metrics`)).text();
    assert.match(
      metrics,
      new RegExp(`inventory_dead_letters_total\\{topic="product",reason="time-ahead"\\} ${TIMES_AHEAD}`),
    );
    assert.match(
      metrics,
      new RegExp(`inventory_events_total\\{topic="product",outcome="applied"\\} ${GOOD}`),
    );

    const redrive = async (...args: string[]): Promise<string> => {
      const { KAFKA_BROKERS } = platform.environment;
      const env = { PATH: process.env["PATH"], KAFKA_BROKERS };
      return (await run(process.execPath, [REDRIVE, ...args], { env, maxBuffer: 16 * 1024 * 1024 })).stdout;
    };
    await produce(
      kafka,
      DEAD_LETTERS,
      Array.from({ length: CURABLE }, (_, n) => curable(n)),
    );
    const all = INVALID + CURABLE;
    const listed = await redrive("--dry-run");
    assert.match(listed, new RegExp(`${all} dead letters; none was sent`));
    assert.equal(listed.match(/bad-stock, from product/g)?.length, reasons["bad-stock"]);

    assert.match(await redrive(), new RegExp(`${all} of ${all} dead letters were sent back`));
    await untilConsumed(kafka);
    for (let n = 0; n < CURABLE; n++) {
      assert.equal((await store.getLedger(`curable-${n}`)).declared, n);
    }
    const returned = (await readTopic(kafka, DEAD_LETTERS)).filter(
      (letter) => headerOf(letter, "inventory-redrive") === "1",
    );
    assert.deepEqual(returned.map(essence).sort(), invalid.map(({ message }) => essence(message)).sort());
    // The first record's timestamp stays the event's time, however often it is redriven.
    const firstTimes = new Map(
      letters.map((each) => [essence(each), headerOf(each, "inventory-dead-letter-timestamp")]),
    );
    for (const letter of returned) {
      assert.equal(headerOf(letter, "inventory-dead-letter-timestamp"), firstTimes.get(essence(letter)));
    }
    assert.match(await redrive("--dry-run"), new RegExp(`${INVALID} dead letters`));
  });

  it("an event without a time keeps its record timestamp when it is redriven, so a newer event stays newer", async () => {
    const { kafka } = platform;
    await using _app = await startTestApp(platform.environment);
    const early = Date.now() - 60_000;
    const value = JSON.stringify({ id: "p", quantity: 1 });
    await produce(kafka, DEAD_LETTERS, [
      {
        value,
        headers: { MessageType: "Update", ...letterHeaders("bad-stock", early) },
      },
      { value: "another service's record" },
    ]);
    await produce(kafka, "product", [productMessage("Update", { id: "p", quantity: 2 })]);
    await untilConsumed(kafka);
    const env = { PATH: process.env["PATH"], KAFKA_BROKERS: platform.environment["KAFKA_BROKERS"] };
    const { stdout } = await run(process.execPath, [REDRIVE], { env });
    assert.match(stdout, /not a dead letter of a topic that this service reads/);
    assert.match(stdout, /\d+ of \d+ dead letters were sent back/);
    await untilConsumed(kafka);
    await using store = await openStore(platform);
    assert.equal((await store.getLedger("p")).declared, 2);
    const [message] = (await readTopic(kafka, "product")).filter(
      (each) => headerOf(each, "inventory-redrive") === "1" && String(each.value) === value,
    );
    assert.equal(message?.timestamp, String(early));
  });
});
