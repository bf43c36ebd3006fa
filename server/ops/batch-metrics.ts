import { Counter, type Registry } from "prom-client";

/** Counts the requests of a batch by their codes; `undefined` is OK. */
export type BatchCount = (method: string, codes: readonly (number | undefined)[]) => void;

/** `nameOf` gives the label of a code. */
export function createBatchCount(registry: Registry, nameOf: (code: number) => string): BatchCount {
  const requests = new Counter({
    name: "inventory_batch_requests_total",
    help: "Requests in calls of batch methods, by code",
    labelNames: ["grpc_method", "grpc_code"],
    registers: [registry],
  });
  return (method, codes) => {
    for (const code of codes) {
      requests.labels(method, nameOf(code ?? 0)).inc();
    }
  };
}
