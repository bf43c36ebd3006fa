import { Counter, Gauge, type Registry } from "prom-client";
import type { ReservationStore } from "../inventory/store.ts";
import type { Health } from "./health.ts";

interface ServiceMetricsSources {
  readonly health: Health;
  readonly reservations: ReservationStore;
}

/** What the whole of a server is asked first. Returns what is told of reservations that have expired. */
export function addServiceMetrics(
  registry: Registry,
  { health, reservations }: ServiceMetricsSources,
): (expired: number) => void {
  const registers = [registry];
  new Gauge({
    name: "inventory_ready",
    help: "1 where this server should get traffic, else 0; /readyz says why not",
    registers,
    collect() {
      this.set(health.current.length === 0 ? 1 : 0);
    },
  });
  new Gauge({
    name: "inventory_reservations_active",
    help: "Reservations that hold units; the same from every server, and absent while the store is away",
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
    help: "Reservations that this server has expired",
    registers,
  });
  return (count) => expired.inc(count);
}
