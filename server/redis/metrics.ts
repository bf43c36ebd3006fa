import { Counter, Gauge, Histogram, type Registry } from "prom-client";
import { ERROR_REPLIES, type ErrorReplyKind } from "./connection/error-replies.ts";
import { RECORD_KINDS, type RecordKind } from "./keys.ts";

/** `mutations` and `reads` are batches of many callers' operations; `command` is a command sent by itself. */
export const REDIS_KINDS = ["mutations", "reads", "command"] as const;
export type RedisKind = (typeof REDIS_KINDS)[number];

/** Seconds, from half a round trip on one machine to the response timeout. */
const SECONDS_BUCKETS = [0.00025, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1];
const BATCH_BUCKETS = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512];

/** The buckets of one node of a Cluster. */
export interface BucketCounts {
  readonly node: string;
  readonly buckets: number;
  readonly unavailable: number;
}

/** Metrics of the connections to Redis. */
export class RedisMetrics {
  readonly #seconds: Histogram<"kind">;
  readonly #operations: Histogram<"kind">;
  readonly #errors: Counter<"kind">;
  readonly #errorReplies: Counter<"reply">;
  readonly #damagedFound: Counter<"record">;
  readonly #reconnects: Counter<"connection">;
  readonly #acknowledgements: Histogram;
  readonly #unacknowledged: Counter;
  readonly #replicas: Gauge<"node">;
  readonly #failovers: Counter;
  readonly #suspect: Gauge;
  readonly #overdue: Gauge<"set">;
  readonly #oldestOverdue: Gauge<"set">;
  readonly #queues = new Map<RedisKind, () => number>();
  readonly #connections = new Map<string, Set<() => boolean>>();
  readonly #topologyChanges: Counter;
  #bucketCounts: () => Iterable<BucketCounts> = () => [];
  #damagedRecords: (() => ReadonlyMap<RecordKind, number>) | undefined;

