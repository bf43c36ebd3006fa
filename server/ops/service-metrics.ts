import { Counter, Gauge, type Registry } from "prom-client";
import type { ReservationStore } from "../inventory/store.ts";
import { type Health, PURPOSES } from "./health.ts";

interface ServiceMetricsSources {
  readonly health: Health;
  readonly reservations: ReservationStore;
}

/** Adds readiness and the reservation metrics. Returns a function that counts expired reservations. */
export function addServiceMetrics(
  registry: Registry,
  { health, reservations }: ServiceMetricsSources,
): (expired: number) => void {
  const registers = [registry];
  new Gauge({
    name: "inventory_ready",
    help: "1 if this server should get traffic of every purpose, otherwise 0; /readyz gives the reasons",
    registers,
    collect() {
      this.set(health.current().length === 0 ? 1 : 0);
    },
  });
  new Gauge({
    name: "inventory_ready_for",
    help: "1 if this server should get traffic of this purpose, otherwise 0; reads need no store once they are loaded",
    labelNames: ["purpose"],
    registers,
    collect() {
      for (const purpose of PURPOSES) {
        this.set({ purpose }, health.current(purpose).length === 0 ? 1 : 0);
      }
    },
  });
  new Gauge({
    name: "inventory_reservations_active",
    help: "Reservations that hold units; the same on every server, and absent while the store is unavailable",
    registers,
    async collect() {
      try {
        this.set(await reservations.countActive());
      } catch {
        this.remove();
      }
    },
  });
  const expired = new Counter({
    name: "inventory_reservations_expired_total",
    help: "Reservations expired by this server",
    registers,
  });
  return (count) => expired.inc(count);
}
