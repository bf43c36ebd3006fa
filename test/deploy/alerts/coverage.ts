import assert from "node:assert/strict";

/** Which test makes which alert fire, by the fault that the alert is for. Every alert of `alerts.yaml` is in one of the lists. */
export const FIRED_IN = {
  "test/deploy/alerts/cluster.long.ts": [
    "InventoryBucketsUnavailable",
    "InventoryClusterNotOk",
    "InventoryShardWithoutReplica",
    "InventorySlotsUnassigned",
  ],
  "test/deploy/alerts/redis.long.ts": [
    "InventoryErrorBudgetBurnsFast",
    "InventoryErrorBudgetBurnsSlowly",
    "InventoryExpiryStuck",
    "InventoryFailover",
    "InventoryFaults",
    "InventoryMirrorStale",
    "InventoryNoneReady",
    "InventoryOrdersSlow",
    "InventoryRecordDamaged",
    "InventoryRedisDiskFull",
    "InventoryRedisMemoryFull",
    "InventoryRedisQueueLong",
    "InventoryRedisRefuses",
    "InventoryRedisSlow",
    "InventoryRedisUnavailable",
    "InventoryShortfall",
    "InventorySuspect",
    "InventoryUnready",
  ],
  "test/deploy/alerts/replicas.long.ts": [
    "InventoryNoReplica",
    "InventoryReplicaMissing",
    "InventoryUnacknowledged",
  ],
  "test/deploy/alerts/servers.long.ts": [
    "InventoryClientCertificateExpires",
    "InventoryClientCertificateRefused",
    "InventoryConnectionsNearLimit",
    "InventoryCpuFull",
    "InventoryDown",
    "InventoryEventLoopLate",
    "InventoryReadsSlow",
    "InventoryRestarts",
    "InventoryWatchesNearLimit",
  ],
  "test/kafka/monitoring.long.ts": [
    "InventoryBacklogGap",
    "InventoryConsumersReplaced",
    "InventoryDeadLetters",
    "InventoryDeadLettersIncomplete",
    "InventoryIngestDown",
    "InventoryIngestLag",
    "InventoryPublishLag",
    "InventoryTopicMissing",
  ],
} as const;

export type AlertTestFile = keyof typeof FIRED_IN;

/** The alerts that a file has made fire. At its end it asserts that none of its list is missing. */
export class FiredAlerts {
  readonly #file: AlertTestFile;
  readonly #missing: Set<string>;

  constructor(file: AlertTestFile) {
    this.#file = file;
    this.#missing = new Set(FIRED_IN[file]);
  }

  add(...alerts: readonly string[]): void {
    const listed: readonly string[] = FIRED_IN[this.#file];
    for (const alert of alerts) {
      assert.ok(listed.includes(alert), `${alert} is not listed for ${this.#file}`);
      this.#missing.delete(alert);
    }
  }

  /** `skipped` are those whose test cannot run on this machine. */
  assertComplete(skipped: readonly string[] = []): void {
    assert.deepEqual(
      [...this.#missing].filter((alert) => !skipped.includes(alert)),
      [],
      "alerts that did not fire",
    );
  }
}
