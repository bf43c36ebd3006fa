import { Code, ConnectError, type ServiceImpl } from "@connectrpc/connect";
import {
  type Health as HealthService,
  HealthCheckResponse_ServingStatus as Status,
} from "../../gen/health/v1/health_pb.ts";
import { show } from "../inventory/validation.ts";
import type { Health } from "../ops/health.ts";

/**
 * grpc.health.v1 (https://github.com/grpc/grpc/blob/master/doc/health-checking.md). The empty name
 * is the whole server. All services share one store, and so one status.
 */
export function healthService(
  health: Health,
  serviceNames: readonly string[],
): ServiceImpl<typeof HealthService> {
  const names = new Set(["", ...serviceNames]);
  const statusOf = (): Status => (health.current.length === 0 ? Status.SERVING : Status.NOT_SERVING);
  return {
    async check(request) {
      if (!names.has(request.service)) {
        throw new ConnectError(`Unknown service ${show(request.service)}`, Code.NotFound);
      }
      await health.check();
      return { status: statusOf() };
    },
    async list() {
      await health.check();
      const status = statusOf();
      return { statuses: Object.fromEntries([...names].map((name) => [name, { status }])) };
    },
    async *watch(request, context) {
      if (!names.has(request.service)) {
        // The specification requires that the stream stays open: the service may be added later.
        yield { status: Status.SERVICE_UNKNOWN };
        await aborted(context.signal);
        return;
      }
      let sent: Status | undefined;
      while (!context.signal.aborted) {
        const status = statusOf();
        if (status !== sent) {
          sent = status;
          yield { status };
        } else {
          await nextChange(health, context.signal);
        }
      }
    },
  };
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) {
      resolve();
    } else {
      signal.addEventListener("abort", () => resolve(), { once: true });
    }
  });
}

/** Resolves when the health changes, or when the call ends. */
async function nextChange(health: Health, signal: AbortSignal): Promise<void> {
  const changed = Promise.withResolvers<void>();
  const unsubscribe = health.onChange(() => changed.resolve());
  try {
    await Promise.race([changed.promise, aborted(signal)]);
  } finally {
    unsubscribe();
  }
}
