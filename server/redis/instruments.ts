import { InventoryError } from "../inventory/errors.ts";
import type { TraceSpan, Tracing } from "../ops/tracing.ts";
import type { RedisKind, RedisMetrics } from "./metrics.ts";

/** Where the work of Redis is measured and traced. Each is optional. */
export interface RedisInstruments {
  readonly metrics?: RedisMetrics | undefined;
  readonly tracing?: Tracing | undefined;
}

/** Receives the events of batched items. */
export interface BatchObserver<Item> {
  /** Called when a batch is sent, with the number of its items. */
  readonly onSent?: (items: number) => void;
  /** Called when a batch is answered or has failed, `ms` after it was sent. */
  readonly onEnded?: (ms: number, error: unknown) => void;
  /** Starts the trace of an item. Absent, or `undefined`: the item is not traced. */
  readonly trace?: (item: Item) => ItemTrace | undefined;
}

/** The trace of one item, from its submission to its result. */
export interface ItemTrace {
  /** Called when the item is sent in a batch of `items`. */
  sent(items: number): void;
  ended(error: unknown): void;
}

/**
 * Measures batches and traces the operations in them. A batch carries the operations of many callers, so each
 * operation gets a span of its own below its caller's span. It lasts from submission to result; an event marks the
 * moment of sending, and an attribute has the size of the batch.
 */
export function instrumented<Item>(
  kind: RedisKind,
  nameOf: (item: Item) => string,
  { metrics, tracing }: RedisInstruments,
): BatchObserver<Item> {
  return {
    ...(metrics && {
      onSent: (operations: number) => metrics.sent(kind, operations),
      onEnded: (ms: number, error: unknown) => metrics.ended(kind, ms, error),
    }),
    ...(tracing && {
      trace: (item: Item) => {
        const name = nameOf(item);
        const span = tracing.startChildSpan("client", `redis ${name}`, redisAttributes(name));
        return (
          span && {
            sent(operations: number) {
              span.setAttributes({ "db.operation.batch.size": operations });
              span.addEvent("sent");
            },
            ended: (error: unknown) => endTraced(span, error),
          }
        );
      },
    }),
  };
}

/** Measures and traces one command. */
export async function observed<T>(
  { metrics, tracing }: RedisInstruments,
  name: string,
  command: () => Promise<T>,
): Promise<T> {
  const span = tracing?.startChildSpan("client", `redis ${name}`, redisAttributes(name));
  const startedAt = performance.now();
  let failure: unknown;
  try {
    return await command();
  } catch (error) {
    failure = error;
    throw error;
  } finally {
    metrics?.ended("command", performance.now() - startedAt, failure);
    if (span !== undefined) {
      endTraced(span, failure);
    }
  }
}

function redisAttributes(operation: string): Record<string, string> {
  return { "db.system.name": "redis", "db.operation.name": operation };
}

function endTraced(span: TraceSpan, error: unknown): void {
  span.end(error === undefined ? undefined : typeOf(error));
}

function typeOf(error: unknown): string {
  return error instanceof InventoryError ? error.code : error instanceof Error ? error.name : "Error";
}
