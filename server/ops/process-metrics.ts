import { collectDefaultMetrics, Registry } from "prom-client";

let ofThisProcess: Registry | undefined;

/**
 * Adds Node's process metrics: event loop, heap, garbage collection, CPU. All apps of a process share one set,
 * because the library's observers cannot be stopped. They do not keep the process alive.
 */
export function addProcessMetrics(registry: Registry): void {
  if (ofThisProcess === undefined) {
    ofThisProcess = new Registry();
    collectDefaultMetrics({ register: ofThisProcess });
  }
  for (const { name } of ofThisProcess.getMetricsAsArray()) {
    const metric = ofThisProcess.getSingleMetric(name);
    if (metric !== undefined) {
      registry.registerMetric(metric);
    }
  }
}
