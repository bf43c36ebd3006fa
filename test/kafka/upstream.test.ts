import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { describe, it } from "node:test";
import { startAppProcess } from "../support/app.ts";
import { need } from "../support/programs.ts";
import { openStore, skip, startPlatform, untilConsumed } from "./platform.ts";

const kcat = need("kcat");
const CODECS = ["none", "gzip", "snappy", "lz4", "zstd"] as const;
const PRODUCTS_PER_CODEC = 200;

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
    await using _app = await startAppProcess(platform.environment);
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
  });
});
