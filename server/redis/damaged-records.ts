import type { Logger } from "pino";
import { InventoryError } from "../inventory/errors.ts";
import type { HealthPart } from "../ops/health.ts";
import { isErrorReply } from "./connection/error-replies.ts";
import { RECORD_KINDS, type RecordKind } from "./keys.ts";
import type { RedisMetrics } from "./metrics.ts";

/** How long a record is listed after it was last found damaged, ms. */
const LISTED_MS = 10 * 60_000;
/** How many are listed; further ones are counted and logged only. */
const LISTED_MAX = 1_000;
/** How many the health report names, the newest first. */
const REPORTED_MAX = 20;

interface DamagedRecord {
  readonly kind: RecordKind;
  readonly key: string;
  readonly reason: string;
  foundAt: number;
}

/**
 * The records in Redis that this server could not read. A damaged record is skipped and does not stop the work on
 * others. Each is logged when it is first found, counted by the metrics, and listed by `/readyz` as a degraded part.
 */
export class DamagedRecords implements HealthPart {
  readonly name = "damagedRecords";
  readonly #log: Logger;
  readonly #metrics: RedisMetrics | undefined;
  readonly #records = new Map<string, DamagedRecord>();

  constructor(log: Logger, metrics?: RedisMetrics) {
    this.#log = log;
    this.#metrics = metrics;
    metrics?.addDamagedRecords(() => this.#countByKind());
  }

  /** Records that a record could not be read. */
  found(kind: RecordKind, key: string, reason: string): void {
    this.#metrics?.damagedRecordFound(kind);
    const name = `${kind} ${key}`;
    const now = performance.now();
    const known = this.#records.get(name);
    if (known !== undefined) {
      known.foundAt = now;
      return;
    }
    this.#dropExpired(now);
    if (this.#records.size < LISTED_MAX) {
      this.#records.set(name, { kind, key, reason, foundAt: now });
    }
    this.#log.error({ kind, key, reason }, "A record in Redis is damaged and was skipped");
  }

  /** Records that a key has a foreign type, if that is what `error` says. Throws any other error. */
  foundForeignType(kind: RecordKind, key: string, error: unknown): void {
    if (!isErrorReply(error) || !error.message.startsWith("WRONGTYPE")) {
      throw error;
    }
    this.found(kind, key, error.message);
  }

  /** Records that a record can be read again. */
  repaired(kind: RecordKind, key: string): void {
    if (this.#records.delete(`${kind} ${key}`)) {
      this.#log.info({ kind, key }, "A damaged record in Redis can be read again");
    }
  }

  /** Decodes a record. If `decode` throws, reports the record as damaged and returns `undefined`. */
  decode<T>(kind: RecordKind, key: string, decode: () => T): T | undefined {
    try {
      const value = decode();
      if (this.#records.size > 0) {
        this.repaired(kind, key);
      }
      return value;
    } catch (error) {
      this.found(kind, key, error instanceof Error ? error.message : String(error));
      return undefined;
    }
  }

  degraded(): readonly string[] {
    this.#dropExpired(performance.now());
    const newest = [...this.#records.values()].reverse();
    const named = newest
      .slice(0, REPORTED_MAX)
      .map(({ kind, key, reason }) => `The ${kind} record ${key} in Redis is damaged: ${reason}`);
    const others = newest.length - named.length;
    return others === 0
      ? named
      : [...named, `${others} more records in Redis are damaged; the log names them`];
  }

  details(): unknown {
    return { count: this.#records.size };
  }

  #countByKind(): ReadonlyMap<RecordKind, number> {
    this.#dropExpired(performance.now());
    const counts = new Map<RecordKind, number>(RECORD_KINDS.map((kind) => [kind, 0]));
    for (const { kind } of this.#records.values()) {
      counts.set(kind, (counts.get(kind) ?? 0) + 1);
    }
    return counts;
  }

  #dropExpired(now: number): void {
    for (const [name, { foundAt }] of this.#records) {
      if (now - foundAt > LISTED_MS) {
        this.#records.delete(name);
      }
    }
  }
}

/** The kind that a script names. */
export function recordKind(name: string): RecordKind {
  const kind = RECORD_KINDS.find((known) => known === name);
  if (kind === undefined) {
    throw new Error(`A script named the unknown kind of record ${JSON.stringify(name)}`);
  }
  return kind;
}

/** The error for a call that needs a damaged record. Retrying is of no use before its repair. */
export function recordDamaged(kind: RecordKind, key: string, reason: string): InventoryError {
  return new InventoryError(
    "RECORD_DAMAGED",
    `The stored ${kind} record ${key} is damaged; an operator has to repair it`,
    { cause: new Error(`${key}: ${reason}`) },
  );
}
