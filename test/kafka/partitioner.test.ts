import assert from "node:assert/strict";
import { randomBytes, randomInt } from "node:crypto";
import { describe, it } from "node:test";
import kafkajs from "kafkajs";
import { partitionOfKey } from "../../server/kafka/publish/partitioner.ts";

const { Partitioners } = kafkajs;

describe("the partitioner of published changes", () => {
  it("assigns each key as kafkajs's default partitioner does, which is compatible with the Java client", () => {
    const assign = Partitioners.DefaultPartitioner();
    const keys = [
      ...Array.from({ length: 130 }, (_, length) => "a".repeat(length)),
      ...Array.from({ length: 2_000 }, () => randomBytes(randomInt(1, 64)).toString("base64")),
      "Größe 42",
      "マグカップ",
      "🫖",
    ];
    for (const partitions of [1, 3, 7, 64]) {
      const partitionMetadata = Array.from({ length: partitions }, (_, partitionId) => ({
        partitionId,
        leader: 0,
        partitionErrorCode: 0,
        replicas: [],
        isr: [],
      }));
      for (const key of keys) {
        const expected = assign({ topic: "t", partitionMetadata, message: { key, value: "" } });
        assert.equal(partitionOfKey(key, partitions), expected, `${JSON.stringify(key)} of ${partitions}`);
      }
    }
  });

  it("assigns keys as the Java client's own tests state", () => {
    // Kafka's UtilsTest.testMurmur2, without the sign.
    const hashes = { "21": -973932308, foobar: -790332482, "a-little-bit-long-string": -985981536 };
    for (const [key, hash] of Object.entries(hashes)) {
      assert.equal(partitionOfKey(key, 2 ** 31), hash & 0x7fffffff);
    }
  });
});