  constructor(registry: Registry) {
    const registers = [registry];
    this.#seconds = new Histogram({
      name: "inventory_redis_command_seconds",
      help: "Time from sending to Redis until its reply, by kind; a batch is one command",
      labelNames: ["kind"],
      buckets: SECONDS_BUCKETS,
      registers,
    });
    this.#operations = new Histogram({
      name: "inventory_redis_batch_operations",
      help: "Operations in one batch, by kind",
      labelNames: ["kind"],
      buckets: BATCH_BUCKETS,
      registers,
    });
    this.#errors = new Counter({
      name: "inventory_redis_errors_total",
      help: "Commands that failed or got no reply in time, by kind",
      labelNames: ["kind"],
      registers,
    });
    for (const kind of REDIS_KINDS) {
      this.#errors.inc({ kind }, 0);
    }
    this.#errorReplies = new Counter({
      name: "inventory_redis_error_replies_total",
      help: "Error replies of Redis by kind, such as OOM or NOPERM",
      labelNames: ["reply"],
      registers,
    });
    for (const reply of ERROR_REPLIES) {
      this.#errorReplies.inc({ reply }, 0);
    }
    this.#damagedFound = new Counter({
      name: "inventory_redis_damaged_records_found_total",
      help: "Times that a record in Redis could not be read and was skipped, by kind of record",
      labelNames: ["record"],
      registers,
    });
    for (const record of RECORD_KINDS) {
      this.#damagedFound.inc({ record }, 0);
    }
    this.#reconnects = new Counter({
      name: "inventory_redis_reconnects_total",
      help: "Reconnects: times that a connection became ready again after it had broken",
      labelNames: ["connection"],
      registers,
    });
    this.#acknowledgements = new Histogram({
      name: "inventory_redis_ack_seconds",
      help: "Time from sending a batch until enough replicas acknowledged it; nothing where REDIS_ACKS is 0",
      buckets: SECONDS_BUCKETS,
      registers,
    });
    this.#unacknowledged = new Counter({
      name: "inventory_redis_unacknowledged_total",
      help: "Batches that too few replicas acknowledged in time; their callers got UNAVAILABLE",
      registers,
    });
    this.#replicas = new Gauge({
      name: "inventory_redis_replicas_online",
      help: "Replicas in step with the primary when last counted, at most a second ago under load; in a Cluster by primary",
      labelNames: ["node"],
      registers,
    });
    this.#replicas.set(0);
    this.#failovers = new Counter({
      name: "inventory_redis_failovers_total",
      help: "Times that this server found another primary, or a restarted one",
      registers,
    });
    this.#suspect = new Gauge({
      name: "inventory_redis_suspect",
      help: "1 if acknowledged changes were missing after a failover or restart, until this server restarts",
      registers,
    });
    this.#topologyChanges = new Counter({
      name: "inventory_redis_topology_changes_total",
      help: "Times that buckets had other primaries in the Redis Cluster: failovers and moved slots",
      registers,
    });
    const bucketCounts = () => this.#bucketCounts();
    new Gauge({
      name: "inventory_redis_cluster_buckets",
      help: "Buckets whose primary in the Redis Cluster is this node",
      labelNames: ["node"],
      registers,
      collect() {
        this.reset();
        for (const { node, buckets } of bucketCounts()) {
          this.set({ node }, buckets);
        }
      },
    });
    new Gauge({
      name: "inventory_redis_cluster_buckets_unavailable",
      help: "Buckets that this server cannot write, by the node that is or was their primary",
      labelNames: ["node"],
      registers,
      collect() {
        this.reset();
        for (const { node, unavailable } of bucketCounts()) {
          this.set({ node }, unavailable);
        }
      },
    });
    this.#overdue = new Gauge({
      name: "inventory_sharded_overdue_buckets",
      help: "Redis Cluster: buckets in which the last sweep found reservations whose steps were left undone, by set",
      labelNames: ["set"],
      registers,
    });
    this.#oldestOverdue = new Gauge({
      name: "inventory_sharded_oldest_seconds",
      help: "Redis Cluster: the longest time that such a reservation has waited for its repair, by set",
      labelNames: ["set"],
      registers,
    });
    const countDamaged = () => this.#damagedRecords?.() ?? new Map<RecordKind, number>();
    new Gauge({
      name: "inventory_redis_damaged_records",
      help: "Records in Redis that this server could not read in the last ten minutes, by kind; /readyz names them",
      labelNames: ["record"],
      registers,
      collect() {
        for (const record of RECORD_KINDS) {
          this.set({ record }, countDamaged().get(record) ?? 0);
        }
      },
    });
    const queues = this.#queues;
    new Gauge({
      name: "inventory_redis_queue_length",
      help: "Operations queued for sending, by kind",
      labelNames: ["kind"],
      registers,
      collect() {
        for (const [kind, length] of queues) {
          this.set({ kind }, length());
        }
      },
    });
    const connections = this.#connections;
    new Gauge({
      name: "inventory_redis_up",
      help: "1 if the connection is ready, else 0; in a Cluster by node, or of the connections for all buckets",
      labelNames: ["connection", "node"],
      registers,
      collect() {
        this.reset();
        for (const [name, states] of connections) {
          const [connection = "", node] = name.split("@");
          const isReady = [...states].every((state) => state());
          this.set({ connection, ...(node !== undefined && { node }) }, isReady ? 1 : 0);
        }
      },
    });
  }

  /** Notes what a sweep of a Cluster found that servers had left undone: buckets with overdue reservations, and the longest wait in s. */
  setOverdue(set: "undecided" | "owed", buckets: number, oldestSeconds: number): void {
    this.#overdue.set({ set }, buckets);
    this.#oldestOverdue.set({ set }, oldestSeconds);
  }

  addDamagedRecords(count: () => ReadonlyMap<RecordKind, number>): void {
    this.#damagedRecords = count;
  }

  damagedRecordFound(record: RecordKind): void {
    this.#damagedFound.inc({ record });
  }

  errorReply(reply: ErrorReplyKind): void {
    this.#errorReplies.inc({ reply });
  }

  /** Adds a connection, `<name>` or `<name>@<node>`. Several may have the same name. */
  addConnection(name: string, isReady: () => boolean): void {
    const states = this.#connections.get(name) ?? new Set();
    this.#connections.set(name, states.add(isReady));
    this.#reconnects.inc({ connection: connectionIn(name) }, 0);
  }

  removeConnection(name: string, isReady: () => boolean): void {
    const states = this.#connections.get(name);
    states?.delete(isReady);
    if (states?.size === 0) {
      this.#connections.delete(name);
    }
  }

  /** Sets how the buckets of a Cluster are counted. */
  countBuckets(counts: () => Iterable<BucketCounts>): void {
    this.#bucketCounts = counts;
  }

  topologyChanged(): void {
    this.#topologyChanges.inc();
  }

  addQueue(kind: RedisKind, length: () => number): void {
    this.#queues.set(kind, length);
  }

  reconnected(name: string): void {
    this.#reconnects.inc({ connection: connectionIn(name) });
  }

  /** Records the end of a command: replied to after `ms`, or failed with `error`. */
  ended(kind: RedisKind, ms: number, error: unknown): void {
    if (error === undefined) {
      this.#seconds.observe({ kind }, ms / 1_000);
    } else {
      this.#errors.inc({ kind });
    }
  }

  /** Records how a batch ended that waited for replicas, `ms` after it was sent. */
  acknowledged(ms: number, isAcknowledged: boolean): void {
    if (isAcknowledged) {
      this.#acknowledgements.observe(ms / 1_000);
    } else {
      this.#unacknowledged.inc();
    }
  }

  /** `node` names the primary in a Cluster. */
  setReplicas(online: number, node?: string): void {
    if (node === undefined) {
      this.#replicas.set(online);
    } else {
      this.#replicas.remove({});
      this.#replicas.set({ node }, online);
    }
  }

  failedOver(): void {
    this.#failovers.inc();
  }

  setSuspect(): void {
    this.#suspect.set(1);
  }

  sent(kind: RedisKind, operations: number): void {
    this.#operations.observe({ kind }, operations);
  }
}

/** A connection's name without its node. */
function connectionIn(name: string): string {
  return name.split("@", 1)[0] ?? name;
}
