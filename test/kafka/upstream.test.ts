import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { describe, it } from "node:test";
import { promisify } from "node:util";
import { zstdCompress } from "node:zlib";
import kafkajs from "kafkajs";
import { decompressLz4Frame } from "../../server/kafka/lz4.ts";
import { decompressSnappy } from "../../server/kafka/snappy.ts";
import { startAppProcess } from "../support/app.ts";
import { need } from "../support/programs.ts";
import { until } from "../support/until.ts";
import { openStore, produce, productMessage, skip, startPlatform, untilConsumed } from "./platform.ts";

const { CompressionCodecs, CompressionTypes } = kafkajs;
const kcat = need("kcat");
const CODECS = ["none", "gzip", "snappy", "lz4", "zstd"] as const;
const PRODUCTS_PER_CODEC = 200;
const MEBIBYTE = 1024 * 1024;
/** Covers the session timeout of a member that did not leave, on a busy machine. */
const SETTLE_MS_MAX = 60_000;

/** Produces lines with librdkafka, each with its key, batched as it decides. */
async function produceWithKcat(brokers: string, codec: string, lines: readonly string[]): Promise<void> {
  const args = ["-P", "-b", brokers, "-t", "product", "-K", "\t", "-z", codec, "-H", "MessageType=Update"];
  const child = spawn(kcat.path, [...args, "-X", "linger.ms=100"], { stdio: ["pipe", "ignore", "inherit"] });
  const ended = once(child, "exit");
  child.stdin.end(`${lines.join("\n")}\n`);
  assert.deepEqual(await ended, [0, null]);
}

/** A description that compresses moderately: it needs more than one block, and references at long distances. */
function descriptionOf(n: number): string {
  return Array.from({ length: 120 }, (_, i) => `${(n * 7919 + i * 104_729) % 9_973} linen`).join(" ");
}

