import type { Role } from "./principal.ts";

/** Who may call the methods of a service, by its full name. */
export type AccessRule = "everybody" | readonly Role[];

/**
 * Shoppers' reads, probes and the schema are for everybody; what changes stock, or tells of orders, needs a role. A
 * service that is not named here is for operators alone, so that forgetting it opens nothing.
 */
const RULES: ReadonlyMap<string, AccessRule> = new Map<string, AccessRule>([
  ["Inventory", "everybody"],
  ["inventory.v1.StockService", "everybody"],
  ["grpc.health.v1.Health", "everybody"],
  ["grpc.reflection.v1.ServerReflection", "everybody"],
  ["grpc.reflection.v1alpha.ServerReflection", "everybody"],
  ["inventory.v1.ReservationService", ["orders", "ops"]],
  ["inventory.v1.SupplyService", ["supply", "ops"]],
]);

export function ruleOf(service: string): AccessRule {
  return RULES.get(service) ?? ["ops"];
}
