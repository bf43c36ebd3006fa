import type { Role } from "./principal.ts";

/** Who may call the methods of a service: anyone, or clients with one of the roles. */
export type AccessRule = "public" | readonly Role[];

/**
 * Shoppers' reads, probes and the schema are public. Services that change stock or expose orders require a role. A service
 * that is not listed requires the role `ops`, so that an omission grants no access.
 */
const RULES: ReadonlyMap<string, AccessRule> = new Map<string, AccessRule>([
  ["Inventory", "public"],
  ["inventory.v1.StockService", "public"],
  ["grpc.health.v1.Health", "public"],
  ["grpc.reflection.v1.ServerReflection", "public"],
  ["grpc.reflection.v1alpha.ServerReflection", "public"],
  ["inventory.v1.ReservationService", ["orders", "ops"]],
  ["inventory.v1.SupplyService", ["supply", "ops"]],
]);

export function ruleOf(service: string): AccessRule {
  return RULES.get(service) ?? ["ops"];
}
