import { Code, ConnectError, type ServiceImpl } from "@connectrpc/connect";
import {
  type Health as HealthService,
  HealthCheckResponse_ServingStatus as Status,
} from "../../gen/health/v1/health_pb.ts";
import { show } from "../inventory/validation.ts";
import type { Health, Purpose } from "../ops/health.ts";

/**
 * grpc.health.v1 (https://github.com/grpc/grpc/blob/master/doc/health-checking.md). A service has the status of its
 * purpose: reads or writes. The empty name is the whole server, as `/readyz` is: it is serving if all services are.
 */
export function healthService(
  health: Health,
  services: ReadonlyMap<string, Purpose>,
): ServiceImpl<typeof HealthService> {
  const purposes = new Map<string, Purpose | undefined>([["", undefined], ...services]);
  const statusOf = (service: string): Status =>
    health.current(purposes.get(service)).length === 0 ? Status.SERVING : Status.NOT_SERVING;
  return {
    async check({ service }) {
      if (!purposes.has(service)) {
        throw new ConnectError(`Unknown service ${show(service)}`, Code.NotFound);
      }
      await health.check(purposes.get(service));
      return { status: statusOf(service) };
    },
    async list() {
      await health.check();
      const names = [...purposes.keys()];
      return { statuses: Object.fromEntries(names.map((name) => [name, { status: statusOf(name) }])) };
    },
    async *watch({ service }, context) {
      if (!purposes.has(service)) {
        // The specification requires that the stream stays open: the service may be added later.
        yield { status: Status.SERVICE_UNKNOWN };
        await aborted(context.signal);
        return;
      }
      let sent: Status | undefined;
      while (!context.signal.aborted) {
        const status = statusOf(service);
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