describe("an upstream with another client", { skip: skip || kcat.missing }, () => {
  it("events from librdkafka are applied with each of its codecs", async (t) => {
    await using platform = await startPlatform();
    await using app = await startAppProcess(platform.environment);
    for (const codec of CODECS) {
      const lines = Array.from({ length: PRODUCTS_PER_CODEC }, (_, n) => {
        const value = {
          id: `${codec}-${n}`,
          name: codec,
          description: descriptionOf(n),
          price: n,
          inventory: n,
        };
        return `key-${n}\t${JSON.stringify(value)}`;
      });
      await produceWithKcat(platform.broker.brokers.join(), codec, lines);
    }
    await untilConsumed(platform.kafka);
    await using store = await openStore(platform);
    for (const codec of CODECS) {
      for (let n = 0; n < PRODUCTS_PER_CODEC; n++) {
        const { available, details } = await store.getStock(`${codec}-${n}`);
        assert.equal(available, n);
        assert.equal(details?.description, descriptionOf(n), `${codec}-${n}`);
      }
    }
    t.diagnostic(`${CODECS.length * PRODUCTS_PER_CODEC} events in ${CODECS.join(", ")}`);

    await t.test(
      "a batch that cannot be read is reported in the log and the health report, and blocks its partition",
      async () => {
        // 80 MB of zeros: a few kilobytes compressed, and more than a batch may have decompressed.
        CompressionCodecs[CompressionTypes.ZSTD] = () => ({
          compress: ({ buffer }: { buffer: Buffer }) => promisify(zstdCompress)(buffer),
          decompress: () => assert.fail("nothing is decompressed here"),
        });
        const producer = platform.kafka.producer({
          createPartitioner: kafkajs.Partitioners.DefaultPartitioner,
        });
        await producer.connect();
        const zeros = Buffer.alloc(MEBIBYTE);
        const messages = Array.from({ length: 80 }, () => ({ partition: 0, value: zeros }));
        const [sent] = await producer.send({
          topic: "product",
          messages,
          compression: CompressionTypes.ZSTD,
        });
        await producer.disconnect();

        const readiness = async () => {
          const answer = await fetch(`${app.url}/readyz`);
          return { status: answer.status, report: (await answer.json()) as { degraded: string[] } };
        };
        const { status, report } = await until(
          async () => {
            const found = await readiness();
            return found.report.degraded.some((each) => each.includes("cannot be read")) && found;
          },
          "the health report names the batch",
          SETTLE_MS_MAX,
        );
        assert.equal(status, 200, "buyers need no Kafka");
        assert.match(report.degraded.join(), /Sellers' events are not applied: .*zstd cannot be read/);
        assert.match(await app.output(), /A batch compressed with zstd cannot be read/);

        // As docs/events.md describes: stop the group and move its offset past the batch.
        await app.process().end("SIGTERM");
        const admin = platform.kafka.admin();
        await admin.connect();
        const offset = String(Number(sent?.baseOffset) + messages.length);
        await until(
          async () => {
            await admin.setOffsets({
              groupId: "inventory",
              topic: "product",
              partitions: [{ partition: 0, offset }],
            });
            return true;
          },
          "the group is empty and its offset moved",
          SETTLE_MS_MAX,
        );
        await admin.disconnect();
        await app.restart();
        await produce(platform.kafka, "product", [productMessage("Update", { id: "after", quantity: 5 })]);
        await untilConsumed(platform.kafka);
        assert.equal((await store.getLedger("after")).declared, 5);
        await until(
          async () => (await readiness()).report.degraded.length === 0,
          "nothing is degraded",
          SETTLE_MS_MAX,
        );
      },
    );
  });
});

describe("the decompressors", () => {
  const text = Buffer.from(
    "Wikipedia is a free, web-based, collaborative, multilingual encyclopedia project.",
  );

  it("read a snappy block, raw and in the Java client's framing", () => {
    const block = Buffer.concat([Buffer.from([text.length, 60 << 2, text.length - 1]), text]);
    assert.deepEqual(decompressSnappy(block, 1_000), text);
    const frame = Buffer.alloc(20);
    frame.write("\x82SNAPPY\x00", "latin1");
    frame.writeUInt32BE(block.length, 16);
    assert.deepEqual(decompressSnappy(Buffer.concat([frame, block]), 1_000), text);
    const pattern = Buffer.from([10, 1 << 2, 0x61, 0x62, (7 << 2) | 2, 2, 0]);
    assert.equal(decompressSnappy(pattern, 1_000).toString(), "ababababab");
  });

  it("reject truncated input, invalid references, and output that is too large", () => {
    const wrong: [string, () => unknown][] = [
      ["empty snappy", () => decompressSnappy(Buffer.alloc(0), 10)],
      ["a truncated literal", () => decompressSnappy(Buffer.from([5, 4 << 2, 0x61]), 10)],
      [
        "a copy from before the start",
        () => decompressSnappy(Buffer.from([8, 0, 0x61, (3 << 2) | 2, 9, 0]), 10),
      ],
      ["a copy with offset 0", () => decompressSnappy(Buffer.from([8, 0, 0x61, (3 << 2) | 2, 0, 0]), 10)],
      ["fewer bytes than announced", () => decompressSnappy(Buffer.from([5, 0, 0x61]), 10)],
      ["more bytes than allowed", () => decompressSnappy(Buffer.from([11, 0, 0x61]), 10)],
      ["no LZ4 frame", () => decompressLz4Frame(Buffer.alloc(16), 10)],
      [
        "an LZ4 frame without an end",
        () => decompressLz4Frame(Buffer.from("04224d1840400000000000", "hex").subarray(0, 8), 10),
      ],
      [
        "an LZ4 match from before the start",
        () => decompressLz4Frame(Buffer.from("04224d18604000040000001061050000000000", "hex"), 100),
      ],
    ];
    for (const [name, decompress] of wrong) {
      assert.throws(decompress, Error, name);
    }
  });
});
