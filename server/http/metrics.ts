import { Counter, Gauge, type Registry } from "prom-client";

/** Counts requests that never became a call: pages, probes, preflights, and requests refused before their method was known. */
export function createRequestCount(registry: Registry): (status: number) => void {
  const requests = new Counter({
    name: "inventory_http_requests_total",
    help: "Requests that are no calls (pages, probes, preflights, unknown paths and content types), by status",
    labelNames: ["status"],
    registers: [registry],
  });
  return (status) => requests.inc({ status });
}

/** Exports the number of open connections and its limit. */
export function addConnectionMetrics(
  registry: Registry,
  { open, most }: { open(): number; readonly most: number },
): void {
  const registers = [registry];
  new Gauge({
    name: "inventory_connections_open",
    help: "Connections to the port, including those that have not sent a byte",
    registers,
    collect() {
      this.set(open());
    },
  });
  new Gauge({
    name: "inventory_connections_max",
    help: "Connections beyond which a new one is refused",
    registers,
  }).set(most);
}
