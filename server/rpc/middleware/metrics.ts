import type { DescMethod, DescService } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { Counter, Gauge, Histogram, type Registry } from "prom-client";
import type { CallMiddleware } from "../call.ts";

/** Seconds: from the duration of a read to the longest that a caller waits. */
const BUCKETS = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

const METHOD_LABELS = ["grpc_type", "grpc_service", "grpc_method"] as const;
const TYPES = {
  unary: "unary",
  server_streaming: "server_stream",
  client_streaming: "client_stream",
  bidi_streaming: "bidi_stream",
} as const;
/** `handled` is indexed by code. */
const OK = 0;
const CODES = 17;
/** Codes with a series from the start, so that the first fault shows as an increase. Others appear with their first call. */
const ALWAYS_SHOWN: ReadonlySet<number> = new Set([OK, Code.Unknown, Code.Internal]);

/** The calls of one method. */
interface Tally {
  readonly labels: readonly [type: string, service: string, method: string];
  started: number;
  inFlight: number;
  readonly handled: Float64Array;
  observe(seconds: number): void;
}

/**
 * Counts the calls of every protocol, under the metric names of go-grpc-middleware. A call increments plain numbers, and
 * a scrape makes the metrics from them. Labels are methods and codes only, so the API bounds the number of series.
 */
export function metricsMiddleware(registry: Registry, services: readonly DescService[]): CallMiddleware {
  const registers = [registry];
  const tallies = new Map<DescMethod, Tally>();
  const duration = new Histogram({
    name: "grpc_server_handling_seconds",
    help: "Time from the head of a request to the end of its response; of a watch, its lifetime",
    labelNames: METHOD_LABELS,
    buckets: BUCKETS,
    registers,
  });

  function tallyOf(method: DescMethod): Tally {
    const known = tallies.get(method);
    if (known !== undefined) {
      return known;
    }
    const labels = [TYPES[method.methodKind], method.parent.typeName, method.name] as const;
    const child = duration.labels(...labels);
    const tally: Tally = {
      labels,
      started: 0,
      inFlight: 0,
      handled: new Float64Array(CODES),
      observe: (seconds) => child.observe(seconds),
    };
    tallies.set(method, tally);
    return tally;
  }

  new Counter({
    name: "grpc_server_started_total",
    help: "Calls started",
    labelNames: METHOD_LABELS,
    registers,
    collect() {
      this.reset();
      for (const { labels, started } of tallies.values()) {
        this.labels(...labels).inc(started);
      }
    },
  });
  new Counter({
    name: "grpc_server_handled_total",
    help: "Calls ended, by code",
    labelNames: [...METHOD_LABELS, "grpc_code"],
    registers,
    collect() {
      this.reset();
      for (const { labels, handled } of tallies.values()) {
        for (const [code, count] of handled.entries()) {
          if (count > 0 || ALWAYS_SHOWN.has(code)) {
            this.labels(...labels, codeName(code)).inc(count);
          }
        }
      }
    },
  });
  new Gauge({
    name: "inventory_calls_in_flight",
    help: "Calls in flight, by type; those of server_stream are mostly watches",
    labelNames: ["grpc_type"],
    registers,
    collect() {
      this.reset();
      for (const { labels, inFlight } of tallies.values()) {
        this.labels(labels[0]).inc(inFlight);
      }
    },
  });
  for (const { methods } of services) {
    for (const method of methods) {
      tallyOf(method);
    }
  }

  return {
    enter({ method }) {
      const tally = tallyOf(method);
      tally.started += 1;
      tally.inFlight += 1;
    },
    leave({ method, startedAt }, code) {
      const tally = tallyOf(method);
      tally.inFlight -= 1;
      const index = code ?? OK;
      tally.handled[index] = (tally.handled[index] ?? 0) + 1;
      tally.observe((performance.now() - startedAt) / 1_000);
    },
  };
}

/** `OK`, `NotFound`, as go-grpc-middleware names them. */
export function codeName(code: number): string {
  return code === OK ? "OK" : (Code[code] ?? String(code));
}
